#include "model/tensor.h"

#include <cstdlib>
#include <cstring>
#include <new>

namespace pare::model {
namespace {

struct DTypeInfo {
  DType dtype;
  std::string_view name;
  size_t bytes;
};
constexpr DTypeInfo kDTypes[] = {
    {DType::kF32, "F32", 4}, {DType::kF16, "F16", 2}, {DType::kBF16, "BF16", 2}, {DType::kF64, "F64", 8},
    {DType::kI64, "I64", 8}, {DType::kI32, "I32", 4}, {DType::kI16, "I16", 2},   {DType::kI8, "I8", 1},
    {DType::kU8, "U8", 1},   {DType::kBool, "BOOL", 1},
};
constexpr size_t kAlignment = 64;

}  // namespace

std::string_view ToString(DType dtype) { return kDTypes[static_cast<size_t>(dtype)].name; }
size_t SizeOf(DType dtype) { return kDTypes[static_cast<size_t>(dtype)].bytes; }

Result<DType> DTypeFromString(std::string_view name) {
  for (const auto& info : kDTypes) {
    if (info.name == name) return info.dtype;
  }
  return Error{ErrorCode::kInvalid, "unknown tensor type '" + std::string(name) +
                                        "'; known are F32, F16, BF16, F64, I64, I32, I16, I8, U8, BOOL"};
}

int64_t ElementCount(const Shape& shape) {
  int64_t count = 1;
  for (int64_t dimension : shape) count *= dimension;
  return count;
}

std::string ToString(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

Tensor::Tensor(DType dtype, Shape shape) : dtype_(dtype), shape_(std::move(shape)) {
  size_t size = static_cast<size_t>(ElementCount(shape_)) * SizeOf(dtype_);
  size_t rounded = (size + kAlignment - 1) / kAlignment * kAlignment;
  if (rounded == 0) rounded = kAlignment;
  void* memory = std::aligned_alloc(kAlignment, rounded);
  if (memory == nullptr) throw std::bad_alloc();
  std::memset(memory, 0, rounded);
  keep_alive_ = std::shared_ptr<const void>(memory, [](const void* p) { std::free(const_cast<void*>(p)); });
  bytes_ = {static_cast<const std::byte*>(memory), size};
}

Tensor::Tensor(DType dtype, Shape shape, std::span<const std::byte> bytes,
               std::shared_ptr<const void> keep_alive)
    : dtype_(dtype), shape_(std::move(shape)), bytes_(bytes), keep_alive_(std::move(keep_alive)) {
  CHECK(bytes_.size() == static_cast<size_t>(ElementCount(shape_)) * SizeOf(dtype_));
}

Digest Tensor::digest() const {
  Sha256 hash;
  hash.Update(ToString(dtype_));
  hash.Update(ToString(shape_));
  hash.Update(bytes_);
  return Digest(hash.Finish());
}

}  // namespace pare::model
