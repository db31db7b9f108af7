/* What every kernel shares: its name, its number formats, its return code, its scratch memory.

   Each source file is compiled once for every instruction set that it supports (build_kernels.py), with KERNEL_ISA set
   to the name of that set: KERNEL(silu_and_mul) is rerankd_silu_and_mul_avx2 in one object file and
   rerankd_silu_and_mul_baseline in another. cpu/library.py binds the widest one that the processor runs. */

#ifndef RERANKD_KERNELS_H
#define RERANKD_KERNELS_H

#include <stdint.h>
#include <stdlib.h>

#define INLINE static inline __attribute__((always_inline))

#define KERNEL_SYMBOL(name, isa) rerankd_##name##_##isa
#define EXPAND_KERNEL_SYMBOL(name, isa) KERNEL_SYMBOL(name, isa)
#define EXPORT __attribute__((visibility("default")))
#define KERNEL(name) EXPORT int EXPAND_KERNEL_SYMBOL(name, KERNEL_ISA)

/* What a kernel returns. Nothing that it was to write may be read unless it is KERNEL_OK. */
enum {
    KERNEL_OK,
    KERNEL_OUT_OF_MEMORY, /* scratch memory could not be had */
    KERNEL_UNSUPPORTED,   /* no code for these formats or sizes in this build */
};

/* Formats of rows and weights; INT8 is uint8 activations with zero point 128, and int8 weights. */
enum { FLOAT32, BFLOAT16, INT8 };
#define ZERO_POINT 128

INLINE int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE int64_t ceil_div(int64_t all, int64_t size) { return (all + size - 1) / size; }

/* Scratch memory aligned to cache lines, not cleared; NULL where there is none. */
INLINE void *scratch_alloc(int64_t bytes) { return aligned_alloc(64, (size_t)(ceil_div(bytes, 64) * 64)); }

/* One thread of a parallel region reports what went wrong; the region goes on to its end, as barriers need all. */
INLINE void report(int *status, int code) { __atomic_store_n(status, code, __ATOMIC_RELAXED); }

#endif
