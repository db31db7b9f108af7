/* exp and bfloat16 conversion in plain C that compilers vectorize. */

#ifndef RERANKD_FAST_EXP_H
#define RERANKD_FAST_EXP_H

#include <math.h>
#include <string.h>

#include "kernels.h"

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

/* 2^f for 0 <= f < 1, maximum relative error 2e-7: a polynomial of degree 6, fitted at Chebyshev nodes with the constant
   fixed to 1; highest power first. */
static const float EXP2_POLYNOMIAL[] = {2.1877505e-4f, 1.2387821e-3f, 9.6845805e-3f, 5.5480426e-2f,
                                        2.4023050e-1f, 6.9314693e-1f, 1.0f};
#define EXP2_TERMS 7
#define LOG2_E 1.44269504f

/* expf, clamped to [-87, 88]; maximum relative error 5e-7 for |x| <= 8, 4e-6 in all, as x log2(e) is rounded. Range
   reduction to powers of two: e^x = 2^n 2^f with x log2(e) = n + f, n whole; 2^n is made of a float's exponent bits. */
INLINE float fast_expf(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float exponent = x * LOG2_E, n = floorf(exponent), f = exponent - n, p = EXP2_POLYNOMIAL[0];
    for (int i = 1; i < EXP2_TERMS; i++) p = p * f + EXP2_POLYNOMIAL[i];
    return p * bits_to_float((uint32_t)((int32_t)n + 127) << 23);
}

#endif
