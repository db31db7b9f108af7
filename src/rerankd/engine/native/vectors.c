/* Products of float32 rows with weights in float32 or bfloat16, for processors that have AVX2 and nothing wider.

   Weights lie where they are, in the mapped file, and are turned and widened in passing: a thread takes a share of
   them, a slice of its inputs at a time, a panel of sixteen outputs after the other. Some rows of that slice stay in
   the second-level cache while the panels go by, each of which stays in the first. The square of sums, GROUP rows by
   sixteen outputs, stays in registers. */

#if defined(__AVX2__) && defined(__FMA__) && !defined(__AVX512F__)

#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

#include "numbers.h"

enum { FLOAT32, BFLOAT16 };
#define GROUP 6             /* rows of a square */
#define OUTPUTS 16          /* ... and outputs, which are those of a panel */
#define SLICE 256           /* inputs: a panel of them takes 16 KB */
#define APART (SLICE + 16)  /* from row to row, so that rows do not share the same few places of a cache */
#define ROWS 192            /* that stay in the second-level cache, 204 KB */
#define PANELS 256          /* turned at a time, 4 MB */
#define FEWEST 8            /* panels of a thread, below which threads share the rows out as well */

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

typedef struct {
    const float *rows; /* (count, width) */
    int64_t count, width;
    const char *weights; /* (outputs, width) in `kind` */
    int kind;
    float *out; /* (count, outputs) with a row stride */
    int64_t stride;
} Product;

/* Eight inputs of an output, as float32. */
INLINE __m256 eight_of(const char *weights, int64_t at, int kind) {
    if (kind == FLOAT32) return _mm256_loadu_ps((const float *)weights + at);
    __m128i narrow = _mm_loadu_si128((const __m128i *)(weights + at * 2));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(narrow), 16));
}

/* Eight outputs by eight inputs, turned: to[input * OUTPUTS + output]. */
INLINE void turn_eight(const __m256 lines[8], float *to) {
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
        _mm256_store_ps(to + i * OUTPUTS, _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20));
        _mm256_store_ps(to + (i + 4) * OUTPUTS, _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31));
    }
}

/* Some inputs of a panel, from `from` on. */
INLINE void turn_panel(const char *weights, int64_t bytes, int64_t from, int64_t inputs, int kind, float *to) {
    for (int64_t input = 0; input < inputs; input += 8)
        for (int64_t half = 0; half < OUTPUTS; half += 8) {
            __m256 lines[8];
            for (int64_t i = 0; i < 8; i++) lines[i] = eight_of(weights + (half + i) * bytes, from + input, kind);
            turn_eight(lines, to + input * OUTPUTS + half);
        }
}

/* GROUP rows times a panel; the first `count` of them are written, or added to what is there. */
INLINE void square(const float *rows, const float *panel, int64_t inputs, float *out, int64_t stride, int64_t count,
                   int fresh) {
    __m256 sums[GROUP][2];
    for (int g = 0; g < GROUP; g++) sums[g][0] = sums[g][1] = _mm256_setzero_ps();
    for (int64_t input = 0; input < inputs; input++, rows++, panel += OUTPUTS) {
        __m256 low = _mm256_load_ps(panel), high = _mm256_load_ps(panel + 8);
#pragma GCC unroll 6
        for (int g = 0; g < GROUP; g++) {
            __m256 by = _mm256_broadcast_ss(rows + g * APART);
            sums[g][0] = _mm256_fmadd_ps(by, low, sums[g][0]);
            sums[g][1] = _mm256_fmadd_ps(by, high, sums[g][1]);
        }
    }
    for (int64_t g = 0; g < count; g++, out += stride)
        for (int half = 0; half < 2; half++) {
            __m256 sum = sums[g][half];
            _mm256_storeu_ps(out + half * 8, fresh ? sum : _mm256_add_ps(sum, _mm256_loadu_ps(out + half * 8)));
        }
}

/* Some rows of a slice, which lie in `taken`, times a panel. Worth a twentieth: the rows after next are fetched. */
INLINE void pass(const Product *product, int64_t row, int64_t rows, int64_t output, int64_t inputs, int fresh,
                 const float *taken, const float *panel) {
    for (int64_t r = 0; r < rows; r += GROUP) {
        for (int64_t ahead = r + GROUP; ahead < r + 2 * GROUP; ahead++)
            for (int64_t i = 0; i < inputs; i += 16) __builtin_prefetch(taken + ahead * APART + i);
        square(taken + r * APART, panel, inputs, product->out + (row + r) * product->stride + output, product->stride,
               least(rows - r, GROUP), fresh);
    }
}

/* The rows [begin, end) times the panels [first, last). */
static void share(const Product *product, int64_t begin, int64_t end, int64_t first, int64_t last, float *taken,
                  float *turned) {
    int64_t width = product->width, bytes = width * (product->kind == FLOAT32 ? 4 : 2);
    for (int64_t from = 0; from < width; from += SLICE) {
        int64_t inputs = least(width - from, SLICE);
        for (int64_t panel = first; panel < last; panel++) {
            const char *weights = product->weights + panel * OUTPUTS * bytes;
            float *to = turned + (panel - first) * SLICE * OUTPUTS;
            if (product->kind == FLOAT32) turn_panel(weights, bytes, from, inputs, FLOAT32, to);
            if (product->kind == BFLOAT16) turn_panel(weights, bytes, from, inputs, BFLOAT16, to);
        }
        for (int64_t row = begin; row < end; row += ROWS) {
            int64_t rows = least(end - row, ROWS);
            for (int64_t r = 0; r < rows; r++)
                memcpy(taken + r * APART, product->rows + (row + r) * width + from, inputs * 4);
            for (int64_t panel = first; panel < last; panel++)
                pass(product, row, rows, panel * OUTPUTS, inputs, from == 0, taken,
                     turned + (panel - first) * SLICE * OUTPUTS);
        }
    }
}

int rerankd_vectors_ready(void) { return 0; }

/* rows (count, width), weights (outputs, width), out (count, outputs) with a row stride; width and outputs are
   multiples of 16. */
void rerankd_vector_product(const float *rows, int64_t count, int64_t width, const void *weights, int kind,
                            int64_t outputs, float *out, int64_t stride, int threads) {
    Product product = {.rows = rows, .count = count, .width = width, .weights = weights, .kind = kind, .out = out,
                       .stride = stride};
    int64_t panels = outputs / OUTPUTS, columns = most(1, least(threads, panels / FEWEST)), lines = threads / columns;
#pragma omp parallel num_threads(columns * lines)
    {
        float *taken = calloc((ROWS + 2 * GROUP) * APART, 4);
        float *turned = aligned_alloc(64, least(PANELS, panels / columns + 1) * SLICE * OUTPUTS * 4);
#pragma omp for schedule(static)
        for (int64_t part = 0; part < columns * lines; part++) {
            int64_t column = part % columns, line = part / columns, last = panels * (column + 1) / columns;
            for (int64_t first = panels * column / columns; first < last; first += PANELS)
                share(&product, count * line / lines, count * (line + 1) / lines, first, least(last, first + PANELS),
                      taken, turned);
        }
        free(taken);
        free(turned);
    }
}

#else

int rerankd_vectors_ready(void) { return -1; }

void rerankd_vector_product(void) {}

#endif
