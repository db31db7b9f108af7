/* Products of rows with weights in vectors of AVX2: float32 rows with weights in float32 or bfloat16, for processors
   that have nothing wider; and unsigned eight-bit rows around 128 with signed eight-bit weights, for those without
   VNNI. The latter are widened to sixteen bits and exact, as such processors cut sums of products of bytes off.

   Both are the same work on steps of four bytes: a float32 number, or two of sixteen bits.

   Weights lie where they are, in the mapped file, and are turned and widened in passing: a thread takes a share of
   them, a slice of its steps at a time, a panel of sixteen outputs after the other. Some rows of that slice stay in
   the second-level cache while the panels go by, each of which stays in the first. The square of sums, GROUP rows by
   sixteen outputs, stays in registers. */

#if defined(__AVX2__) && defined(__FMA__)

#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

#include "fast_exp.h"

enum { FLOAT32, BFLOAT16, BYTES };
#define GROUP 6             /* rows of a square */
#define OUTPUTS 16          /* ... and outputs, which are those of a panel */
#define SLICE 256           /* steps: a panel of them takes 16 KB */
#define APART (SLICE + 16)  /* from row to row, so that rows do not share the same few places of a cache */
#define ROWS 96             /* that stay in the second-level cache, 102 KB; others may want the rest of it */
#define PANELS 256          /* turned at a time, 4 MB */
#define FEWEST 8            /* panels of a thread, below which threads share the rows out as well */

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

typedef struct {
    const char *rows; /* (count, width), FLOAT32 or BYTES */
    int64_t count, steps;
    const char *weights; /* (outputs, width) in `kind`; BYTES with rows that are */
    int kind;
    const float *scales; /* of each output, of BYTES */
    float *out;          /* (count, outputs) with a row stride */
    int64_t stride;
} Product;

/* What a step takes where it lies. */
INLINE int64_t bytes_of(int kind) { return kind == FLOAT32 ? 4 : 2; }

/* Eight steps of an output. */
INLINE __m256 eight_of(const char *weights, int64_t step, int kind) {
    const void *at = weights + step * bytes_of(kind);
    if (kind == FLOAT32) return _mm256_loadu_ps(at);
    __m128i narrow = _mm_loadu_si128(at);
    if (kind == BYTES) return _mm256_castsi256_ps(_mm256_cvtepi8_epi16(narrow));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(narrow), 16));
}

/* Eight outputs by eight steps, turned: to[step * OUTPUTS + output]. */
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

/* Some steps of a panel, from `from` on. */
INLINE void turn_panel(const char *weights, int64_t apart, int64_t from, int64_t steps, int kind, float *to) {
    for (int64_t step = 0; step < steps; step += 8)
        for (int64_t half = 0; half < OUTPUTS; half += 8) {
            __m256 lines[8];
            for (int64_t i = 0; i < 8; i++) lines[i] = eight_of(weights + (half + i) * apart, from + step, kind);
            turn_eight(lines, to + step * OUTPUTS + half);
        }
}

/* Some steps of a row: its numbers, or how far they are from 128. */
INLINE void take(const char *row, int64_t steps, int kind, float *to) {
    if (kind != BYTES) {
        memcpy(to, row, steps * 4);
        return;
    }
    for (int64_t step = 0; step < steps; step += 8) {
        __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(row + step * 2)));
        _mm256_storeu_si256((__m256i *)(to + step), _mm256_sub_epi16(wide, _mm256_set1_epi16(128)));
    }
}

/* GROUP rows times a panel; the first `count` of them are written, or added to what is there. Unrolled for where another
   processor shares the decoder: a tenth of the time. */
INLINE void square(const float *rows, const float *panel, int64_t steps, float *out, int64_t stride, int64_t count,
                   int fresh) {
    __m256 sums[GROUP][2];
    for (int g = 0; g < GROUP; g++) sums[g][0] = sums[g][1] = _mm256_setzero_ps();
#pragma GCC unroll 4
    for (int64_t step = 0; step < steps; step++, rows++, panel += OUTPUTS) {
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

/* sums[half] += by * line[half], two numbers of sixteen bits a step. In one piece, as compilers keep more apart than there
   are registers for. */
INLINE void add_pairs(__m256i sums[2], const float *by, __m256i low, __m256i high) {
    __m256i left = sums[0], right = sums[1], both, products;
    __asm__("vbroadcastss %4, %2\n\t"
            "vpmaddwd %5, %2, %3\n\tvpaddd %3, %0, %0\n\t"
            "vpmaddwd %6, %2, %2\n\tvpaddd %2, %1, %1"
            : "+x"(left), "+x"(right), "=&x"(both), "=&x"(products)
            : "m"(*by), "x"(low), "x"(high));
    sums[0] = left, sums[1] = right;
}

/* The same in whole numbers; those that are complete become float32, times their outputs' scales. */
INLINE void square_whole(const float *rows, const float *panel, int64_t steps, float *out, int64_t stride,
                         int64_t count, int fresh, const float *scales) {
    __m256i sums[GROUP][2];
    for (int g = 0; g < GROUP; g++) sums[g][0] = sums[g][1] = _mm256_setzero_si256();
    for (int64_t step = 0; step < steps; step++, rows++, panel += OUTPUTS) {
        __m256i low = *(const __m256i *)panel, high = *(const __m256i *)(panel + 8);
#pragma GCC unroll 6
        for (int g = 0; g < GROUP; g++) add_pairs(sums[g], rows + g * APART, low, high);
    }
    for (int64_t g = 0; g < count; g++, out += stride)
        for (int half = 0; half < 2; half++) {
            __m256i sum = sums[g][half], *to = (__m256i *)(out + half * 8);
            if (!fresh) sum = _mm256_add_epi32(sum, _mm256_loadu_si256(to));
            if (scales) sum = (__m256i)_mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_loadu_ps(scales + half * 8));
            _mm256_storeu_si256(to, sum);
        }
}

/* Some rows of a slice, which lie in `taken`, times a panel. Worth a twentieth: where sums go is fetched ahead. */
INLINE void pass(const Product *product, int64_t row, int64_t rows, int64_t output, int64_t steps, int fresh,
                 int is_last, const float *taken, const float *panel) {
    const float *scales = is_last ? product->scales + output : NULL;
    for (int64_t r = 0; r < rows; r += GROUP) {
        const float *these = taken + r * APART;
        float *out = product->out + (row + r) * product->stride + output;
        for (int64_t g = 0; g < GROUP; g++) __builtin_prefetch(out + g * product->stride, 1);
        if (product->kind == BYTES)
            square_whole(these, panel, steps, out, product->stride, least(rows - r, GROUP), fresh, scales);
        else
            square(these, panel, steps, out, product->stride, least(rows - r, GROUP), fresh);
    }
}

/* The rows [begin, end) times the panels [first, last). */
static void share(const Product *product, int64_t begin, int64_t end, int64_t first, int64_t last, float *taken,
                  float *turned) {
    int kind = product->kind;
    int64_t bytes = bytes_of(kind), row_bytes = kind == BYTES ? 2 : 4, all = product->steps;
    for (int64_t from = 0; from < all; from += SLICE) {
        int64_t steps = least(all - from, SLICE);
        for (int64_t panel = first; panel < last; panel++) {
            const char *weights = product->weights + panel * OUTPUTS * all * bytes;
            float *to = turned + (panel - first) * SLICE * OUTPUTS;
            if (kind == FLOAT32) turn_panel(weights, all * bytes, from, steps, FLOAT32, to);
            if (kind == BFLOAT16) turn_panel(weights, all * bytes, from, steps, BFLOAT16, to);
            if (kind == BYTES) turn_panel(weights, all * bytes, from, steps, BYTES, to);
        }
        for (int64_t row = begin; row < end; row += ROWS) {
            int64_t rows = least(end - row, ROWS);
            for (int64_t r = 0; r < rows; r++)
                take(product->rows + ((row + r) * all + from) * row_bytes, steps, kind, taken + r * APART);
            for (int64_t panel = first; panel < last; panel++)
                pass(product, row, rows, panel * OUTPUTS, steps, from == 0, from + steps == all, taken,
                     turned + (panel - first) * SLICE * OUTPUTS);
        }
    }
}

/* Whether there are these products, and whether no wider vectors are at hand. */
int rerankd_has_vectors(void) { return 1; }

#ifdef __AVX512F__
int rerankd_vectors_are_widest(void) { return 0; }
#else
int rerankd_vectors_are_widest(void) { return 1; }
#endif

/* rows (count, width), weights (outputs, width), out (count, outputs) with a row stride, times `scales` (outputs) of
   BYTES, else NULL; width and outputs are multiples of 16. */
void rerankd_vector_product(const void *rows, int64_t count, int64_t width, const void *weights, int kind,
                            int64_t outputs, const float *scales, float *out, int64_t stride, int threads) {
    Product product = {.rows = rows, .count = count, .steps = kind == BYTES ? width / 2 : width, .weights = weights,
                       .kind = kind, .scales = scales, .out = out, .stride = stride};
    int64_t panels = outputs / OUTPUTS, columns = most(1, least(threads, panels / FEWEST)), lines = threads / columns;
#pragma omp parallel num_threads(columns * lines)
    {
        float *taken = calloc((ROWS + GROUP) * APART, 4);
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

int rerankd_has_vectors(void) { return 0; }

int rerankd_vectors_are_widest(void) { return 0; }

void rerankd_vector_product(void) {}

#endif
