// Tensor: a dense array in host memory, as data: what files, checkpoints and messages carry. No arithmetic here; the
// engine wraps the bytes as libtorch tensors without copying. Layout is contiguous, row-major, little-endian.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/digest.h"
#include "common/result.h"

namespace pare::model {

enum class DType : uint8_t { kF32, kF16, kBF16, kF64, kI64, kI32, kI16, kI8, kU8, kBool };

// Names as in safetensors: "F32", "BF16", "U8", …
std::string_view ToString(DType dtype);
Result<DType> DTypeFromString(std::string_view name);
size_t SizeOf(DType dtype);  // bytes per element

using Shape = std::vector<int64_t>;
// Product of the dimensions; 1 for a scalar.
int64_t ElementCount(const Shape& shape);
std::string ToString(const Shape& shape);  // "[300, 784]"

// Copying a Tensor shares its bytes. Bytes are never changed once a second owner may exist: fill first, then share.
class Tensor {
 public:
  Tensor() = default;
  // Zero-filled, 64-byte aligned.
  Tensor(DType dtype, Shape shape);
  // Views bytes owned by `keep_alive` (a mapped file, a buffer of another library).
  // REQUIRES: bytes.size() == ElementCount(shape) * SizeOf(dtype).
  Tensor(DType dtype, Shape shape, std::span<const std::byte> bytes, std::shared_ptr<const void> keep_alive);

  template <typename T>
  static Tensor Of(DType dtype, Shape shape, std::span<const T> values);

  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t size() const { return ElementCount(shape_); }
  std::span<const std::byte> bytes() const { return bytes_; }
  const std::shared_ptr<const void>& keep_alive() const { return keep_alive_; }
  // The elements. REQUIRES: sizeof(T) == SizeOf(dtype()).
  template <typename T>
  std::span<const T> values() const;
  // Only while filling a tensor that this code just created with Tensor(dtype, shape).
  template <typename T>
  std::span<T> mutable_values();

  // SHA-256 over dtype, shape and bytes: equal exactly when the tensors are equal to the bit.
  Digest digest() const;

 private:
  DType dtype_ = DType::kF32;
  Shape shape_;
  std::span<const std::byte> bytes_;
  std::shared_ptr<const void> keep_alive_;
};

// Named tensors in name order.
using TensorMap = std::map<std::string, Tensor>;

template <typename T>
std::span<const T> Tensor::values() const {
  CHECK(sizeof(T) == SizeOf(dtype_));
  return {reinterpret_cast<const T*>(bytes_.data()), bytes_.size() / sizeof(T)};
}

template <typename T>
std::span<T> Tensor::mutable_values() {
  auto view = values<T>();
  return {const_cast<T*>(view.data()), view.size()};
}

template <typename T>
Tensor Tensor::Of(DType dtype, Shape shape, std::span<const T> values) {
  Tensor tensor(dtype, std::move(shape));
  auto out = tensor.mutable_values<T>();
  CHECK(out.size() == values.size());
  for (size_t i = 0; i < values.size(); ++i) out[i] = values[i];
  return tensor;
}

}  // namespace pare::model
