/* Attention over packed rows in bfloat16 with AMX tiles: no padding between pairs, no gathering, one call a layer.

   A sequence is the tail of one pair, or a prefix on its own. Its queries see all of its prefix and, causally, its
   tail. Keys and values are packed once into the layout that the tiles want, a shared prefix included, in blocks of
   32 keys; then each block of 32 queries computes all its scores, their softmax in float32, and the weighted values.
   Query heads that share a key head are worked on together. */

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "attention.h"
#include "amx_tiles.h"

#define MOST_HEAD 256

/* Linux lends the tiles to a process that asks; 0 if it does. */
int rerankd_attention_ready(void) {
    return (int)syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XFEATURE_XTILEDATA */);
}

/* A block of 32 keys: for each 32 numbers of the head, two tiles of (number pair, key). */
INLINE void pack_keys(const bfloat16 *keys, int64_t stride, const int64_t *rows, int64_t d, bfloat16 *to) {
    for (int64_t part = 0; part < d / 32; part++)
        for (int64_t half = 0; half < 2; half++) {
            __m512i lines[16];
            for (int64_t i = 0; i < 16; i++) {
                int64_t row = rows[half * 16 + i];
                lines[i] = row >= 0 ? _mm512_loadu_si512(keys + row * stride + part * 32) : _mm512_setzero_si512();
            }
            turn16(lines);
            for (int i = 0; i < 16; i++) _mm512_storeu_si512(to + (part * 2 + half) * TILE + i * 32, lines[i]);
        }
}

/* A block of 32 values: for each 16 numbers of the head, a tile of (key pair, number). */
INLINE void pack_values(const bfloat16 *values, int64_t stride, const int64_t *rows, int64_t d, bfloat16 *to) {
    static const bfloat16 nothing[MOST_HEAD];
    __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36,
                                   4, 35, 3, 34, 2, 33, 1, 32, 0);
    __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    for (int64_t pair = 0; pair < KEYS / 2; pair++) {
        const bfloat16 *even = rows[2 * pair] >= 0 ? values + rows[2 * pair] * stride : nothing;
        const bfloat16 *odd = rows[2 * pair + 1] >= 0 ? values + rows[2 * pair + 1] * stride : nothing;
        for (int64_t i = 0; i < d; i += 32) {
            __m512i left = _mm512_loadu_si512(even + i), right = _mm512_loadu_si512(odd + i);
            bfloat16 *line = to + (i / 16) * TILE + pair * 32;
            _mm512_storeu_si512(line, _mm512_permutex2var_epi16(left, low, right));
            _mm512_storeu_si512(line + TILE, _mm512_permutex2var_epi16(left, high, right));
        }
    }
}

/* The sums grow by two row tiles (one where `rows` fit in it) times two column tiles, over `steps` steps along what
   they share. */
INLINE void add_products(const bfloat16 *left, int64_t left_stride, int64_t left_step, int64_t rows,
                         const bfloat16 *right, int64_t right_step, int64_t steps) {
    for (int64_t step = 0; step < steps; step++, left += left_step, right += right_step) {
        _tile_loadd(4, left, left_stride * 2);
        _tile_loadd(6, right, 64);
        _tile_loadd(7, right + TILE, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (rows <= 16) continue;
        _tile_loadd(5, left + 16 * left_stride, left_stride * 2);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}

/* 2^x for x <= 0, of sixteen numbers, to 4e-6 of itself: finer than bfloat16 keeps, in fewer steps than float32 needs.
   The order of max keeps what is not a number. */
INLINE __m512 power16(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-126.0f), x);
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 f = _mm512_sub_ps(x, whole), p = _mm512_set1_ps(1.3422406e-02f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.2249155e-02f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4127762e-01f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9304493e-01f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, whole);
}

INLINE __mmask16 first(int64_t count) { return count >= 16 ? 0xffff : count > 0 ? (1u << count) - 1 : 0; }

INLINE float largest(const float *scores, int64_t count, float most) {
    __m512 found = _mm512_set1_ps(most);
    for (int64_t i = 0; i < count; i += 16)
        found = _mm512_mask_max_ps(found, first(count - i), found, _mm512_loadu_ps(scores + i));
    return _mm512_reduce_max_ps(found);
}

/* weights = 2^(scale * (scores - most)) for the first `count`, 0 up to `padded`; their sum is added to `sum`. */
INLINE __m512 weigh(const float *scores, int64_t count, int64_t padded, float most, float scale, bfloat16 *weights,
                    __m512 sum) {
    __m512 by = _mm512_set1_ps(scale), less = _mm512_set1_ps(-most * scale);
    for (int64_t i = 0; i < padded; i += 16) {
        __m512 x = _mm512_fmadd_ps(_mm512_loadu_ps(scores + i), by, less);
        __m512 weight = _mm512_maskz_mov_ps(first(count - i), power16(x));
        sum = _mm512_add_ps(sum, weight);
        _mm256_storeu_si256((__m256i *)(weights + i), (__m256i)_mm512_cvtneps_pbh(weight));
    }
    return sum;
}

/* What all threads share. */
typedef struct {
    const bfloat16 *queries;
    bfloat16 *out;
    const bfloat16 *keys, *values; /* packed: block, key head, then KEYS * d numbers */
    int64_t heads, kv_heads, d;
    float scale;
} Layer;

/* What one thread works in: QUERIES rows, as wide as the longest sequence. */
typedef struct {
    bfloat16 *queries, *weights;
    float *scores, *result;
} Scratch;

/* Keys that a block of queries is multiplied with: the blocks of the prefix, then those of the tail. */
typedef struct {
    int64_t first[2], blocks[2], counts[2];
} Span;

static void score(const Layer *layer, const Span *span, int64_t head, int64_t rows, const Scratch *scratch,
                  int64_t width) {
    int64_t d = layer->d, size = KEYS * d, at = 0;
    for (int part = 0; part < 2; part++)
        for (int64_t b = 0; b < span->blocks[part]; b++, at += KEYS) {
            const bfloat16 *keys = layer->keys + ((span->first[part] + b) * layer->kv_heads + head) * size;
            clear_sums();
            add_products(scratch->queries, d, 32, rows, keys, 2 * TILE, d / 32);
            store_sums(scratch->scores + at, width);
        }
}

/* One row of scores -> weights of the prefix's keys and of the first `own` of the tail's; returns their sum. */
static float weigh_row(const Layer *layer, const Span *span, int64_t own, const float *scores, bfloat16 *weights) {
    int64_t tail = span->blocks[0] * KEYS;
    float most = largest(scores + tail, own, largest(scores, span->counts[0], -INFINITY));
    __m512 sum = weigh(scores, span->counts[0], tail, most, layer->scale, weights, _mm512_setzero_ps());
    sum = weigh(scores + tail, own, span->blocks[1] * KEYS, most, layer->scale, weights + tail, sum);
    return _mm512_reduce_add_ps(sum);
}

static void mix(const Layer *layer, const Span *span, int64_t head, int64_t rows, const Scratch *scratch,
                int64_t width) {
    int64_t d = layer->d, size = KEYS * d, step = layer->kv_heads * size;
    for (int64_t i = 0; i < d; i += 32) {
        const bfloat16 *weights = scratch->weights;
        clear_sums();
        for (int part = 0; part < 2; part++) {
            const bfloat16 *values = layer->values + (span->first[part] * layer->kv_heads + head) * size;
            add_products(weights, width, KEYS, rows, values + (i / 16) * TILE, step, span->blocks[part]);
            weights += span->blocks[part] * KEYS;
        }
        store_sums(scratch->result + i, d);
    }
}

/* Up to 32 query rows of one key head, from `begin` on. */
static void attend_rows(const Layer *layer, const Sequence *sequence, int64_t head, int64_t begin,
                        const Scratch *scratch) {
    int64_t d = layer->d, heads = layer->heads, shared = heads / layer->kv_heads;
    int64_t rows = rows_from(sequence, shared, begin), seen = seen_by(sequence, shared, begin + rows - 1);
    Span span = {.first = {sequence->prefix_block, sequence->tail_block},
                 .blocks = {blocks(sequence->prefix_count), blocks(seen)},
                 .counts = {sequence->prefix_count, seen}};
    int64_t width = (span.blocks[0] + span.blocks[1]) * KEYS;
    float sums[QUERIES];
    for (int64_t r = 0; r < rows; r++)
        memcpy(scratch->queries + r * d, layer->queries + place_of(sequence, heads, shared, d, head, begin + r), d * 2);
    score(layer, &span, head, rows, scratch, width);
    /* Lines beyond the rows hold anything: what comes of them is not written. */
    for (int64_t r = 0; r < rows; r++) {
        int64_t own = seen_by(sequence, shared, begin + r);
        sums[r] = weigh_row(layer, &span, own, scratch->scores + r * width, scratch->weights + r * width);
    }
    mix(layer, &span, head, rows, scratch, width);
    for (int64_t r = 0; r < rows; r++) {
        bfloat16 *out = layer->out + place_of(sequence, heads, shared, d, head, begin + r);
        __m512 inverse = _mm512_set1_ps(1.0f / sums[r]);
        for (int64_t i = 0; i < d; i += 32) {
            const float *result = scratch->result + r * d + i;
            __m512 left = _mm512_mul_ps(_mm512_loadu_ps(result), inverse);
            __m512 right = _mm512_mul_ps(_mm512_loadu_ps(result + 16), inverse);
            _mm512_storeu_si512(out + i, (__m512i)_mm512_cvtne2ps_pbh(right, left));
        }
    }
}

static Scratch new_scratch(int64_t width, int64_t d) {
    int64_t rows = QUERIES * ((d * 2 + width * 2) + (width * 4 + d * 4));
    char *place = aligned_alloc(64, rows);
    return (Scratch){.scores = (float *)place,
                     .result = (float *)(place + QUERIES * width * 4),
                     .weights = (bfloat16 *)(place + QUERIES * (width * 4 + d * 4)),
                     .queries = (bfloat16 *)(place + QUERIES * (width * 6 + d * 4))};
}

/* queries, out (rows, heads, d); keys, values (rows, kv_heads, d); packed: two places for `block_count` blocks;
   width: keys of the longest sequence in whole blocks. Head sizes are multiples of 32. */
void rerankd_attend(const bfloat16 *queries, const bfloat16 *keys, const bfloat16 *values, bfloat16 *out,
                    int64_t heads, int64_t kv_heads, int64_t d, const Sequence *sequences, const Block *packing,
                    int64_t block_count, const Item *items, int64_t item_count, int64_t width, bfloat16 *packed_keys,
                    bfloat16 *packed_values, int threads) {
    Layer layer = {.queries = queries, .out = out, .keys = packed_keys, .values = packed_values, .heads = heads,
                   .kv_heads = kv_heads, .d = d, .scale = 1.44269504f / sqrtf((float)d)}; /* powers of two, not of e */
#pragma omp parallel num_threads(threads)
    {
        int64_t stride = kv_heads * d, size = KEYS * d;
#pragma omp for schedule(static)
        for (int64_t b = 0; b < block_count; b++)
            for (int64_t head = 0; head < kv_heads; head++) {
                int64_t to = (b * kv_heads + head) * size;
                pack_keys(keys + head * d, stride, packing[b], d, packed_keys + to);
                pack_values(values + head * d, stride, packing[b], d, packed_values + to);
            }
        Scratch scratch = new_scratch(width, d);
        set_up_tiles();
#pragma omp for collapse(2) schedule(dynamic, 4)
        for (int64_t i = 0; i < item_count; i++)
            for (int64_t head = 0; head < kv_heads; head++)
                attend_rows(&layer, sequences + items[i].sequence, head, items[i].begin, &scratch);
        _tile_release();
        free(scratch.scores);
    }
}

#else

int rerankd_attention_ready(void) { return -1; }

void rerankd_attend(void) {}

#endif
