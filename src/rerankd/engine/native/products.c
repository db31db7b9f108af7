/* Products of float32 rows with bfloat16 weights, where they lie, in AMX tiles.

   A float32 number is the sum of three bfloat16 numbers, to its last bit; the weights of a released checkpoint are
   bfloat16 already. So three products in bfloat16, summed in float32, are the product in float32, and take less time
   where the processor has tiles. Rows are split and packed once; then each thread takes a share of the outputs. */

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)

#include <stdlib.h>
#include <string.h>

#include "tiles.h"

#define TERMS 3
#define ROWS 128   /* rows worked on together, packed: with DEPTH, what the second-level cache holds beside weights */
#define DEPTH 1024 /* numbers of a row worked on together */
#define PANEL 32   /* outputs of two tiles */

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Sixteen rows, 32 numbers from `at` on, as TERMS tiles of (number pair, row), `step` apart. */
INLINE void split_tile(const float *rows, int64_t stride, int64_t count, int64_t at, bfloat16 *to, int64_t step) {
    __m512i lines[TERMS][16];
    for (int r = 0; r < 16; r++) {
        __m512 low = _mm512_setzero_ps(), high = _mm512_setzero_ps();
        if (r < count) {
            low = _mm512_loadu_ps(rows + r * stride + at);
            high = _mm512_loadu_ps(rows + r * stride + at + 16);
        }
        for (int term = 0; term < TERMS; term++) {
            __m256i a = (__m256i)_mm512_cvtneps_pbh(low), b = (__m256i)_mm512_cvtneps_pbh(high);
            low = _mm512_sub_ps(low, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(a), 16)));
            high = _mm512_sub_ps(high, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16)));
            lines[term][r] = _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
        }
    }
    for (int term = 0; term < TERMS; term++) {
        turn16(lines[term]);
        for (int i = 0; i < 16; i++) _mm512_storeu_si512(to + term * step + i * 32, lines[term][i]);
    }
}

/* Packed rows: by 32 rows, then by 32 numbers, then by term, two tiles of sixteen rows each. */
INLINE int64_t packed_at(int64_t block, int64_t part, int64_t parts) { return (block * parts + part) * TERMS * 2 * TILE; }

/* A panel of weights as tiles of (output, number): the numbers from `from` on; missing outputs are zero. */
INLINE void copy_panel(const bfloat16 *weight, int64_t in, int64_t outs, int64_t from, int64_t parts, bfloat16 *to) {
    for (int64_t o = 0; o < PANEL; o++)
        for (int64_t part = 0; part < parts; part++) {
            bfloat16 *line = to + part * 2 * TILE + o * 32;
            if (o < outs)
                memcpy(line, weight + o * in + from + part * 32, 64);
            else
                memset(line, 0, 64);
        }
}

/* Sums of 32 outputs by 32 rows grow by one panel's products with one block of packed rows. */
INLINE void add_block(const bfloat16 *panel, const bfloat16 *rows, int64_t parts, const char *next) {
    for (int64_t part = 0; part < parts; part++) {
        const bfloat16 *weights = panel + part * 2 * TILE, *terms = rows + part * TERMS * 2 * TILE;
        _tile_loadd(4, weights, 64);
        _tile_loadd(5, weights + TILE, 64);
        /* The weights of the next panel are on their way while this one is multiplied. */
        for (int line = 0; line < 8; line++) _mm_prefetch(next + line * 64, _MM_HINT_T1);
        next += 8 * 64;
        for (int term = 0; term < TERMS; term++) {
            _tile_loadd(6, terms + term * 2 * TILE, 64);
            _tile_loadd(7, terms + term * 2 * TILE + TILE, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
}

/* sums (32 outputs, 32 rows) -> out (rows, outputs). */
INLINE void write_out(const float *sums, float *out, int64_t stride, int64_t rows, int64_t outs) {
    for (int left = 0; left < 32; left += 16)
        for (int top = 0; top < 32; top += 16) {
            __m512i lines[16];
            int64_t count = least(16, outs - top);
            if (count <= 0) continue;
            for (int i = 0; i < 16; i++) lines[i] = _mm512_loadu_si512(sums + (top + i) * 32 + left);
            turn16(lines);
            for (int64_t r = 0; r < least(16, rows - left); r++)
                _mm512_mask_storeu_epi32(out + (left + r) * stride + top, (1u << count) - 1, lines[r]);
        }
}

typedef struct {
    const bfloat16 *weight, *packed;
    float *out;
    int64_t count, in, outs, stride;
} Product;

/* ROWS rows from `begin` on, the outputs [first, last): all numbers of the rows, DEPTH at a time. */
static void multiply(const Product *p, int64_t begin, int64_t first, int64_t last, bfloat16 *panel, float *sums) {
    int64_t parts = p->in / 32, blocks = (least(ROWS, p->count - begin) + 31) / 32;
    for (int64_t depth = 0; depth < parts; depth += DEPTH / 32) {
        int64_t some = least(DEPTH / 32, parts - depth);
        for (int64_t o = first; o < last; o += PANEL) {
            int64_t outs = least(PANEL, last - o);
            copy_panel(p->weight + o * p->in, p->in, outs, depth * 32, some, panel);
            for (int64_t b = 0; b < blocks; b++) {
                float *square = sums + ((o - first) / PANEL * (ROWS / 32) + b) * 1024;
                int64_t ahead = least(p->outs - 1, o + PANEL + b * (PANEL / (ROWS / 32)));
                depth ? load_sums(square, 32) : clear_sums();
                add_block(panel, p->packed + packed_at(begin / 32 + b, depth, parts), some,
                          (const char *)(p->weight + ahead * p->in + depth * 32));
                store_sums(square, 32);
                if (depth + some == parts)
                    write_out(square, p->out + (begin + b * 32) * p->stride + o, p->stride,
                              p->count - begin - b * 32, outs);
            }
        }
    }
}

/* rows (count, in) float32; weight (outs, in); out (count, outs) with a row stride; packed: room for the rows in
   whole blocks of 32, TERMS times. `in` is a multiple of 32. */
void rerankd_product(const float *rows, int64_t count, int64_t in, const bfloat16 *weight, int64_t outs, float *out,
                     int64_t stride, bfloat16 *packed, int threads) {
    Product product = {weight, packed, out, count, in, outs, stride};
    int64_t panels = (outs + PANEL - 1) / PANEL, share = (panels + threads - 1) / threads * PANEL;
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (int64_t block = 0; block < (count + 31) / 32; block++)
            for (int64_t part = 0; part < in / 32; part++)
                for (int half = 0; half < 2; half++) {
                    int64_t row = block * 32 + half * 16;
                    split_tile(rows + row * in, in, count - row, part * 32,
                               packed + packed_at(block, part, in / 32) + half * TILE, 2 * TILE);
                }
        bfloat16 *panel = aligned_alloc(64, PANEL * DEPTH * 2);
        float *sums = aligned_alloc(64, share * ROWS * 4);
        set_up_tiles();
#pragma omp for schedule(static)
        for (int64_t first = 0; first < outs; first += share)
            for (int64_t begin = 0; begin < count; begin += ROWS)
                multiply(&product, begin, first, least(first + share, outs), panel, sums);
        _tile_release();
        free(panel);
        free(sums);
    }
}

#else

void rerankd_product(void) {}

#endif
