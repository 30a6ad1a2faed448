#include <libdeflate.h>

#include <cstring>
#include <memory>

#include "common/files.h"
#include "data/readers.h"

namespace pare::data {
namespace {

struct FreeDecompressor {
  void operator()(libdeflate_decompressor* d) const { libdeflate_free_decompressor(d); }
};
using Decompressor = std::unique_ptr<libdeflate_decompressor, FreeDecompressor>;

constexpr size_t kMaxInflated = size_t{8} << 30;

Error Bad(const std::string& path, const std::string& text) { return Error{ErrorCode::kInvalid, path + ": " + text}; }

uint32_t BigEndian(const std::string& bytes, size_t at) {
  auto b = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(bytes[at + i])); };
  return b(0) << 24 | b(1) << 16 | b(2) << 8 | b(3);
}

}  // namespace

Result<std::string> InflateGzip(std::string_view bytes, const std::string& what) {
  if (bytes.size() < 18) return Bad(what, "truncated gzip file (" + std::to_string(bytes.size()) + " bytes)");
  uint32_t size = 0;  // ISIZE, the last four bytes
  std::memcpy(&size, bytes.data() + bytes.size() - 4, 4);
  // A deflate stream expands at most 1032 times: a larger promise is a damaged trailer.
  if (size > kMaxInflated || size / 1032 > bytes.size()) return Bad(what, "damaged gzip file: its length field says " + std::to_string(size));
  std::string out(size, '\0');
  Decompressor decompressor(libdeflate_alloc_decompressor());
  CHECK(decompressor != nullptr);
  size_t actual = 0;
  auto result = libdeflate_gzip_decompress(decompressor.get(), bytes.data(), bytes.size(), out.data(), out.size(), &actual);
  if (result != LIBDEFLATE_SUCCESS || actual != size) return Bad(what, "damaged or truncated gzip file");
  return out;
}

Result<std::string> InflateRaw(std::string_view bytes, size_t size, const std::string& what) {
  if (size > kMaxInflated || size / 1032 > bytes.size() + 1) return Bad(what, "damaged archive member");
  std::string out(size, '\0');
  Decompressor decompressor(libdeflate_alloc_decompressor());
  CHECK(decompressor != nullptr);
  size_t actual = 0;
  auto result = libdeflate_deflate_decompress(decompressor.get(), bytes.data(), bytes.size(), out.data(), out.size(), &actual);
  if (result != LIBDEFLATE_SUCCESS || actual != size) return Bad(what, "damaged archive member");
  return out;
}

Result<model::Tensor> ReadIdx(const std::string& path) {
  ASSIGN_OR_RETURN(std::string bytes, ReadDataFile(path));
  if (bytes.size() >= 2 && bytes[0] == '\x1f' && bytes[1] == '\x8b') {
    ASSIGN_OR_RETURN(bytes, InflateGzip(bytes, path));
  }
  if (bytes.size() < 4) return Bad(path, "truncated idx file: " + std::to_string(bytes.size()) + " bytes, the header needs 4");
  if (bytes[0] != 0 || bytes[1] != 0) return Bad(path, "not an idx file: it must start with two zero bytes (magic number at byte 0)");
  if (bytes[2] != 8) return Bad(path, "idx element type " + std::to_string(static_cast<uint8_t>(bytes[2])) + " at byte 2; only 8 (unsigned byte) is read");
  size_t rank = static_cast<uint8_t>(bytes[3]);
  if (rank < 1 || rank > 4 || bytes.size() < 4 + 4 * rank) return Bad(path, "truncated or damaged idx header: rank " + std::to_string(rank) + " at byte 3");
  model::Shape shape;
  size_t elements = 1;
  for (size_t i = 0; i < rank; ++i) {
    uint32_t d = BigEndian(bytes, 4 + 4 * i);
    shape.push_back(d);
    if (__builtin_mul_overflow(elements, size_t{d}, &elements)) return Bad(path, "idx dimensions too large");
  }
  size_t header = 4 + 4 * rank;
  if (bytes.size() - header != elements) {
    return Bad(path, "idx header says " + model::ToString(shape) + " = " + std::to_string(elements) + " bytes, the file holds " +
                         std::to_string(bytes.size() - header) + " (truncated?)");
  }
  model::Tensor tensor(model::DType::kU8, shape);
  std::memcpy(tensor.mutable_values<uint8_t>().data(), bytes.data() + header, elements);
  return tensor;
}

}  // namespace pare::data
