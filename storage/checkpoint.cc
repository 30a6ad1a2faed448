#include "storage/checkpoint.h"

#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "storage/mask_coder.h"

namespace pare::storage {
namespace {

using model::DType;
using model::Mask;
using model::Shape;
using model::Tensor;

constexpr char kMagic[] = "PARECKPT";
constexpr uint32_t kFormatVersion = 1;
constexpr size_t kFixedHeader = 56;
constexpr int kZstdLevel = 3;
constexpr int64_t kMaxElements = int64_t{1} << 40;

Error Corrupt(const std::string& text) { return Error{ErrorCode::kCorrupt, "checkpoint: " + text}; }

std::string Compress(std::string_view bytes) {
  std::string out(ZSTD_compressBound(bytes.size()), '\0');
  size_t size = ZSTD_compress(out.data(), out.size(), bytes.data(), bytes.size(), kZstdLevel);
  CHECK(!ZSTD_isError(size));
  out.resize(size);
  return out;
}

// Byte planes: byte k of every element together. Exponents compress, mantissas do not; each plane is stored the smaller
// way. Format per plane: u8 method (0 raw, 1 zstd), u64 length, bytes.
std::string EncodePlanes(std::string_view bytes, size_t element) {
  std::string out;
  size_t count = bytes.size() / element;
  std::string plane(count, '\0');
  for (size_t k = 0; k < element; ++k) {
    for (size_t i = 0; i < count; ++i) plane[i] = bytes[i * element + k];
    std::string packed = Compress(plane);
    bool smaller = packed.size() < plane.size();
    const std::string& chosen = smaller ? packed : plane;
    uint64_t length = chosen.size();
    out.push_back(smaller ? 1 : 0);
    out.append(reinterpret_cast<const char*>(&length), 8);
    out += chosen;
  }
  return out;
}

// Reads EncodePlanes' bytes from the front of `in`, which is advanced.
Result<std::string> DecodePlanes(std::string_view& in, size_t count, size_t element) {
  std::string out(count * element, '\0'), plane(count, '\0');
  for (size_t k = 0; k < element; ++k) {
    if (in.size() < 9) return Corrupt("a byte plane ends early");
    uint8_t method = static_cast<uint8_t>(in[0]);
    uint64_t length = 0;
    std::memcpy(&length, in.data() + 1, 8);
    in.remove_prefix(9);
    if (length > in.size() || method > 1 || (method == 0 && length != count)) return Corrupt("a byte plane has a wrong length");
    if (method == 0) {
      std::memcpy(plane.data(), in.data(), count);
    } else {
      size_t got = ZSTD_decompress(plane.data(), count, in.data(), length);
      if (ZSTD_isError(got) || got != count) return Corrupt("a compressed byte plane is damaged");
    }
    in.remove_prefix(length);
    for (size_t i = 0; i < count; ++i) out[i * element + k] = plane[i];
  }
  return out;
}

std::string_view BytesOf(const Tensor& tensor) {
  return {reinterpret_cast<const char*>(tensor.bytes().data()), tensor.bytes().size()};
}

bool IsConstant(std::string_view bytes, size_t element) {
  return bytes.size() > element && std::memcmp(bytes.data(), bytes.data() + element, bytes.size() - element) == 0;
}

struct Coded {
  std::string encoding, bytes;
};

Coded EncodeDense(const Tensor& tensor) {
  std::string_view bytes = BytesOf(tensor);
  size_t element = model::SizeOf(tensor.dtype());
  if (IsConstant(bytes, element)) return {"constant", std::string(bytes.substr(0, element))};
  std::string planes = EncodePlanes(bytes, element);
  if (planes.size() < bytes.size()) return {"planes", std::move(planes)};
  return {"raw", std::string(bytes)};
}

// u64 length of the coded mask, the coded mask, the surviving values as byte planes.
Coded EncodeMasked(const Tensor& tensor, const Mask& mask) {
  CHECK(mask.shape() == tensor.shape());
  std::string_view bytes = BytesOf(tensor);
  size_t element = model::SizeOf(tensor.dtype());
  std::string values, zero(element, '\0');
  for (int64_t i = 0, n = mask.size(); i < n; ++i) {
    std::string_view value = bytes.substr(static_cast<size_t>(i) * element, element);
    if (mask.keeps(i)) values += value;
    else CHECK(value == zero);
  }
  std::string coded = EncodeMask(mask);
  uint64_t length = coded.size();
  std::string out(reinterpret_cast<const char*>(&length), 8);
  return {"masked", out + coded + EncodePlanes(values, element)};
}

struct Decoded {
  Tensor tensor;
  std::optional<Mask> mask;
};

Result<Decoded> DecodeMasked(std::string_view in, DType dtype, const Shape& shape) {
  if (in.size() < 8) return Corrupt("a mask ends early");
  uint64_t length = 0;
  std::memcpy(&length, in.data(), 8);
  in.remove_prefix(8);
  if (length > in.size()) return Corrupt("a mask ends early");
  ASSIGN_OR_RETURN(Mask mask, DecodeMask(shape, in.substr(0, length)));
  in.remove_prefix(length);
  size_t element = model::SizeOf(dtype);
  ASSIGN_OR_RETURN(std::string values, DecodePlanes(in, static_cast<size_t>(mask.kept()), element));
  if (!in.empty()) return Corrupt("bytes after a tensor");
  Tensor tensor(dtype, shape);
  auto* out = reinterpret_cast<char*>(const_cast<std::byte*>(tensor.bytes().data()));
  size_t next = 0;
  for (int64_t i = 0, n = mask.size(); i < n; ++i) {
    if (!mask.keeps(i)) continue;
    std::memcpy(out + static_cast<size_t>(i) * element, values.data() + next, element);
    next += element;
  }
  return Decoded{std::move(tensor), std::move(mask)};
}

Result<Decoded> DecodePayload(const std::string& encoding, std::string_view in, DType dtype, const Shape& shape) {
  if (encoding == "masked") return DecodeMasked(in, dtype, shape);
  size_t element = model::SizeOf(dtype), count = static_cast<size_t>(model::ElementCount(shape));
  std::string bytes;
  if (encoding == "raw") {
    bytes = in;
  } else if (encoding == "constant") {
    if (in.size() != element) return Corrupt("a constant of wrong size");
    for (size_t i = 0; i < count; ++i) bytes += in;
  } else if (encoding == "planes") {
    ASSIGN_OR_RETURN(bytes, DecodePlanes(in, count, element));
    if (!in.empty()) return Corrupt("bytes after a tensor");
  } else {
    return Error{ErrorCode::kVersion, "checkpoint: encoding '" + encoding + "' is not known to this version"};
  }
  if (bytes.size() != count * element) return Corrupt("a tensor of wrong size");
  Tensor tensor(dtype, shape);
  std::memcpy(const_cast<std::byte*>(tensor.bytes().data()), bytes.data(), bytes.size());
  return Decoded{std::move(tensor), std::nullopt};
}

Result<Decoded> DecodeEntry(const std::string& name, const Json& json, std::string_view payloads) {
  ASSIGN_OR_RETURN(std::string dtype_name, StringField(json, "dtype"));
  ASSIGN_OR_RETURN(DType dtype, model::DTypeFromString(dtype_name));
  ASSIGN_OR_RETURN(std::string encoding, StringField(json, "encoding"));
  ASSIGN_OR_RETURN(int64_t offset, IntField(json, "offset"));
  ASSIGN_OR_RETURN(int64_t length, IntField(json, "length"));
  ASSIGN_OR_RETURN(Digest digest, DigestField(json, "digest"));
  auto sizes = json.find("shape");
  Shape shape;
  int64_t elements = 1;
  if (sizes == json.end() || !sizes->is_array() || sizes->size() > 16) return Corrupt("tensor '" + name + "': bad shape");
  for (const Json& d : *sizes) {
    if (!d.is_number_unsigned() || __builtin_mul_overflow(elements, d.get<int64_t>(), &elements) || elements > kMaxElements || elements < 0) {
      return Corrupt("tensor '" + name + "': bad shape");
    }
    shape.push_back(d.get<int64_t>());
  }
  auto total = static_cast<int64_t>(payloads.size());
  if (offset < 0 || length < 0 || offset > total || length > total - offset) return Corrupt("tensor '" + name + "' lies outside the file");
  // Nothing decodes to more than 2^20 elements per stored byte except constants and near-empty masks; those are bounded here.
  if (elements > (int64_t{1} << 33)) return Corrupt("tensor '" + name + "': too large");
  auto decoded = DecodePayload(encoding, payloads.substr(static_cast<size_t>(offset), static_cast<size_t>(length)), dtype, shape);
  if (!decoded.ok()) return decoded.error().With("tensor '" + name + "'");
  if (decoded->tensor.digest() != digest) return Corrupt("tensor '" + name + "' does not match its digest");
  return decoded;
}

struct Parsed {
  Json header;
  std::string_view payloads;
};

Result<Parsed> ParseHeader(std::span<const std::byte> bytes) {
  std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.size() < kFixedHeader || text.substr(0, 8) != kMagic) return Corrupt("not a checkpoint (magic at byte 0)");
  uint32_t version = 0;
  uint64_t length = 0;
  std::memcpy(&version, text.data() + 8, 4);
  std::memcpy(&length, text.data() + 16, 8);
  if (version != kFormatVersion) {
    return Error{ErrorCode::kVersion, "checkpoint of format " + std::to_string(version) + ", this version reads 1"};
  }
  if (length > text.size() - kFixedHeader) return Corrupt("the header ends early");
  std::string_view header = text.substr(kFixedHeader, length);
  if (std::memcmp(DigestOf(header).bytes().data(), text.data() + 24, 32) != 0) return Corrupt("the header does not match its digest");
  ASSIGN_OR_RETURN(Json json, ParseJson(header, "checkpoint header"));
  if (!json.is_object() || !json.contains("tensors") || !json["tensors"].is_object() || !json.contains("graph")) return Corrupt("bad header");
  return Parsed{std::move(json), text.substr(kFixedHeader + length)};
}

}  // namespace

Result<std::string> EncodeCheckpoint(const Checkpoint& checkpoint) {
  Json tensors = Json::object();
  std::string payloads;
  for (const auto& [name, tensor] : checkpoint.tensors) {
    auto mask = checkpoint.masks.find(name);
    Coded coded = mask == checkpoint.masks.end() ? EncodeDense(tensor) : EncodeMasked(tensor, mask->second);
    tensors[name] = {{"dtype", model::ToString(tensor.dtype())}, {"shape", tensor.shape()}, {"encoding", coded.encoding},
                     {"offset", payloads.size()}, {"length", coded.bytes.size()}, {"digest", tensor.digest().hex()}};
    payloads += coded.bytes;
  }
  for (const auto& [name, mask] : checkpoint.masks) {
    if (!checkpoint.tensors.count(name)) return Error{ErrorCode::kInvalid, "checkpoint: mask for unknown tensor '" + name + "'"};
  }
  std::string header = Canonical({{"graph", model::ToJson(checkpoint.graph)}, {"tensors", std::move(tensors)}, {"notes", checkpoint.notes}});
  uint64_t length = header.size();
  uint32_t version = kFormatVersion, zero = 0;
  std::string out(kMagic, 8);
  out.append(reinterpret_cast<const char*>(&version), 4).append(reinterpret_cast<const char*>(&zero), 4);
  out.append(reinterpret_cast<const char*>(&length), 8);
  Digest digest = DigestOf(header);
  out.append(reinterpret_cast<const char*>(digest.bytes().data()), 32);
  return out + header + payloads;
}

Result<Checkpoint> DecodeCheckpoint(std::span<const std::byte> bytes) {
  ASSIGN_OR_RETURN(Parsed parsed, ParseHeader(bytes));
  Checkpoint checkpoint;
  ASSIGN_OR_RETURN(checkpoint.graph, model::GraphFromJson(parsed.header["graph"]));
  checkpoint.notes = parsed.header.value("notes", Json::object());
  for (const auto& [name, json] : parsed.header["tensors"].items()) {
    ASSIGN_OR_RETURN(Decoded decoded, DecodeEntry(name, json, parsed.payloads));
    checkpoint.tensors.emplace(name, std::move(decoded.tensor));
    if (decoded.mask) checkpoint.masks.emplace(name, *std::move(decoded.mask));
  }
  return checkpoint;
}

Result<Tensor> DecodeTensor(std::span<const std::byte> bytes, const std::string& name) {
  ASSIGN_OR_RETURN(Parsed parsed, ParseHeader(bytes));
  auto it = parsed.header["tensors"].find(name);
  if (it == parsed.header["tensors"].end()) return Error{ErrorCode::kNotFound, "checkpoint: no tensor '" + name + "'"};
  ASSIGN_OR_RETURN(Decoded decoded, DecodeEntry(name, *it, parsed.payloads));
  return std::move(decoded.tensor);
}

}  // namespace pare::storage
