#include "worker/engine/device.h"

#include <ATen/Context.h>
#include <dlfcn.h>

#include <algorithm>

namespace pare::engine {
namespace {

// The ordinal in "cuda" or "cuda:N", −1 for anything else.
int CudaOrdinal(const std::string& name) {
  if (name == "cuda") return 0;
  if (name.rfind("cuda:", 0) != 0 || name.size() < 6 || name.size() > 7) return -1;
  bool digits = std::all_of(name.begin() + 5, name.end(), [](char c) { return c >= '0' && c <= '9'; });
  return digits ? std::stoi(name.substr(5)) : -1;
}

}  // namespace

Result<at::Device> OpenDevice(const std::string& name) {
  if (name == "cpu") return at::Device(at::kCPU);
  int ordinal = CudaOrdinal(name);
  if (ordinal < 0) return Error{ErrorCode::kInvalid, "device '" + name + "' is not known; allowed are cpu, cuda and cuda:N"};
  // Never unloaded: its kernels register with libtorch for the life of the process.
  if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    return Error{ErrorCode::kInvalid, "device '" + name + "': libtorch_cuda.so could not be loaded: " + dlerror()};
  }
  auto count = static_cast<int>(at::getNumGPUs());
  if (ordinal >= count) {
    return Error{ErrorCode::kInvalid, "device '" + name + "': this machine has " + std::to_string(count) + " usable GPUs"};
  }
  at::globalContext().lazyInitDevice(at::kCUDA);
  return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(ordinal));
}

}  // namespace pare::engine
