// PARE_CLONES before a function: it is compiled for the baseline, AVX2 and AVX-512, and the best is chosen at load time. For
// loops whose elements do not depend on each other, in files compiled with -O3 -ffp-contract=off: then every version gives
// the same bits. Nothing on other processors and under sanitizers (they start before the choice can be made).
#pragma once

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define PARE_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PARE_CLONES
#endif
