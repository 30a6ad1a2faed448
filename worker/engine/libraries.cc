#include "worker/engine/libraries.h"

#include <torch/headeronly/version.h>

namespace pare::engine {

std::string Libraries() {
  std::string torch = "libtorch " + std::to_string(TORCH_VERSION_MAJOR) + "." + std::to_string(TORCH_VERSION_MINOR) + "." + std::to_string(TORCH_VERSION_PATCH);
#ifdef __clang__
  return torch + ", clang " __clang_version__;
#else
  return torch + ", gcc " __VERSION__;
#endif
}

}  // namespace pare::engine
