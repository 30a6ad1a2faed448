// FlushDenormals: while it lives, this thread treats denormal floats as zero. Moments of weights without gradient decay into
// denormals, which cost a hundred cycles each. Always on where the engine computes, so it never changes bits between runs.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace pare::engine {

class FlushDenormals {
 public:
#if defined(__x86_64__)
  // Bits 15 and 6 of MXCSR: flush results to zero, read denormals as zero.
  FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(static_cast<unsigned>(before_) | 0x8040u); }
  ~FlushDenormals() { _mm_setcsr(static_cast<unsigned>(before_)); }
#elif defined(__aarch64__)
  // Bit 24 of FPCR.
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" : : "r"(before_ | (uint64_t{1} << 24)));
  }
  ~FlushDenormals() { asm volatile("msr fpcr, %0" : : "r"(before_)); }
#else
  FlushDenormals() = default;
  ~FlushDenormals() {}
#endif
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  uint64_t before_ = 0;
};

}  // namespace pare::engine
