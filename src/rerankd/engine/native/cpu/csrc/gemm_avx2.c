/* GEMM with AVX2: float32 activations times float32 or bfloat16 weights, for processors that have nothing wider; and
   uint8 activations (zero point 128) times int8 weights, for those without VNNI. The latter are widened to sixteen bits
   and multiplied by VPMADDWD, which is exact: VPMADDUBSW, which libraries use there, saturates sums of two products.

   Both are the same loops over K steps of four bytes: one float32 value, or two of sixteen bits.

   C (rows, outputs) = A (rows, K) B^T (outputs, K), blocked as in Goto and van de Geijn:

       B  lies in the mapped file and is packed in passing: KC steps of a panel of NR = 16 outputs, K-major, so that a
          step is two vectors: 16 KB, in the first-level cache. NC_PANELS panels are packed at a time.
       A  MC rows of KC steps are copied to rows that are A_STRIDE apart: 102 KB, in the second-level cache.
       C  the micro-kernel keeps MR x NR = 6 x 16 sums in twelve registers; two hold the step of B, one broadcasts A.

   A thread takes a share of the panels, or of panels and rows. */

#include <immintrin.h>
#include <string.h>

#include "kernels.h"

#define MR 6
#define NR 16
#define KC 256
#define A_STRIDE (KC + 16)  /* so that rows do not share the same few sets of a cache */
#define MC 96               /* less than the cache holds: others may want the rest of it */
#define NC_PANELS 256       /* 4 MB */
#define MIN_PANELS 8        /* of a thread, below which threads divide the rows as well */

typedef struct {
    const char *rows; /* A, (tokens, width): FLOAT32, or INT8 where the weight is */
    int64_t tokens, steps;
    const char *weight; /* B, (outputs, width) of `dtype` */
    int dtype;
    const float *scales; /* of each output, of INT8 */
    float *out;          /* C, (tokens, outputs) with a row stride */
    int64_t stride;
} Gemm;

/* Bytes of a K step of the weight where it lies. */
INLINE int64_t step_bytes(int dtype) { return dtype == FLOAT32 ? 4 : 2; }

/* Eight K steps of an output, widened to four bytes each. */
INLINE __m256 load_steps(const char *weight, int64_t step, int dtype) {
    const void *at = weight + step * step_bytes(dtype);
    if (dtype == FLOAT32) return _mm256_loadu_ps(at);
    __m128i narrow = _mm_loadu_si128(at);
    if (dtype == INT8) return _mm256_castsi256_ps(_mm256_cvtepi8_epi16(narrow));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(narrow), 16));
}

/* Eight outputs by eight steps, transposed: to[step * NR + output]. */
INLINE void transpose_8x8(const __m256 lines[8], float *to) {
    __m256 pairs[8], fours[8];
    for (int i = 0; i < 8; i += 2) {
        pairs[i] = _mm256_unpacklo_ps(lines[i], lines[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_ps(lines[i], lines[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int half = 0; half < 2; half++) {
            __m256d one = _mm256_castps_pd(pairs[i + half]), other = _mm256_castps_pd(pairs[i + half + 2]);
            fours[i + 2 * half] = _mm256_castpd_ps(_mm256_unpacklo_pd(one, other));
            fours[i + 2 * half + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(one, other));
        }
    for (int i = 0; i < 4; i++) {
        _mm256_store_ps(to + i * NR, _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20));
        _mm256_store_ps(to + (i + 4) * NR, _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31));
    }
}

/* Pack some K steps of a panel of B, from `from` on; `ldb`: bytes from output to output. */
INLINE void pack_panel(const char *weight, int64_t ldb, int64_t from, int64_t steps, int dtype, float *to) {
    for (int64_t step = 0; step < steps; step += 8)
        for (int64_t half = 0; half < NR; half += 8) {
            __m256 lines[8];
            for (int64_t i = 0; i < 8; i++) lines[i] = load_steps(weight + (half + i) * ldb, from + step, dtype);
            transpose_8x8(lines, to + step * NR + half);
        }
}

/* Copy some K steps of a row of A: its values, or int16 differences from the zero point. */
INLINE void load_rows(const char *row, int64_t steps, int dtype, float *to) {
    if (dtype != INT8) {
        memcpy(to, row, (size_t)steps * 4);
        return;
    }
    for (int64_t step = 0; step < steps; step += 8) {
        __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(row + step * 2)));
        _mm256_storeu_si256((__m256i *)(to + step), _mm256_sub_epi16(wide, _mm256_set1_epi16(ZERO_POINT)));
    }
}

/* Micro-kernel in float32: MR rows times a panel; the first `rows` of them are written, or added to what is there.
   Unrolled for where another hyper-thread shares the decoder: a tenth of the time. */
INLINE void multiply_float(const float *a, const float *panel, int64_t steps, float *out, int64_t ldc, int64_t rows,
                           int fresh) {
    __m256 sums[MR][2];
    for (int row = 0; row < MR; row++) sums[row][0] = sums[row][1] = _mm256_setzero_ps();
#pragma GCC unroll 4
    for (int64_t step = 0; step < steps; step++, a++, panel += NR) {
        __m256 low = _mm256_load_ps(panel), high = _mm256_load_ps(panel + 8);
#pragma GCC unroll 6
        for (int row = 0; row < MR; row++) {
            __m256 by = _mm256_broadcast_ss(a + row * A_STRIDE);
            sums[row][0] = _mm256_fmadd_ps(by, low, sums[row][0]);
            sums[row][1] = _mm256_fmadd_ps(by, high, sums[row][1]);
        }
    }
    for (int64_t row = 0; row < rows; row++, out += ldc)
        for (int half = 0; half < 2; half++) {
            __m256 sum = sums[row][half];
            _mm256_storeu_ps(out + half * 8, fresh ? sum : _mm256_add_ps(sum, _mm256_loadu_ps(out + half * 8)));
        }
}

/* sums[half] += by * b[half], two int16 products a 32-bit lane (VPMADDWD). In one piece of assembly, as compilers keep
   more apart than there are registers for. */
INLINE void add_pair_products(__m256i sums[2], const float *by, __m256i low, __m256i high) {
    __m256i left = sums[0], right = sums[1], both, products;
    __asm__("vbroadcastss %4, %2\n\t"
            "vpmaddwd %5, %2, %3\n\tvpaddd %3, %0, %0\n\t"
            "vpmaddwd %6, %2, %2\n\tvpaddd %2, %1, %1"
            : "+x"(left), "+x"(right), "=&x"(both), "=&x"(products)
            : "m"(*by), "x"(low), "x"(high));
    sums[0] = left, sums[1] = right;
}

/* Micro-kernel in int16 with int32 sums; complete ones become float32, times the scales of their outputs. */
INLINE void multiply_int(const float *a, const float *panel, int64_t steps, float *out, int64_t ldc, int64_t rows,
                         int fresh, const float *scales) {
    __m256i sums[MR][2];
    for (int row = 0; row < MR; row++) sums[row][0] = sums[row][1] = _mm256_setzero_si256();
    for (int64_t step = 0; step < steps; step++, a++, panel += NR) {
        __m256i low = *(const __m256i *)panel, high = *(const __m256i *)(panel + 8);
#pragma GCC unroll 6
        for (int row = 0; row < MR; row++) add_pair_products(sums[row], a + row * A_STRIDE, low, high);
    }
    for (int64_t row = 0; row < rows; row++, out += ldc)
        for (int half = 0; half < 2; half++) {
            __m256i sum = sums[row][half], *to = (__m256i *)(out + half * 8);
            if (!fresh) sum = _mm256_add_epi32(sum, _mm256_loadu_si256(to));
            if (scales) sum = (__m256i)_mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_loadu_ps(scales + half * 8));
            _mm256_storeu_si256(to, sum);
        }
}

/* Packed rows of A times one packed panel of B. Prefetching where the sums go is worth a twentieth. */
INLINE void multiply_panel(const Gemm *gemm, int64_t row, int64_t rows, int64_t output, int64_t steps, int fresh,
                           int is_last, const float *packed_a, const float *panel) {
    const float *scales = is_last && gemm->scales ? gemm->scales + output : NULL;
    for (int64_t r = 0; r < rows; r += MR) {
        const float *a = packed_a + r * A_STRIDE;
        float *out = gemm->out + (row + r) * gemm->stride + output;
        for (int64_t i = 0; i < MR; i++) __builtin_prefetch(out + i * gemm->stride, 1);
        if (gemm->dtype == INT8)
            multiply_int(a, panel, steps, out, gemm->stride, min64(rows - r, MR), fresh, scales);
        else
            multiply_float(a, panel, steps, out, gemm->stride, min64(rows - r, MR), fresh);
    }
}

/* The rows [begin, end) times the panels [first, last). */
static void multiply(const Gemm *gemm, int64_t begin, int64_t end, int64_t first, int64_t last, float *packed_a,
                     float *packed_b) {
    int dtype = gemm->dtype;
    int64_t bytes = step_bytes(dtype), row_bytes = dtype == INT8 ? 2 : 4, all = gemm->steps;
    for (int64_t from = 0; from < all; from += KC) {
        int64_t steps = min64(all - from, KC);
        for (int64_t panel = first; panel < last; panel++) {
            const char *weight = gemm->weight + panel * NR * all * bytes;
            float *to = packed_b + (panel - first) * KC * NR;
            if (dtype == FLOAT32) pack_panel(weight, all * bytes, from, steps, FLOAT32, to);
            if (dtype == BFLOAT16) pack_panel(weight, all * bytes, from, steps, BFLOAT16, to);
            if (dtype == INT8) pack_panel(weight, all * bytes, from, steps, INT8, to);
        }
        for (int64_t row = begin; row < end; row += MC) {
            int64_t rows = min64(end - row, MC);
            for (int64_t r = 0; r < rows; r++)
                load_rows(gemm->rows + ((row + r) * all + from) * row_bytes, steps, dtype, packed_a + r * A_STRIDE);
            for (int64_t panel = first; panel < last; panel++)
                multiply_panel(gemm, row, rows, panel * NR, steps, from == 0, from + steps == all, packed_a,
                               packed_b + (panel - first) * KC * NR);
        }
    }
}

/* rows (tokens, width), weight (outputs, width), out (tokens, outputs) with a row stride, times `scales` (outputs) of
   INT8, else NULL; width and outputs are multiples of 16. */
KERNEL(gemm)(const void *rows, int64_t tokens, int64_t width, const void *weight, int dtype, int64_t outputs,
             const float *scales, float *out, int64_t stride, int threads) {
    if (width % 16 || outputs % NR || (dtype == INT8) != (scales != NULL)) return KERNEL_UNSUPPORTED;
    Gemm gemm = {.rows = rows, .tokens = tokens, .steps = dtype == INT8 ? width / 2 : width, .weight = weight,
                 .dtype = dtype, .scales = scales, .out = out, .stride = stride};
    int64_t panels = outputs / NR, columns = max64(1, min64(threads, panels / MIN_PANELS)), lines = threads / columns;
    int status = KERNEL_OK;
#pragma omp parallel num_threads((int)(columns * lines))
    {
        float *packed_a = calloc((MC + MR) * A_STRIDE, 4); /* rows of MR that do not exist are zero */
        float *packed_b = scratch_alloc(min64(NC_PANELS, panels / columns + 1) * KC * NR * 4);
        if (!packed_a || !packed_b) report(&status, KERNEL_OUT_OF_MEMORY);
#pragma omp for schedule(static)
        for (int64_t part = 0; part < columns * lines; part++) {
            int64_t column = part % columns, line = part / columns, last = panels * (column + 1) / columns;
            for (int64_t first = panels * column / columns; packed_a && packed_b && first < last; first += NC_PANELS)
                multiply(&gemm, tokens * line / lines, tokens * (line + 1) / lines, first,
                         min64(last, first + NC_PANELS), packed_a, packed_b);
        }
        free(packed_a);
        free(packed_b);
    }
    return status;
}
