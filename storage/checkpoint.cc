#include "storage/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "common/check.h"

namespace pare::storage {
namespace {

using model::DType;
using model::Mask;
using model::Shape;
using model::Tensor;

constexpr std::string_view kMagic = "PARECKPT", kEndMagic = "TPKCERAP";
constexpr uint32_t kFormatVersion = 1;
constexpr size_t kStart = 16, kTrailer = 48;
constexpr int64_t kMaxTensorBytes = int64_t{1} << 42;

Error Corrupt(const std::string& text) { return Error{ErrorCode::kCorrupt, "checkpoint: " + text}; }

// ---- writing ----

struct Payload {
  Digest digest;
  int64_t length = 0;
};

// Encodes into `target`, counting and hashing.
Result<Payload> WritePayload(const Tensor& tensor, const Mask* mask, const ByteSink& target) {
  Sha256 hash;
  Payload payload;
  TRY(EncodeTensorPayload(tensor, mask, [&](std::string_view bytes) -> Status {
    hash.Update(bytes);
    payload.length += static_cast<int64_t>(bytes.size());
    return target(bytes);
  }));
  payload.digest = Digest(hash.Finish());
  return payload;
}

// As a blob of its own.
Result<Payload> PutPayload(const Tensor& tensor, const Mask* mask, BlobStore& blobs) {
  ASSIGN_OR_RETURN(std::unique_ptr<BlobWriter> writer, blobs.NewWriter());
  Payload payload;
  TRY(EncodeTensorPayload(tensor, mask, [&](std::string_view bytes) {
    payload.length += static_cast<int64_t>(bytes.size());
    return writer->Append(bytes);
  }));
  ASSIGN_OR_RETURN(payload.digest, writer->Finish());
  return payload;
}

Status CheckMasks(const Checkpoint& checkpoint) {
  for (const auto& [name, mask] : checkpoint.masks) {
    auto tensor = checkpoint.tensors.find(name);
    if (tensor == checkpoint.tensors.end()) return Error{ErrorCode::kInvalid, "checkpoint: mask for unknown tensor '" + name + "'"};
    if (tensor->second.shape() != mask.shape()) {
      return Error{ErrorCode::kInvalid, "checkpoint: tensor '" + name + "' has shape " + model::ToString(tensor->second.shape()) + ", its mask " +
                                            model::ToString(mask.shape())};
    }
  }
  return Ok();
}

// Writes the file to `sink`; large tensors go to `blobs` (if there is one), and are noted in `stored`.
Status WriteCheckpoint(const Checkpoint& checkpoint, BlobStore* blobs, const ByteSink& sink, StoredCheckpoint& stored) {
  TRY(CheckMasks(checkpoint));
  std::string start(kMagic);
  AppendLittleEndian(start, kFormatVersion, 4);
  AppendLittleEndian(start, 0, 4);
  TRY(sink(start));
  int64_t offset = kStart;
  Json tensors = Json::object();
  for (const auto& [name, tensor] : checkpoint.tensors) {
    auto found = checkpoint.masks.find(name);
    const Mask* mask = found == checkpoint.masks.end() ? nullptr : &found->second;
    bool inside = blobs == nullptr || static_cast<int64_t>(tensor.bytes().size()) < kSharedTensorBytes;
    ASSIGN_OR_RETURN(Payload payload, inside ? WritePayload(tensor, mask, sink) : PutPayload(tensor, mask, *blobs));
    Json entry = {{"dtype", model::ToString(tensor.dtype())}, {"shape", tensor.shape()}, {"length", payload.length}, {"digest", payload.digest.hex()}};
    if (inside) {
      entry["offset"] = offset;
      offset += payload.length;
    } else {
      stored.shared[name] = {payload.digest, payload.length};
    }
    tensors[name] = std::move(entry);
  }
  std::string header = Canonical({{"graph", model::ToJson(checkpoint.graph)}, {"tensors", std::move(tensors)}, {"notes", checkpoint.notes}});
  Digest digest = DigestOf(header);
  std::string end = header;
  AppendLittleEndian(end, header.size(), 8);
  end.append(reinterpret_cast<const char*>(digest.bytes().data()), 32);
  end += kEndMagic;
  TRY(sink(end));
  stored.file.bytes = offset + static_cast<int64_t>(end.size());
  return Ok();
}

// ---- reading ----

struct Parsed {
  Json header;
  std::string_view file;
};

Result<Parsed> ParseFile(std::span<const std::byte> bytes) {
  std::string_view file(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (file.size() < kStart + kTrailer || file.substr(0, 8) != kMagic) return Corrupt("not a checkpoint (magic at byte 0)");
  ByteReader start(file.substr(8, 8));
  if (uint32_t version = start.U32(); version != kFormatVersion) {
    return Error{ErrorCode::kVersion, "checkpoint of format " + std::to_string(version) + ", this version reads " + std::to_string(kFormatVersion)};
  }
  if (start.U32() != 0) return Corrupt("byte 12 is not zero");
  ByteReader end(file.substr(file.size() - kTrailer));
  uint64_t length = end.U64();
  std::string_view digest = end.Take(32);
  if (end.Take(8) != kEndMagic) return Corrupt("it ends early");
  if (length > file.size() - kStart - kTrailer) return Corrupt("its header is longer than the file");
  std::string_view header = file.substr(file.size() - kTrailer - length, length);
  if (std::memcmp(DigestOf(header).bytes().data(), digest.data(), 32) != 0) return Corrupt("its header does not match its digest");
  ASSIGN_OR_RETURN(Json json, ParseJson(header, "checkpoint header"));
  if (!json.is_object() || !json.contains("tensors") || !json["tensors"].is_object() || !json.contains("graph")) return Corrupt("bad header");
  return Parsed{std::move(json), file.substr(0, file.size() - kTrailer - length)};
}

Result<Shape> ShapeOf(const Json& entry, size_t element_bytes) {
  auto sizes = entry.find("shape");
  if (sizes == entry.end() || !sizes->is_array() || sizes->size() > 16) return Corrupt("bad shape");
  Shape shape;
  auto bytes = static_cast<int64_t>(element_bytes);
  for (const Json& size : *sizes) {
    if (!size.is_number_unsigned() || size.get<uint64_t>() > static_cast<uint64_t>(kMaxTensorBytes)) return Corrupt("bad shape");
    shape.push_back(size.get<int64_t>());
    // Zero dimensions make an empty tensor, whatever the others are.
    if (shape.back() != 0 && (__builtin_mul_overflow(bytes, shape.back(), &bytes) || bytes > kMaxTensorBytes)) return Corrupt("too large");
  }
  return shape;
}

struct Bytes {
  std::string_view payload;
  std::shared_ptr<const void> keep_alive;
};

Result<Bytes> PayloadOf(const Json& entry, std::string_view file, BlobStore* shared, bool verify) {
  ASSIGN_OR_RETURN(int64_t length, IntField(entry, "length"));
  ASSIGN_OR_RETURN(Digest digest, DigestField(entry, "digest"));
  if (!entry.contains("offset")) {
    if (shared == nullptr) return Error{ErrorCode::kNotFound, "its payload is blob " + digest.hex() + " of a store"};
    ASSIGN_OR_RETURN(BlobView view, shared->Get(digest));  // verifies
    if (static_cast<int64_t>(view.bytes.size()) != length) return Corrupt("wrong length");
    return Bytes{view.text(), view.keep_alive};
  }
  ASSIGN_OR_RETURN(int64_t offset, IntField(entry, "offset"));
  auto total = static_cast<int64_t>(file.size());
  if (offset < static_cast<int64_t>(kStart) || length < 0 || offset > total || length > total - offset) return Corrupt("it lies outside the file");
  std::string_view payload = file.substr(static_cast<size_t>(offset), static_cast<size_t>(length));
  if (verify && DigestOf(payload) != digest) return Corrupt("it does not match its digest");
  return Bytes{payload, nullptr};
}

Result<DecodedTensor> ReadEntry(const Json& entry, std::string_view file, BlobStore* shared, bool verify) {
  ASSIGN_OR_RETURN(std::string name, StringField(entry, "dtype"));
  ASSIGN_OR_RETURN(DType dtype, model::DTypeFromString(name));
  ASSIGN_OR_RETURN(Shape shape, ShapeOf(entry, model::SizeOf(dtype)));
  ASSIGN_OR_RETURN(Bytes bytes, PayloadOf(entry, file, shared, verify));
  try {
    return DecodeTensorPayload(bytes.payload, dtype, shape);
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::kInternal, "no memory for a tensor of shape " + model::ToString(shape)};
  }
}

Result<Checkpoint> Decode(std::span<const std::byte> bytes, BlobStore* shared, bool verify) {
  ASSIGN_OR_RETURN(Parsed parsed, ParseFile(bytes));
  Checkpoint checkpoint;
  ASSIGN_OR_RETURN(checkpoint.graph, model::GraphFromJson(parsed.header["graph"]));
  checkpoint.notes = parsed.header.value("notes", Json::object());
  for (const auto& [name, entry] : parsed.header["tensors"].items()) {
    auto decoded = ReadEntry(entry, parsed.file, shared, verify);
    if (!decoded.ok()) return decoded.error().With("tensor '" + name + "'");
    checkpoint.tensors.emplace(name, std::move(decoded->tensor));
    if (decoded->mask) checkpoint.masks.emplace(name, *std::move(decoded->mask));
  }
  return checkpoint;
}

}  // namespace

Result<std::string> EncodeCheckpoint(const Checkpoint& checkpoint) {
  std::string out;
  StoredCheckpoint stored;
  TRY(WriteCheckpoint(checkpoint, nullptr, [&](std::string_view bytes) {
    out += bytes;
    return Ok();
  }, stored));
  return out;
}

Result<Checkpoint> DecodeCheckpoint(std::span<const std::byte> bytes, BlobStore* shared) { return Decode(bytes, shared, true); }

Result<DecodedTensor> DecodeTensor(std::span<const std::byte> bytes, const std::string& name, BlobStore* shared) {
  ASSIGN_OR_RETURN(Parsed parsed, ParseFile(bytes));
  auto entry = parsed.header["tensors"].find(name);
  if (entry == parsed.header["tensors"].end()) return Error{ErrorCode::kNotFound, "checkpoint: no tensor '" + name + "'"};
  auto decoded = ReadEntry(*entry, parsed.file, shared, true);
  if (!decoded.ok()) return decoded.error().With("tensor '" + name + "'");
  return decoded;
}

Result<StoredCheckpoint> PutCheckpoint(BlobStore& blobs, const Checkpoint& checkpoint) {
  ASSIGN_OR_RETURN(std::unique_ptr<BlobWriter> writer, blobs.NewWriter());
  StoredCheckpoint stored;
  TRY(WriteCheckpoint(checkpoint, &blobs, [&](std::string_view bytes) { return writer->Append(bytes); }, stored));
  ASSIGN_OR_RETURN(stored.file.digest, writer->Finish());
  stored.bytes = stored.file.bytes;
  // Two tensors with one payload share it.
  std::map<Digest, int64_t> distinct;
  for (const auto& [name, blob] : stored.shared) distinct[blob.digest] = blob.bytes;
  for (const auto& [digest, bytes] : distinct) stored.bytes += bytes;
  return stored;
}

Result<Checkpoint> GetCheckpoint(BlobStore& blobs, const Digest& digest) {
  ASSIGN_OR_RETURN(BlobView view, blobs.Get(digest));
  // The blob as a whole has been verified.
  return Decode(view.bytes, &blobs, false);
}

}  // namespace pare::storage
