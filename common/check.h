// CHECK(condition): a broken invariant of our own code ends the process, in release builds too.
// Never for user input, files, sockets or anything another process sent: those are Result<T>.
#pragma once

namespace pare::internal {
[[noreturn]] void CheckFailed(const char* condition, const char* file, int line);
}

// libtorch defines a macro of the same name and meaning; ours names our own code.
#undef CHECK
#define CHECK(condition) \
  ((condition) ? (void)0 : ::pare::internal::CheckFailed(#condition, __FILE__, __LINE__))
