/* What lies between the matrix products of a layer, each in one pass over the rows; torch needs four to ten.

   Built on the user's machine at the first start (kernels.py) and used where that works; layers.py says the same in
   torch. Rows are split between threads. Numbers are computed in float32 whatever they are stored in:
   FLOAT32, BFLOAT16, or UINT8 (128 stands for zero, one scale a row). */

#include "fast_exp.h"
#include "gemm_pack.h"

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

enum { FLOAT32, BFLOAT16, UINT8 };
#define MOST_WIDTH 32768
#define MOST_HEAD 1024

/* Round to nearest, ties to even, as torch does; a NaN stays one. */
INLINE uint16_t narrowed(float value) {
    uint32_t bits = float_to_bits(value);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return value == value ? (uint16_t)rounded : 0x7fc0;
}

INLINE float loaded(const void *from, int64_t at, int kind) {
    if (kind == FLOAT32) return ((const float *)from)[at];
    return bits_to_float((uint32_t)((const uint16_t *)from)[at] << 16);
}

/* Float32 numbers as BFLOAT16, with the processor's own conversion where it has one. */
INLINE void narrow(const float *values, uint16_t *out, int64_t width) {
    int64_t i = 0;
#ifdef __AVX512BF16__
    for (; i + 32 <= width; i += 32) {
        __m512 low = _mm512_loadu_ps(values + i), high = _mm512_loadu_ps(values + i + 16);
        _mm512_storeu_si512(out + i, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
#endif
    for (; i < width; i++) out[i] = narrowed(values[i]);
}

INLINE void *row_of(const void *base, int64_t at, int kind) {
    return (char *)base + at * (kind == FLOAT32 ? 4 : kind == BFLOAT16 ? 2 : 1);
}

/* Write one row of float32 numbers in a format; returns the scale of UINT8, else 1. */
INLINE float write_row(const float *values, void *out, int64_t width, int kind) {
    if (kind == FLOAT32) memcpy(out, values, width * 4);
    if (kind == BFLOAT16) narrow(values, out, width);
    if (kind != UINT8) return 1.0f;
    float most = 1e-12f, spoiled = 0.0f;
#pragma omp simd reduction(max : most)
    for (int64_t i = 0; i < width; i++) most = fabsf(values[i]) > most ? fabsf(values[i]) : most;
#pragma omp simd reduction(+ : spoiled)
    for (int64_t i = 0; i < width; i++) spoiled += values[i] * 0.0f;
    float inverse = 127.0f / most;
    for (int64_t i = 0; i < width; i++) ((uint8_t *)out)[i] = (uint8_t)(int32_t)(values[i] * inverse + 128.5f);
    return most / 127.0f + spoiled; /* not a number where the row holds one */
}

/* row += added * scale; normed = root-mean-square norm of row * weight. */
INLINE void norm_row(float *row, const void *added, int added_kind, float scale, const float *weight, float eps,
                     float *normed, int64_t width) {
    float square = 0.0f;
    if (added)
        for (int64_t i = 0; i < width; i++) row[i] += loaded(added, i, added_kind) * scale;
#pragma omp simd reduction(+ : square)
    for (int64_t i = 0; i < width; i++) square += row[i] * row[i];
    float inverse = 1.0f / sqrtf(square / (float)width + eps);
    for (int64_t i = 0; i < width; i++) normed[i] = row[i] * inverse * weight[i];
}

/* One head: norm (where weight is given), then turned by its position; the halves are the two coordinates. */
INLINE void turn_head(const void *head, void *out, int kind, float scale, int64_t d, const float *weight, float eps,
                      const float *cosines, const float *sines) {
    float values[MOST_HEAD], square = 0.0f;
    for (int64_t i = 0; i < d; i++) values[i] = loaded(head, i, kind) * scale;
    if (weight) {
#pragma omp simd reduction(+ : square)
        for (int64_t i = 0; i < d; i++) square += values[i] * values[i];
        float inverse = 1.0f / sqrtf(square / (float)d + eps);
        for (int64_t i = 0; i < d; i++) values[i] *= inverse * weight[i];
    }
    int64_t half = d / 2;
    for (int64_t i = 0; i < half; i++) {
        float left = values[i], right = values[i + half];
        values[i] = left * cosines[i] - right * sines[i];
        values[i + half] = right * cosines[i] + left * sines[i];
    }
    write_row(values, out, d, kind);
}

/* out = silu(gate * scale) * up * scale; returns the scale of UINT8. */
INLINE float gate_row(const void *gate, const void *up, int kind, float scale, void *out, int out_kind,
                      int64_t width) {
    float product[MOST_WIDTH];
    for (int64_t i = 0; i < width; i++) {
        float g = loaded(gate, i, kind) * scale, u = loaded(up, i, kind) * scale;
        product[i] = g * u / (1.0f + exponential(-g));
    }
    return write_row(product, out, width, out_kind);
}

/* One row of float32 numbers packed for a product, in a format; returns the scale of UINT8, else 1. */
INLINE float pack_row(const float *values, void *packed, int64_t row, int64_t width, int kind) {
    float scale = 1.0f;
#ifdef __AVX512BF16__
    if (kind == FLOAT32) {
        for (int64_t i = 0; i < width; i += 16)
            put_terms(_mm512_loadu_ps(values + i), line_of(packed, row, i / 32, width / 32, TERMS) + i % 32 * 2);
    } else {
        char bytes[MOST_WIDTH * 2];
        int64_t steps = width * (kind == UINT8 ? 1 : 2) / 64;
        scale = write_row(values, bytes, width, kind);
        for (int64_t i = 0; i < steps; i++) memcpy(line_of(packed, row, i, steps, 1), bytes + i * 64, 64);
    }
#endif
    return scale;
}

/* A call for each format, with the format a constant inside, so that each becomes a loop of its own. */
#define FOR_IN(kind, call)           \
    if ((kind) == FLOAT32) {         \
        enum { IN = FLOAT32 };       \
        call;                        \
    } else {                         \
        enum { IN = BFLOAT16 };      \
        call;                        \
    }
#define FOR_OUT(kind, call)          \
    if ((kind) == FLOAT32) {         \
        enum { OUT = FLOAT32 };      \
        call;                        \
    } else if ((kind) == BFLOAT16) { \
        enum { OUT = BFLOAT16 };     \
        call;                        \
    } else {                         \
        enum { OUT = UINT8 };        \
        call;                        \
    }

/* rows (count, width), float32, changed; added like rows or NULL, with a scale a row or NULL; out like rows, or packed
   for a product. */
void rerankd_norm(float *rows, const void *added, int kind, const float *scales, const float *weight, float eps,
                  void *out, int out_kind, int packed, float *out_scales, int64_t count, int64_t width, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < count; r++) {
        void *more = added ? row_of(added, r * width, kind) : NULL, *to = row_of(out, r * width, out_kind);
        float normed[MOST_WIDTH], scale = scales ? scales[r] : 1.0f, written = 1.0f;
        FOR_IN(kind, norm_row(rows + r * width, more, IN, scale, weight, eps, normed, width))
        if (packed) {
            FOR_OUT(out_kind, written = pack_row(normed, out, r, width, OUT))
        } else {
            FOR_OUT(out_kind, written = write_row(normed, to, width, OUT))
        }
        if (out_kind == UINT8) out_scales[r] = written;
    }
}

/* heads (count, n, d) with a row stride -> out (count, n, d); weight (n, d) or NULL; cosines, sines (count, d / 2). */
void rerankd_turn(const void *heads, int64_t stride, void *out, int kind, const float *scales, int64_t count,
                  int64_t n, int64_t d, const float *weight, float eps, const float *cosines, const float *sines,
                  int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < count; r++)
        for (int64_t h = 0; h < n; h++) {
            const void *head = row_of(heads, r * stride + h * d, kind);
            void *to = row_of(out, (r * n + h) * d, kind);
            const float *by = weight ? weight + h * d : NULL;
            float scale = scales ? scales[r] : 1.0f;
            FOR_IN(kind, turn_head(head, to, IN, scale, d, by, eps, cosines + r * (d / 2), sines + r * (d / 2)))
        }
}

/* gate and up (count, width) with a row stride, times a scale a row or NULL -> out (count, width). */
void rerankd_gate(const void *gate, const void *up, int64_t stride, int kind, const float *scales, void *out,
                  int out_kind, float *out_scales, int64_t count, int64_t width, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < count; r++) {
        const void *gates = row_of(gate, r * stride, kind), *ups = row_of(up, r * stride, kind);
        void *to = row_of(out, r * width, out_kind);
        float scale = scales ? scales[r] : 1.0f, written = 1.0f;
        FOR_IN(kind, FOR_OUT(out_kind, written = gate_row(gates, ups, IN, scale, to, OUT, width)))
        if (out_kind == UINT8) out_scales[r] = written;
    }
}

/* rows (count, width) -> packed, in whole blocks of 32 rows, and a scale for each row of UINT8. Lines of rows that are
   not there hold anything: what comes of them is not written. */
void rerankd_pack(const void *rows, int kind, void *packed, int out_kind, float *scales, int64_t count, int64_t width,
                  int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < count; r++) {
        const void *row = row_of(rows, r * width, kind);
        float values[MOST_WIDTH], written = 1.0f;
        FOR_IN(kind, for (int64_t i = 0; i < width; i++) values[i] = loaded(row, i, IN))
        FOR_OUT(out_kind, written = pack_row(values, packed, r, width, OUT))
        if (out_kind == UINT8) scales[r] = written;
    }
}
