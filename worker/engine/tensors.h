// libtorch's tensors and the project's: types, and views of each other's bytes. Inside worker/engine only (torch types).
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <optional>

#include "common/check.h"
#include "model/tensor.h"

namespace pare::engine {

// nullopt: a type that the engine does not hold.
inline std::optional<at::ScalarType> ScalarTypeOf(model::DType dtype) {
  switch (dtype) {
    case model::DType::kF32: return at::kFloat;
    case model::DType::kF64: return at::kDouble;
    case model::DType::kI32: return at::kInt;
    case model::DType::kI8: return at::kChar;
    case model::DType::kU8: return at::kByte;
    default: return std::nullopt;
  }
}

// A view, only to be read: from_blob has no const form. REQUIRES: a type that the engine holds; the tensor outlives the view.
inline at::Tensor Wrap(const model::Tensor& tensor) {
  return at::from_blob(const_cast<std::byte*>(tensor.bytes().data()), tensor.shape(), *ScalarTypeOf(tensor.dtype()));
}

// The other way: a copy only where the tensor is not contiguous on the host. REQUIRES: a type of ScalarTypeOf.
inline model::Tensor HostView(const at::Tensor& tensor) {
  auto host = std::make_shared<at::Tensor>(tensor.cpu().contiguous());
  for (model::DType dtype : {model::DType::kF32, model::DType::kF64, model::DType::kI32, model::DType::kI8, model::DType::kU8}) {
    if (ScalarTypeOf(dtype) != host->scalar_type()) continue;
    return model::Tensor(dtype, host->sizes().vec(), {static_cast<const std::byte*>(host->const_data_ptr()), host->nbytes()}, host);
  }
  CHECK(false);
}

}  // namespace pare::engine
