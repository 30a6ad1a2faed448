// Checkpoint: a model as one file: graph, tensors, masks. The bytes are a pure function of the content (same content, same
// SHA-256), and decoding gives back exactly the tensors that were encoded, to the bit.
//
// File format, version 1 (little-endian; owner of this format: this header; docs/formats.md tells it at length)
//   0   8  magic "PARECKPT"
//   8   4  format version (1)
//   12  4  zero
//   16  8  length H of the header
//   24  32 SHA-256 of the header
//   56  H  header: canonical JSON {"graph": …, "tensors": {name: {dtype, shape, encoding, offset, length, digest}},
//          "notes": …}; offsets count from the end of the header
//   …      payloads
// Per tensor encoding: "raw" (bytes as they are), "planes" (byte planes, zstd), "masked" (entropy-coded mask + surviving
// values as byte planes, zstd), "constant" (one element). The encoder takes the smallest.
// Rejected: safetensors inside (no masks, no compression); a directory of files (rename is atomic for one file only).
#pragma once

#include <string>

#include "common/result.h"
#include "model/graph.h"
#include "model/mask.h"
#include "model/tensor.h"

namespace pare::storage {

struct Checkpoint {
  model::Graph graph;
  model::TensorMap tensors;  // by TensorSpec name: parameters and buffers
  model::MaskMap masks;      // masked positions of tensors are zero
  Json notes = Json::object();  // small, deterministic: lineage for people; no times
};

// REQUIRES: a masked position holds zero (CHECK).
Result<std::string> EncodeCheckpoint(const Checkpoint& checkpoint);
// kCorrupt with what does not fit: magic, version (kVersion), digest, lengths, unknown encodings. Never reads outside
// `bytes`, whatever they hold.
Result<Checkpoint> DecodeCheckpoint(std::span<const std::byte> bytes);

// One tensor without decoding the others. kNotFound: no such tensor.
Result<model::Tensor> DecodeTensor(std::span<const std::byte> bytes, const std::string& name);

}  // namespace pare::storage
