// The payload of one tensor in a checkpoint: lossless to the bit for any type and content (NaN payloads, −0, denormals), close
// to the entropy of what it holds, written and read block by block.
//
//   u8 which values are stored: 0 all, there is no mask; 1 the kept ones of a mask, the others are zero; 2 all, and a mask;
//      3 those that are not zero bytes, there is no mask
//   u8 how values are coded: 0 planes, 1 constant, 2 codebook
//   constant: one element (of zero bytes when no value is stored). codebook: u8 entries − 1, the entries in rising order as
//   unsigned numbers (an element of size 1 is never coded so)
//   unless all: the prelude of the mask (storage/mask_coder.h)
//   blocks of elements in order (sizes: storage/mask_coder.h; none if all values are stored and constant), each u32 length and
//      unless all: the block of the mask
//      planes: one byte plane (storage/byte_coder.h) per byte of an element, the lowest first: byte k of the block's stored
//              values. Elements of floating types are rotated left by one bit before: the exponent is a byte of its own then
//      codebook: one byte plane of entries' numbers
//
// Encoding is a pure function of tensor and mask. Its memory, besides the mask and the coded classes of its rows, is a few
// blocks, whatever the shape: the tensor may be a mapped file larger than memory. Thread-compatible.
// Rejected: a plane of signs (incompressible wherever it is); a whole tensor as one stream (memory, no random access).
#pragma once

#include <functional>
#include <optional>
#include <string_view>

#include "model/mask.h"
#include "model/tensor.h"
#include "storage/byte_coder.h"

namespace pare::storage {

// Takes the payload in pieces.
using ByteSink = std::function<Status(std::string_view)>;

// `mask` may be nullptr. REQUIRES: mask->shape() == tensor.shape(). Fails only as the sink does.
Status EncodeTensorPayload(const model::Tensor& tensor, const model::Mask* mask, const ByteSink& sink);

struct DecodedTensor {
  model::Tensor tensor;
  std::optional<model::Mask> mask;
};
// kCorrupt for bytes that no encoder wrote for this type and shape, kVersion for codings of a newer one. Never reads outside.
Result<DecodedTensor> DecodeTensorPayload(std::string_view payload, model::DType dtype, const model::Shape& shape);

}  // namespace pare::storage
