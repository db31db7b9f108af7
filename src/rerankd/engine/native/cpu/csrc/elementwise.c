/* Fused element-wise operations between the GEMMs of a layer, each one pass over the rows where torch needs four to ten:
   residual add + RMSNorm, RMSNorm + RoPE of query and key heads, SiLU-gated multiplication; each with the dynamic
   quantization of its output, and packing for the GEMM in AMX tiles where that comes next.

   Rows are split between threads. Everything is computed in float32, whatever rows are stored in: FLOAT32, BFLOAT16, or
   INT8: uint8 with zero point 128 and one scale a row (symmetric: the largest magnitude becomes 127). */

#include "fast_exp.h"
#include "gemm_pack.h"
#include "kernels.h"

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#define MAX_WIDTH 32768   /* values of a row; rows in progress are on the stack */
#define MAX_HEAD_DIM 1024
#define MIN_MAGNITUDE 1e-12f /* of a row that is quantized: a row of zeros has a scale too */

/* Round to nearest, ties to even, as torch does; NaN stays NaN. */
INLINE uint16_t float_to_bf16(float value) {
    uint32_t bits = float_to_bits(value);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return value == value ? (uint16_t)rounded : 0x7fc0;
}

INLINE float load_value(const void *from, int64_t at, int dtype) {
    if (dtype == FLOAT32) return ((const float *)from)[at];
    return bits_to_float((uint32_t)((const uint16_t *)from)[at] << 16);
}

INLINE void store_bf16(const float *values, uint16_t *out, int64_t width) {
    int64_t i = 0;
#ifdef __AVX512BF16__
    for (; i + 32 <= width; i += 32) {
        __m512 low = _mm512_loadu_ps(values + i), high = _mm512_loadu_ps(values + i + 16);
        _mm512_storeu_si512(out + i, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
#endif
    for (; i < width; i++) out[i] = float_to_bf16(values[i]);
}

INLINE void *value_at(const void *base, int64_t at, int dtype) {
    return (char *)base + at * (dtype == FLOAT32 ? 4 : dtype == BFLOAT16 ? 2 : 1);
}

/* One row to uint8; returns its scale, which is NaN where the row holds a NaN or an infinity: rounding would hide it. */
INLINE float quantize_row(const float *values, uint8_t *out, int64_t width) {
    float magnitude = MIN_MAGNITUDE, poison = 0.0f;
#pragma omp simd reduction(max : magnitude)
    for (int64_t i = 0; i < width; i++) magnitude = fabsf(values[i]) > magnitude ? fabsf(values[i]) : magnitude;
#pragma omp simd reduction(+ : poison)
    for (int64_t i = 0; i < width; i++) poison += values[i] * 0.0f;
    float inverse = 127.0f / magnitude;
    for (int64_t i = 0; i < width; i++) out[i] = (uint8_t)(int32_t)(values[i] * inverse + ((float)ZERO_POINT + 0.5f));
    return magnitude / 127.0f + poison;
}

/* Write one row of float32 values in a format; returns the scale of INT8, else 1. */
INLINE float store_row(const float *values, void *out, int64_t width, int dtype) {
    if (dtype == INT8) return quantize_row(values, out, width);
    if (dtype == FLOAT32) memcpy(out, values, (size_t)width * 4);
    if (dtype == BFLOAT16) store_bf16(values, out, width);
    return 1.0f;
}

/* The same, packed for the GEMM in AMX tiles (gemm_pack.h). */
INLINE float pack_row(const float *values, void *packed, int64_t row, int64_t width, int dtype) {
    float scale = 1.0f;
#ifdef __AVX512BF16__
    if (dtype == FLOAT32) {
        for (int64_t i = 0; i < width; i += 16)
            store_bf16_terms(_mm512_loadu_ps(values + i),
                             packed_tile_row(packed, row, i / 32, width / 32, FLOAT32_TERMS) + i % 32 * 2);
    } else {
        char bytes[MAX_WIDTH * 2];
        int64_t k_tiles = width * (dtype == INT8 ? 1 : 2) / TILE_ROW_BYTES;
        scale = store_row(values, bytes, width, dtype);
        for (int64_t i = 0; i < k_tiles; i++)
            memcpy(packed_tile_row(packed, row, i, k_tiles, 1), bytes + i * TILE_ROW_BYTES, TILE_ROW_BYTES);
    }
#else
    (void)values, (void)packed, (void)row, (void)width, (void)dtype;
#endif
    return scale;
}

#ifdef __AVX512BF16__
#define CAN_PACK 1
#else
#define CAN_PACK 0
#endif

/* residual += added * scale; normed = RMSNorm(residual) * weight. */
INLINE void add_rms_norm_row(float *residual, const void *added, int added_dtype, float scale, const float *weight,
                             float eps, float *normed, int64_t width) {
    float sum_of_squares = 0.0f;
    if (added)
        for (int64_t i = 0; i < width; i++) residual[i] += load_value(added, i, added_dtype) * scale;
#pragma omp simd reduction(+ : sum_of_squares)
    for (int64_t i = 0; i < width; i++) sum_of_squares += residual[i] * residual[i];
    float inverse = 1.0f / sqrtf(sum_of_squares / (float)width + eps);
    for (int64_t i = 0; i < width; i++) normed[i] = residual[i] * inverse * weight[i];
}

/* One head: RMSNorm where there is a weight, then RoPE in the half-split (NeoX) layout: (x[i], x[i + d / 2]) is rotated
   by the i-th angle of the position. */
INLINE void norm_rope_head(const void *head, void *out, int dtype, float scale, int64_t d, const float *weight,
                           float eps, const float *cosines, const float *sines) {
    float values[MAX_HEAD_DIM], sum_of_squares = 0.0f;
    for (int64_t i = 0; i < d; i++) values[i] = load_value(head, i, dtype) * scale;
    if (weight) {
#pragma omp simd reduction(+ : sum_of_squares)
        for (int64_t i = 0; i < d; i++) sum_of_squares += values[i] * values[i];
        float inverse = 1.0f / sqrtf(sum_of_squares / (float)d + eps);
        for (int64_t i = 0; i < d; i++) values[i] *= inverse * weight[i];
    }
    int64_t half = d / 2;
    for (int64_t i = 0; i < half; i++) {
        float left = values[i], right = values[i + half];
        values[i] = left * cosines[i] - right * sines[i];
        values[i + half] = right * cosines[i] + left * sines[i];
    }
    store_row(values, out, d, dtype);
}

/* out = silu(gate * scale) * (up * scale), silu(x) = x / (1 + e^-x); returns the scale of INT8. */
INLINE float silu_and_mul_row(const void *gate, const void *up, int dtype, float scale, void *out, int out_dtype,
                              int64_t width) {
    float product[MAX_WIDTH];
    for (int64_t i = 0; i < width; i++) {
        float g = load_value(gate, i, dtype) * scale, u = load_value(up, i, dtype) * scale;
        product[i] = g * u / (1.0f + fast_expf(-g));
    }
    return store_row(product, out, width, out_dtype);
}

/* A call for each format, with the format a constant inside, so that each becomes a loop of its own. */
#define FOR_IN(dtype, call)           \
    if ((dtype) == FLOAT32) {         \
        enum { IN = FLOAT32 };        \
        call;                         \
    } else {                          \
        enum { IN = BFLOAT16 };       \
        call;                         \
    }
#define FOR_OUT(dtype, call)          \
    if ((dtype) == FLOAT32) {         \
        enum { OUT = FLOAT32 };       \
        call;                         \
    } else if ((dtype) == BFLOAT16) { \
        enum { OUT = BFLOAT16 };      \
        call;                         \
    } else {                          \
        enum { OUT = INT8 };          \
        call;                         \
    }

/* residual (tokens, width), float32, changed in place; added (tokens, width) of `dtype` or NULL, with a scale a row or
   NULL; out (tokens, width) of `out_dtype`, or packed; out_scales (tokens) of INT8. */
KERNEL(add_rms_norm)(float *residual, const void *added, int dtype, const float *scales, const float *weight, float eps,
                     void *out, int out_dtype, int packed, float *out_scales, int64_t tokens, int64_t width,
                     int threads) {
    if (width > MAX_WIDTH || dtype == INT8 || (packed && !CAN_PACK)) return KERNEL_UNSUPPORTED;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < tokens; r++) {
        void *more = added ? value_at(added, r * width, dtype) : NULL, *to = value_at(out, r * width, out_dtype);
        float normed[MAX_WIDTH], scale = scales ? scales[r] : 1.0f, out_scale = 1.0f;
        FOR_IN(dtype, add_rms_norm_row(residual + r * width, more, IN, scale, weight, eps, normed, width))
        if (packed) {
            FOR_OUT(out_dtype, out_scale = pack_row(normed, out, r, width, OUT))
        } else {
            FOR_OUT(out_dtype, out_scale = store_row(normed, to, width, OUT))
        }
        if (out_dtype == INT8) out_scales[r] = out_scale;
    }
    return KERNEL_OK;
}

/* heads (tokens, n, d) with a stride from token to token, times a scale a token or NULL -> out (tokens, n, d) of the same
   format; weight (n, d) or NULL; cosines, sines (tokens, d / 2). */
KERNEL(qk_norm_rope)(const void *heads, int64_t stride, void *out, int dtype, const float *scales, int64_t tokens,
                     int64_t n, int64_t d, const float *weight, float eps, const float *cosines, const float *sines,
                     int threads) {
    if (d > MAX_HEAD_DIM || dtype == INT8) return KERNEL_UNSUPPORTED;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < tokens; r++)
        for (int64_t h = 0; h < n; h++) {
            const void *head = value_at(heads, r * stride + h * d, dtype);
            void *to = value_at(out, (r * n + h) * d, dtype);
            const float *by = weight ? weight + h * d : NULL;
            float scale = scales ? scales[r] : 1.0f;
            FOR_IN(dtype, norm_rope_head(head, to, IN, scale, d, by, eps, cosines + r * (d / 2), sines + r * (d / 2)))
        }
    return KERNEL_OK;
}

/* gate and up (tokens, width) with a stride from token to token, times a scale a token or NULL -> out (tokens, width) of
   `out_dtype`; out_scales (tokens) of INT8. */
KERNEL(silu_and_mul)(const void *gate, const void *up, int64_t stride, int dtype, const float *scales, void *out,
                     int out_dtype, float *out_scales, int64_t tokens, int64_t width, int threads) {
    if (width > MAX_WIDTH || dtype == INT8) return KERNEL_UNSUPPORTED;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < tokens; r++) {
        const void *gates = value_at(gate, r * stride, dtype), *ups = value_at(up, r * stride, dtype);
        void *to = value_at(out, r * width, out_dtype);
        float scale = scales ? scales[r] : 1.0f, out_scale = 1.0f;
        FOR_IN(dtype, FOR_OUT(out_dtype, out_scale = silu_and_mul_row(gates, ups, IN, scale, to, OUT, width)))
        if (out_dtype == INT8) out_scales[r] = out_scale;
    }
    return KERNEL_OK;
}

#if CAN_PACK

/* rows (tokens, width) of `dtype` -> packed as `out_dtype`, in whole blocks of 32 rows; scales (tokens) of INT8. */
KERNEL(pack_activations)(const void *rows, int dtype, void *packed, int out_dtype, float *scales, int64_t tokens,
                         int64_t width, int threads) {
    if (width > MAX_WIDTH || dtype == INT8) return KERNEL_UNSUPPORTED;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < tokens; r++) {
        const void *row = value_at(rows, r * width, dtype);
        float values[MAX_WIDTH], scale = 1.0f;
        FOR_IN(dtype, for (int64_t i = 0; i < width; i++) values[i] = load_value(row, i, IN))
        FOR_OUT(out_dtype, scale = pack_row(values, packed, r, width, OUT))
        if (out_dtype == INT8) scales[r] = scale;
    }
    return KERNEL_OK;
}

#endif
