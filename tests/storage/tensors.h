// Tensors, masks and checkpoints for the tests of the codec.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "storage/checkpoint.h"
#include "tests/storage/files.h"

namespace pare::storage {

using model::DType;
using model::Mask;
using model::Shape;
using model::Tensor;

inline Tensor TensorOf(DType dtype, const Shape& shape, const std::string& bytes) {
  Tensor tensor(dtype, shape);
  CHECK(bytes.size() == tensor.bytes().size());
  if (!bytes.empty()) std::memcpy(const_cast<std::byte*>(tensor.bytes().data()), bytes.data(), bytes.size());
  return tensor;
}

// Every bit random: NaNs, infinities and denormals of all kinds among them.
inline Tensor RandomBits(DType dtype, const Shape& shape, uint64_t seed) {
  return TensorOf(dtype, shape, RandomBytes(static_cast<size_t>(model::ElementCount(shape)) * model::SizeOf(dtype), seed));
}

// Like trained weights: normal with a small deviation.
inline Tensor Weights(const Shape& shape, uint64_t seed) {
  RandomStream random(seed, RandomPurpose::kTest);
  Tensor tensor(DType::kF32, shape);
  for (float& v : tensor.mutable_values<float>()) v = static_cast<float>(0.05 * random.Normal());
  return tensor;
}

// Each weight is kept with the probability that `density` gives for (row, column).
template <typename Density>
Mask MaskWith(const Shape& shape, uint64_t seed, Density density) {
  RandomStream random(seed, RandomPurpose::kTest, 1);
  std::vector<uint8_t> keep(static_cast<size_t>(model::ElementCount(shape)));
  size_t columns = shape.size() < 2 ? keep.size() : keep.size() / static_cast<size_t>(shape[0]);
  for (size_t i = 0; i < keep.size(); ++i) keep[i] = random.Uniform() < density(i / columns, i % columns);
  return Mask(shape, keep);
}
inline Mask RandomMask(const Shape& shape, double density, uint64_t seed) {
  return MaskWith(shape, seed, [=](size_t, size_t) { return density; });
}

// Zero where the mask removes.
inline Tensor Masked(const Tensor& tensor, const Mask& mask) {
  std::string bytes(reinterpret_cast<const char*>(tensor.bytes().data()), tensor.bytes().size());
  size_t element = model::SizeOf(tensor.dtype());
  for (int64_t i = 0; i < mask.size(); ++i) {
    if (!mask.keeps(i)) std::memset(bytes.data() + static_cast<size_t>(i) * element, 0, element);
  }
  return TensorOf(tensor.dtype(), tensor.shape(), bytes);
}

inline bool SameBits(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() && a.bytes().size() == b.bytes().size() &&
         (a.bytes().empty() || std::memcmp(a.bytes().data(), b.bytes().data(), a.bytes().size()) == 0);
}
inline bool Same(const Checkpoint& a, const Checkpoint& b) {
  bool same = a.graph == b.graph && a.notes == b.notes && a.masks == b.masks && a.tensors.size() == b.tensors.size();
  for (const auto& [name, tensor] : a.tensors) same = same && b.tensors.count(name) != 0 && SameBits(tensor, b.tensors.at(name));
  return same;
}

inline std::span<const std::byte> BytesOf(std::string_view text) { return std::as_bytes(std::span(text)); }

inline std::string PayloadOf(const Tensor& tensor, const Mask* mask = nullptr) {
  std::string payload;
  Status status = EncodeTensorPayload(tensor, mask, [&](std::string_view bytes) {
    payload += bytes;
    return Ok();
  });
  CHECK(status.ok());
  return payload;
}

// Encodes and decodes; what is wrong, or "".
inline std::string RoundTrip(const Tensor& tensor, const Mask* mask = nullptr) {
  auto decoded = DecodeTensorPayload(PayloadOf(tensor, mask), tensor.dtype(), tensor.shape());
  if (!decoded.ok()) return decoded.error().message;
  if (!SameBits(decoded->tensor, tensor)) return "other bits";
  if (decoded->mask.has_value() != (mask != nullptr)) return "a mask more or less";
  if (mask != nullptr && *decoded->mask != *mask) return "another mask";
  return "";
}

inline constexpr DType kAllDTypes[] = {DType::kF32, DType::kF16, DType::kBF16, DType::kF64, DType::kI64, DType::kI32, DType::kI16, DType::kI8, DType::kU8, DType::kBool};

}  // namespace pare::storage
