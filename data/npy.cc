#include <libdeflate.h>

#include <cctype>
#include <cstring>

#include "common/files.h"
#include "data/readers.h"

namespace pare::data {
namespace {

using model::DType;

Error Bad(const std::string& what, const std::string& text) { return Error{ErrorCode::kInvalid, what + ": " + text}; }

uint32_t Little(std::string_view bytes, size_t at, int count) {
  uint32_t value = 0;
  for (int i = count - 1; i >= 0; --i) value = value << 8 | static_cast<uint8_t>(bytes[at + static_cast<size_t>(i)]);
  return value;
}

// The text after "'key':" in numpy's header, a Python dict literal.
std::string_view HeaderValue(std::string_view header, std::string_view key) {
  size_t at = header.find("'" + std::string(key) + "'");
  if (at == std::string_view::npos) return {};
  at = header.find(':', at);
  if (at == std::string_view::npos) return {};
  ++at;
  while (at < header.size() && header[at] == ' ') ++at;
  return header.substr(at);
}

Result<DType> ParseDescr(std::string_view text, const std::string& what) {
  static constexpr std::pair<std::string_view, DType> kTypes[] = {
      {"|u1", DType::kU8}, {"|i1", DType::kI8}, {"<i2", DType::kI16}, {"<i4", DType::kI32},
      {"<i8", DType::kI64}, {"<f4", DType::kF32}, {"<f8", DType::kF64}, {"|b1", DType::kBool}};
  for (const auto& [name, dtype] : kTypes) {
    if (text.size() >= 5 && text.substr(1, 3) == name) return dtype;
  }
  size_t end = text.empty() ? 0 : text.find_first_of("'\"", 1);
  std::string written(text.substr(0, end == std::string_view::npos ? 16 : std::min<size_t>(end + 1, 16)));
  return Bad(what, "element type " + written + " is not read; allowed are u1, i1, i2, i4, i8, f4, f8, b1, little-endian");
}

}  // namespace

Result<model::Tensor> ParseNpy(std::string_view bytes, const std::string& what) {
  if (bytes.size() < 10 || bytes.substr(0, 6) != "\x93NUMPY") return Bad(what, "not an .npy file (magic at byte 0)");
  int major = bytes[6];
  if (major != 1 && major != 2) return Bad(what, ".npy version " + std::to_string(major) + " at byte 6; 1 and 2 are read");
  size_t start = major == 1 ? 10 : 12;
  if (bytes.size() < start) return Bad(what, "truncated .npy header");
  size_t length = Little(bytes, 8, major == 1 ? 2 : 4);
  if (length > bytes.size() - start) return Bad(what, "truncated .npy header");
  std::string_view header = bytes.substr(start, length), data = bytes.substr(start + length);
  ASSIGN_OR_RETURN(DType dtype, ParseDescr(HeaderValue(header, "descr"), what));
  if (HeaderValue(header, "fortran_order").substr(0, 5) != "False") return Bad(what, "Fortran order is not read; save with numpy.ascontiguousarray");
  std::string_view tuple = HeaderValue(header, "shape");
  if (tuple.empty() || tuple[0] != '(') return Bad(what, "damaged .npy header: no shape");
  model::Shape shape;
  size_t elements = 1;
  for (size_t i = 1; i < tuple.size() && tuple[i] != ')';) {
    if (tuple[i] == ',' || tuple[i] == ' ' || tuple[i] == 'L') { ++i; continue; }
    if (!std::isdigit(static_cast<unsigned char>(tuple[i]))) return Bad(what, "damaged .npy header: shape");
    uint64_t d = 0;
    for (; i < tuple.size() && std::isdigit(static_cast<unsigned char>(tuple[i])) && d < (uint64_t{1} << 40); ++i) {
      d = d * 10 + static_cast<uint64_t>(tuple[i] - '0');
    }
    if (d >= (uint64_t{1} << 40) || shape.size() >= 8 || __builtin_mul_overflow(elements, d, &elements)) return Bad(what, "shape too large");
    shape.push_back(static_cast<int64_t>(d));
  }
  size_t size = 0;
  if (__builtin_mul_overflow(elements, model::SizeOf(dtype), &size) || size != data.size()) {
    return Bad(what, "the header says " + model::ToString(shape) + " " + std::string(model::ToString(dtype)) + ", " +
                         std::to_string(data.size()) + " bytes follow (truncated?)");
  }
  model::Tensor tensor(dtype, shape);
  std::memcpy(const_cast<std::byte*>(tensor.bytes().data()), data.data(), size);
  return tensor;
}

Result<model::Tensor> ReadNpy(const std::string& path) {
  ASSIGN_OR_RETURN(std::string bytes, ReadDataFile(path));
  return ParseNpy(bytes, path);
}

// Walks the central directory (PKWARE APPNOTE 4.3.12), whose sizes are always filled in.
Result<model::TensorMap> ReadNpz(const std::string& path) {
  ASSIGN_OR_RETURN(std::string file, ReadDataFile(path));
  std::string_view bytes = file;
  size_t end = bytes.rfind("PK\x05\x06");
  if (end == std::string_view::npos || end + 22 > bytes.size()) return Bad(path, "not an .npz file (no zip directory; truncated?)");
  size_t count = Little(bytes, end + 10, 2), at = Little(bytes, end + 16, 4);
  model::TensorMap tensors;
  for (size_t i = 0; i < count; ++i) {
    if (at + 46 > bytes.size() || bytes.substr(at, 4) != std::string_view("PK\x01\x02", 4)) return Bad(path, "damaged zip directory");
    uint32_t method = Little(bytes, at + 10, 2), packed = Little(bytes, at + 20, 4), size = Little(bytes, at + 24, 4);
    size_t name_length = Little(bytes, at + 28, 2), extra = Little(bytes, at + 30, 2), comment = Little(bytes, at + 32, 2);
    size_t local = Little(bytes, at + 42, 4);
    if (at + 46 + name_length > bytes.size() || local + 30 > bytes.size()) return Bad(path, "damaged zip directory");
    std::string name(bytes.substr(at + 46, name_length));
    size_t data = local + 30 + Little(bytes, local + 26, 2) + Little(bytes, local + 28, 2);
    if (data > bytes.size() || packed > bytes.size() - data) return Bad(path, "member " + name + " lies outside the file");
    std::string_view member = bytes.substr(data, packed);
    std::string inflated;
    if (method == 8) {
      ASSIGN_OR_RETURN(inflated, InflateRaw(member, size, path + ":" + name));
      member = inflated;
    } else if (method != 0) {
      return Bad(path, "member " + name + ": compression method " + std::to_string(method) + " is not read");
    }
    if (libdeflate_crc32(0, member.data(), member.size()) != Little(bytes, at + 16, 4)) {
      return Bad(path, "member " + name + " is damaged (checksum)");
    }
    if (name.size() > 4 && name.substr(name.size() - 4) == ".npy") {
      ASSIGN_OR_RETURN(model::Tensor tensor, ParseNpy(member, path + ":" + name));
      tensors.emplace(name.substr(0, name.size() - 4), std::move(tensor));
    }
    at += 46 + name_length + extra + comment;
  }
  return tensors;
}

}  // namespace pare::data
