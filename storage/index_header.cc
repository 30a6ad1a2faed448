#include "storage/index_header.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>

#include "common/files.h"
#include "storage/blob_files.h"

namespace pare::storage {
namespace {

constexpr size_t kHeaderBytes = 100, kPageBytes = 4096;
constexpr size_t kVersionsAt = 18, kCounterAt = 24, kPagesAt = 28, kFreePagesAt = 32, kFormatAt = 44, kEncodingAt = 56, kValidForAt = 92;
constexpr uint32_t kFormat = 4, kUtf8 = 1;
constexpr char kLog = 2;
constexpr char kZeros[20] = {};

struct Same {
  size_t at;
  std::string_view bytes;
};
constexpr Same kSame[] = {
    {0, {"SQLite format 3\0\x10\0", 18}},  // and pages of 4096 bytes
    {20, {"\0\x40\x20\x20", 4}},           // nothing reserved in a page, payload fractions
    {48, {kZeros, 8}},                     // no default cache size, no automatic vacuum
    {64, {kZeros, 4}},                     // nor an incremental one
    {72, {kZeros, 20}},                    // reserved
};

// Of the two file format versions: 1 is a database without a log, as a backup is, 2 one with a log.
bool Known(char version) { return version == 1 || version == kLog; }

std::optional<size_t> FirstDamaged(std::string_view header) {
  for (const Same& same : kSame) {
    for (size_t i = 0; i < same.bytes.size(); ++i) {
      if (header[same.at + i] != same.bytes[i]) return same.at + i;
    }
  }
  for (size_t at : {kVersionsAt, kVersionsAt + 1}) {
    if (!Known(header[at])) return at;
  }
  return std::nullopt;
}

void Put(std::string& header, size_t at, uint32_t value) {
  for (size_t i = 0; i < 4; ++i) header[at + i] = static_cast<char>(value >> (24 - 8 * i));
}

void Mend(std::string& header, uint32_t pages) {
  for (const Same& same : kSame) header.replace(same.at, same.bytes.size(), same.bytes);
  for (size_t at : {kVersionsAt, kVersionsAt + 1}) {
    if (!Known(header[at])) header[at] = kLog;
  }
  Put(header, kPagesAt, pages);
  Put(header, kFreePagesAt, 0);
  Put(header, kFreePagesAt + 4, 0);
  Put(header, kFormatAt, kFormat);
  Put(header, kEncodingAt, kUtf8);
  header.replace(kValidForAt, 4, header, kCounterAt, 4);  // the size is valid
}

}  // namespace

std::string ProblemOfHeader(const std::string& path) {
  // Beside a journal the file is in the middle of a change that SQLite undoes: of its creation.
  if (::access((path + "-journal").c_str(), F_OK) == 0) return "";
  auto header = FirstBytes(path, kHeaderBytes);
  if (!header.ok()) return header.error().code == ErrorCode::kNotFound ? "" : header.error().message;
  if (header->size() < kHeaderBytes) return "";  // SQLite says so
  std::optional<size_t> damaged = FirstDamaged(*header);
  return damaged ? "the header of its file is damaged in byte " + std::to_string(*damaged) : "";
}

Status MendHeader(const std::string& path) {
  std::error_code code;
  uintmax_t size = std::filesystem::file_size(path, code);
  if (code || size < kPageBytes) return Ok();
  ASSIGN_OR_RETURN(std::string header, FirstBytes(path, kHeaderBytes));
  Mend(header, static_cast<uint32_t>(size / kPageBytes));
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd.valid()) return SystemError("cannot open " + path, errno);
  return WriteAll(fd.get(), std::as_bytes(std::span(header)), path);
}

}  // namespace pare::storage
