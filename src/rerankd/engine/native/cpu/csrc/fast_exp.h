/* Small pieces of arithmetic that kernels.c and wide.c share. */

#ifndef RERANKD_NUMBERS_H
#define RERANKD_NUMBERS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifndef INLINE
#define INLINE static inline __attribute__((always_inline))
#endif

INLINE float bits_to_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

INLINE uint32_t float_to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

/* 2^f, 0 <= f < 1, to 2e-7 of itself: a polynomial fitted at the Chebyshev points, highest power first. */
static const float POWER[] = {2.1877505e-4f, 1.2387821e-3f, 9.6845805e-3f, 5.5480426e-2f, 2.4023050e-1f, 6.9314693e-1f,
                              1.0f};
#define POWERS 7

/* e^x to 2e-7 of itself. */
INLINE float exponential(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float turns = x * 1.44269504f, whole = floorf(turns), f = turns - whole, p = POWER[0];
    for (int i = 1; i < POWERS; i++) p = p * f + POWER[i];
    return p * bits_to_float((uint32_t)((int32_t)whole + 127) << 23);
}

#endif
