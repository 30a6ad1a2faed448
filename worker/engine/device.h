// Devices by name. Inside worker/engine only (torch types). CUDA is not linked: libtorch_cuda.so is loaded on first use, so
// that the same executable runs where there is neither a GPU nor NVIDIA's libraries.
#pragma once

#include <ATen/ATen.h>

#include <string>

#include "common/result.h"

namespace pare::engine {

// "cpu", "cuda" (the first GPU) or "cuda:N". kInvalid: another name, libtorch_cuda.so cannot be loaded, no such GPU.
Result<at::Device> OpenDevice(const std::string& name);

}  // namespace pare::engine
