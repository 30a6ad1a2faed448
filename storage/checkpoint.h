// Checkpoint: a model as one file: graph, tensors, masks. The bytes are a pure function of the content (same content, same
// SHA-256), and decoding gives back exactly the tensors that were encoded, to the bit.
//
// File format, version 1 (little-endian; owner of this format: this header and the ones it names; docs/formats.md tells it
// in one piece, bench/codec/read_checkpoint.py is a reader of it)
//   0    8  magic "PARECKPT"
//   8    4  format version (1)
//   12   4  zero
//   16      payloads of tensors (storage/tensor_codec.h), one after the other
//   …    H  header: canonical JSON {"graph": …, "notes": …, "tensors": {name: {"digest", "dtype", "length", "offset",
//           "shape"}}}; offset of the payload in the file; without an offset it is the blob that digest names
//   −48  8  H
//   −40  32 SHA-256 of the header
//   −8   8  "TPKCERAP"
// `digest` is the SHA-256 of the payload. Payloads of large tensors are blobs of their own when a checkpoint is put into a
// store: a tensor that did not change from one checkpoint to the next is stored once.
// Rejected: the header first (a payload's length is known when it is written: all would have to be kept in memory);
// safetensors inside (no masks, no compression); references to an earlier checkpoint (the bytes would depend on it).
// Thread-compatible.
#pragma once

#include <map>
#include <string>

#include "common/result.h"
#include "model/graph.h"
#include "model/mask.h"
#include "model/tensor.h"
#include "storage/artifact.h"
#include "storage/blob_store.h"
#include "storage/tensor_codec.h"

namespace pare::storage {

struct Checkpoint {
  model::Graph graph;
  model::TensorMap tensors;  // by TensorSpec name: parameters and buffers
  model::MaskMap masks;      // usually zero where the mask removes; coded well only then
  Json notes = Json::object();  // small, deterministic: lineage for people; no times
};

// Tensors of at least so many bytes are blobs of their own in a store.
inline constexpr int64_t kSharedTensorBytes = 1 << 20;

// The whole file in memory, all payloads inside. kInvalid: a mask for a tensor that is not there or of another shape.
Result<std::string> EncodeCheckpoint(const Checkpoint& checkpoint);
// kCorrupt with what does not fit: magic, version (kVersion), digest, lengths, codings. Never reads outside `bytes`,
// whatever they hold. `shared`: where tensors without an offset are; kNotFound if they are not.
Result<Checkpoint> DecodeCheckpoint(std::span<const std::byte> bytes, BlobStore* shared = nullptr);

// One tensor without reading the others. kNotFound: no such tensor.
Result<DecodedTensor> DecodeTensor(std::span<const std::byte> bytes, const std::string& name, BlobStore* shared = nullptr);

struct StoredCheckpoint {
  BlobReference file;
  std::map<std::string, BlobReference> shared;  // by tensor: payloads that are blobs of their own
  int64_t bytes = 0;                            // of all these blobs
};
// Memory is bounded by a few blocks and the largest tensor below kSharedTensorBytes.
Result<StoredCheckpoint> PutCheckpoint(BlobStore& blobs, const Checkpoint& checkpoint);
Result<Checkpoint> GetCheckpoint(BlobStore& blobs, const Digest& digest);

}  // namespace pare::storage
