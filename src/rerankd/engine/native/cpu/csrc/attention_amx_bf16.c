/* Varlen attention in bfloat16 with AMX tiles: no padding between pairs, no gathering, one call a layer.

   Keys and values are packed once a call into the layouts that B tiles want, a shared prefix included, in blocks of 32
   keys. Then each item of 32 query rows computes all its scores S = Q K^T, their softmax in float32 (two passes: the
   maximum, then the exponentials), and the weighted values P V. The tile roles are those of amx_tiles.h:

       S = Q K^T   A: queries, 32 rows x 32 of d       B: 32 of d x 32 keys, VNNI pairs along d
       O = P V     A: weights, 32 rows x 32 keys       B: 32 keys x 32 of d, VNNI pairs along the keys */

#include <math.h>
#include <string.h>

#include "amx_tiles.h"
#include "attention.h"

#define MAX_HEAD_DIM 256

/* A block of 32 keys: for each 32 of d two tiles, 16 keys each; a tile row holds one pair along d of every key. */
INLINE void pack_keys(const bfloat16 *keys, int64_t stride, const int64_t *rows, int64_t d, bfloat16 *to) {
    for (int64_t part = 0; part < d / 32; part++)
        for (int64_t half = 0; half < 2; half++) {
            __m512i lines[16];
            for (int64_t i = 0; i < 16; i++) {
                int64_t row = rows[half * 16 + i];
                lines[i] = row >= 0 ? _mm512_loadu_si512(keys + row * stride + part * 32) : _mm512_setzero_si512();
            }
            transpose_16x16(lines);
            for (int i = 0; i < 16; i++) _mm512_storeu_si512(to + (part * 2 + half) * TILE_BF16 + i * 32, lines[i]);
        }
}

/* A block of 32 values: for each 16 of d one tile; a tile row holds one pair of keys, interleaved along d. */
INLINE void pack_values(const bfloat16 *values, int64_t stride, const int64_t *rows, int64_t d, bfloat16 *to) {
    static const bfloat16 zeros[MAX_HEAD_DIM];
    __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36,
                                   4, 35, 3, 34, 2, 33, 1, 32, 0);
    __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    for (int64_t pair = 0; pair < KEY_BLOCK / 2; pair++) {
        const bfloat16 *even = rows[2 * pair] >= 0 ? values + rows[2 * pair] * stride : zeros;
        const bfloat16 *odd = rows[2 * pair + 1] >= 0 ? values + rows[2 * pair + 1] * stride : zeros;
        for (int64_t i = 0; i < d; i += 32) {
            __m512i left = _mm512_loadu_si512(even + i), right = _mm512_loadu_si512(odd + i);
            bfloat16 *line = to + (i / 16) * TILE_BF16 + pair * 32;
            _mm512_storeu_si512(line, _mm512_permutex2var_epi16(left, low, right));
            _mm512_storeu_si512(line + TILE_BF16, _mm512_permutex2var_epi16(left, high, right));
        }
    }
}

/* The accumulators += A (rows, 32 a step) times B (32 a step, 32), over some steps of K; the lower A tile is left out where
   `rows` fit in the upper one. */
INLINE void multiply_tiles(const bfloat16 *a, int64_t lda, int64_t a_step, int64_t rows, const bfloat16 *b,
                           int64_t b_step, int64_t steps) {
    for (int64_t step = 0; step < steps; step++, a += a_step, b += b_step) {
        _tile_loadd(A_TOP, a, lda * 2);
        _tile_loadd(B_LEFT, b, 64);
        _tile_loadd(B_RIGHT, b + TILE_BF16, 64);
        _tile_dpbf16ps(C_TOP_LEFT, A_TOP, B_LEFT);
        _tile_dpbf16ps(C_TOP_RIGHT, A_TOP, B_RIGHT);
        if (rows <= 16) continue;
        _tile_loadd(A_BOTTOM, a + 16 * lda, lda * 2);
        _tile_dpbf16ps(C_BOTTOM_LEFT, A_BOTTOM, B_LEFT);
        _tile_dpbf16ps(C_BOTTOM_RIGHT, A_BOTTOM, B_RIGHT);
    }
}

/* 2^x for x <= 0, sixteen values, maximum relative error 4e-6: finer than bfloat16 keeps, in fewer steps than float32
   needs. A polynomial of degree 4 for the fraction, fitted at Chebyshev nodes; VSCALEFPS puts the exponent back. The
   order of max keeps a NaN. */
INLINE __m512 exp2_16(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-126.0f), x);
    __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 f = _mm512_sub_ps(x, n), p = _mm512_set1_ps(1.3422406e-02f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.2249155e-02f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4127762e-01f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9304493e-01f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

/* A mask of the first `count` of sixteen lanes. */
INLINE __mmask16 first_lanes(int64_t count) {
    return (__mmask16)(count >= 16 ? 0xffff : count > 0 ? (1u << count) - 1 : 0);
}

INLINE float row_max(const float *scores, int64_t count, float max) {
    __m512 found = _mm512_set1_ps(max);
    for (int64_t i = 0; i < count; i += 16)
        found = _mm512_mask_max_ps(found, first_lanes(count - i), found, _mm512_loadu_ps(scores + i));
    return _mm512_reduce_max_ps(found);
}

/* weights = 2^(scale * (scores - max)) for the first `count`, 0 up to `padded`; their sum is added to `sum`. */
INLINE __m512 exponentiate(const float *scores, int64_t count, int64_t padded, float max, float scale,
                           bfloat16 *weights, __m512 sum) {
    __m512 by = _mm512_set1_ps(scale), shift = _mm512_set1_ps(-max * scale);
    for (int64_t i = 0; i < padded; i += 16) {
        __m512 x = _mm512_fmadd_ps(_mm512_loadu_ps(scores + i), by, shift);
        __m512 weight = _mm512_maskz_mov_ps(first_lanes(count - i), exp2_16(x));
        sum = _mm512_add_ps(sum, weight);
        _mm256_storeu_si256((__m256i *)(weights + i), (__m256i)_mm512_cvtneps_pbh(weight));
    }
    return sum;
}

/* What all threads read. */
typedef struct {
    const bfloat16 *queries;
    bfloat16 *out;
    const bfloat16 *keys, *values; /* packed: block, key head, then KEY_BLOCK * d values */
    int64_t heads, kv_heads, d;
    float scale; /* of scores: log2(e) / sqrt(d), as exponentials are powers of two */
} Attention;

/* What one thread works in: QUERY_BLOCK rows, as wide as the longest sequence. */
typedef struct {
    bfloat16 *queries, *weights;
    float *scores, *result;
} Scratch;

/* Keys that an item is multiplied with: the blocks of the prefix, then those of the tail. */
typedef struct {
    int64_t first[2], blocks[2], counts[2];
} KeySpans;

/* S = Q K^T, (rows, width). */
static void compute_scores(const Attention *attention, const KeySpans *spans, int64_t kv_head, int64_t rows,
                           const Scratch *scratch, int64_t width) {
    int64_t d = attention->d, size = KEY_BLOCK * d, at = 0;
    for (int part = 0; part < 2; part++)
        for (int64_t b = 0; b < spans->blocks[part]; b++, at += KEY_BLOCK) {
            const bfloat16 *keys = attention->keys + ((spans->first[part] + b) * attention->kv_heads + kv_head) * size;
            zero_accumulators();
            multiply_tiles(scratch->queries, d, 32, rows, keys, 2 * TILE_BF16, d / 32);
            store_accumulators(scratch->scores + at, width);
        }
}

/* Softmax of one row, not yet divided: weights of the prefix's keys and of the first `visible` of the tail's; returns
   their sum. */
static float softmax_row(const Attention *attention, const KeySpans *spans, int64_t visible, const float *scores,
                         bfloat16 *weights) {
    int64_t tail = spans->blocks[0] * KEY_BLOCK;
    float max = row_max(scores + tail, visible, row_max(scores, spans->counts[0], -INFINITY));
    __m512 sum = exponentiate(scores, spans->counts[0], tail, max, attention->scale, weights, _mm512_setzero_ps());
    sum = exponentiate(scores + tail, visible, spans->blocks[1] * KEY_BLOCK, max, attention->scale, weights + tail, sum);
    return _mm512_reduce_add_ps(sum);
}

/* O = P V, (rows, d). */
static void weigh_values(const Attention *attention, const KeySpans *spans, int64_t kv_head, int64_t rows,
                         const Scratch *scratch, int64_t width) {
    int64_t d = attention->d, size = KEY_BLOCK * d, step = attention->kv_heads * size;
    for (int64_t i = 0; i < d; i += 32) {
        const bfloat16 *weights = scratch->weights;
        zero_accumulators();
        for (int part = 0; part < 2; part++) {
            const bfloat16 *values = attention->values + (spans->first[part] * attention->kv_heads + kv_head) * size;
            multiply_tiles(weights, width, KEY_BLOCK, rows, values + (i / 16) * TILE_BF16, step, spans->blocks[part]);
            weights += spans->blocks[part] * KEY_BLOCK;
        }
        store_accumulators(scratch->result + i, d);
    }
}

/* Up to QUERY_BLOCK query rows of one key head, from `begin` on. */
static void attend_item(const Attention *attention, const Sequence *sequence, int64_t kv_head, int64_t begin,
                        const Scratch *scratch) {
    int64_t d = attention->d, heads = attention->heads, group = heads / attention->kv_heads;
    int64_t rows = num_query_rows(sequence, group, begin);
    int64_t visible = visible_keys(sequence, group, begin + rows - 1);
    KeySpans spans = {.first = {sequence->prefix_block, sequence->tail_block},
                      .blocks = {num_blocks(sequence->prefix_count), num_blocks(visible)},
                      .counts = {sequence->prefix_count, visible}};
    int64_t width = (spans.blocks[0] + spans.blocks[1]) * KEY_BLOCK;
    float sums[QUERY_BLOCK];
    for (int64_t r = 0; r < rows; r++)
        memcpy(scratch->queries + r * d,
               attention->queries + query_offset(sequence, heads, group, d, kv_head, begin + r), (size_t)d * 2);
    compute_scores(attention, &spans, kv_head, rows, scratch, width);
    /* Lines beyond the rows hold anything: what comes of them is not written. */
    for (int64_t r = 0; r < rows; r++)
        sums[r] = softmax_row(attention, &spans, visible_keys(sequence, group, begin + r), scratch->scores + r * width,
                              scratch->weights + r * width);
    weigh_values(attention, &spans, kv_head, rows, scratch, width);
    for (int64_t r = 0; r < rows; r++) {
        bfloat16 *out = attention->out + query_offset(sequence, heads, group, d, kv_head, begin + r);
        __m512 inverse = _mm512_set1_ps(1.0f / sums[r]);
        for (int64_t i = 0; i < d; i += 32) {
            const float *result = scratch->result + r * d + i;
            __m512 left = _mm512_mul_ps(_mm512_loadu_ps(result), inverse);
            __m512 right = _mm512_mul_ps(_mm512_loadu_ps(result + 16), inverse);
            _mm512_storeu_si512(out + i, (__m512i)_mm512_cvtne2ps_pbh(right, left));
        }
    }
}

/* All of a thread's scratch memory in one piece, which begins at `scores`; NULL where there is none. */
static Scratch new_scratch(int64_t width, int64_t d) {
    char *place = scratch_alloc(QUERY_BLOCK * ((d * 2 + width * 2) + (width * 4 + d * 4)));
    if (!place) return (Scratch){0};
    return (Scratch){.scores = (float *)place,
                     .result = (float *)(place + QUERY_BLOCK * width * 4),
                     .weights = (bfloat16 *)(place + QUERY_BLOCK * (width * 4 + d * 4)),
                     .queries = (bfloat16 *)(place + QUERY_BLOCK * (width * 6 + d * 4))};
}

/* queries, out (tokens, heads, d); keys, values (rows, kv_heads, d); packed_keys, packed_values: room for `block_count`
   blocks; width: keys of the longest sequence in whole blocks. d is a multiple of 32, at most 256. */
KERNEL(attention_bf16)(const bfloat16 *queries, const bfloat16 *keys, const bfloat16 *values, bfloat16 *out,
                       int64_t heads, int64_t kv_heads, int64_t d, const Sequence *sequences, const Block *blocks,
                       int64_t block_count, const WorkItem *items, int64_t item_count, int64_t width,
                       bfloat16 *packed_keys, bfloat16 *packed_values, int threads) {
    if (d % 32 || d > MAX_HEAD_DIM) return KERNEL_UNSUPPORTED;
    Attention attention = {.queries = queries, .out = out, .keys = packed_keys, .values = packed_values,
                           .heads = heads, .kv_heads = kv_heads, .d = d, .scale = 1.44269504f / sqrtf((float)d)};
    int status = KERNEL_OK;
#pragma omp parallel num_threads(threads)
    {
        int64_t stride = kv_heads * d, size = KEY_BLOCK * d;
#pragma omp for schedule(static)
        for (int64_t b = 0; b < block_count; b++)
            for (int64_t head = 0; head < kv_heads; head++) {
                int64_t to = (b * kv_heads + head) * size;
                pack_keys(keys + head * d, stride, blocks[b], d, packed_keys + to);
                pack_values(values + head * d, stride, blocks[b], d, packed_values + to);
            }
        Scratch scratch = new_scratch(width, d);
        if (!scratch.scores) report(&status, KERNEL_OUT_OF_MEMORY);
        configure_tiles();
#pragma omp for collapse(2) schedule(dynamic, 4)
        for (int64_t i = 0; i < item_count; i++)
            for (int64_t head = 0; head < kv_heads; head++)
                if (scratch.scores)
                    attend_item(&attention, sequences + items[i].sequence, head, items[i].begin, &scratch);
        _tile_release();
        free(scratch.scores);
    }
    return status;
}
