#include "common/check.h"

#include <cstdio>
#include <cstdlib>

namespace pare::internal {

void CheckFailed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "pare: internal error: CHECK(%s) failed at %s:%d\n", condition, file, line);
  std::fflush(stderr);
  std::abort();
}

}  // namespace pare::internal
