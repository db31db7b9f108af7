/* Attention over packed rows in float32, on any processor with vectors: no padding, no gathering, one call a layer.

   The same work as attention.c's, cut the same way. Keys are turned once, a shared prefix included; values are read
   where they lie. The products are small ones that stay in registers: GROUP rows by 32 columns. */

#include <stdlib.h>

#include "attention.h"
#include "numbers.h"

#ifdef __AVX512F__
#define GROUP 8
#else
#define GROUP 2
#endif

typedef float Lanes __attribute__((vector_size(64), aligned(4)));

/* What all threads share; values are rows as they lie, keys turned: block, key head, then d lines of KEYS numbers. */
typedef struct {
    const float *queries, *keys, *values;
    float *out;
    const Block *packing;
    int64_t heads, kv_heads, d;
    float scale;
} Layer;

/* What one thread works in. */
typedef struct {
    float *queries, *scores;
} Scratch;

/* out (GROUP, 32) = or += left (GROUP, count) times right (count, 32), each with a row stride; the rows of right are
   those of the list, where there is one. */
INLINE void add_group(const float *left, int64_t left_stride, const float *right, int64_t right_stride,
                      const int64_t *rows, int64_t count, float *out, int64_t out_stride, int fresh) {
    Lanes sums[GROUP][2];
    for (int g = 0; g < GROUP; g++)
        for (int half = 0; half < 2; half++)
            sums[g][half] = fresh ? (Lanes){0} : *(const Lanes *)(out + g * out_stride + half * 16);
    for (int64_t k = 0; k < count; k++) {
        const float *line = right + (rows ? rows[k] : k) * right_stride;
        Lanes low = *(const Lanes *)line, high = *(const Lanes *)(line + 16);
        for (int g = 0; g < GROUP; g++) {
            float by = left[g * left_stride + k];
            sums[g][0] += low * by;
            sums[g][1] += high * by;
        }
    }
    for (int g = 0; g < GROUP; g++)
        for (int half = 0; half < 2; half++) *(Lanes *)(out + g * out_stride + half * 16) = sums[g][half];
}

/* A block of keys, turned; keys that are not there are zero. */
static void turn_keys(const float *keys, int64_t stride, const int64_t *rows, int64_t d, float *to) {
    for (int64_t key = 0; key < KEYS; key++)
        for (int64_t i = 0; i < d; i++) to[i * KEYS + key] = rows[key] >= 0 ? keys[rows[key] * stride + i] : 0.0f;
}

INLINE float largest(const float *scores, int64_t count, float most) {
#pragma omp simd reduction(max : most)
    for (int64_t i = 0; i < count; i++) most = scores[i] > most ? scores[i] : most;
    return most;
}

/* scores -> weights in place; those from `count` to `padded` become 0; returns their sum. */
INLINE float weigh(float *scores, int64_t count, int64_t padded, float most, float scale) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) sum += scores[i] = exponential((scores[i] - most) * scale);
    for (int64_t i = count; i < padded; i++) scores[i] = 0.0f;
    return sum;
}

/* Scores of the rows against `count` keys from a block on. */
static void score(const Layer *layer, int64_t first, int64_t count, int64_t head, int64_t rows, const Scratch *scratch,
                  int64_t at, int64_t width) {
    int64_t d = layer->d;
    for (int64_t b = 0; b < blocks(count); b++)
        for (int64_t r = 0; r < rows; r += GROUP)
            add_group(scratch->queries + r * d, d, layer->keys + ((first + b) * layer->kv_heads + head) * KEYS * d,
                      KEYS, NULL, d, scratch->scores + r * width + at + b * KEYS, width, 1);
}

/* The rows' weights times the values of `count` keys, added to the result, which takes the queries' place. */
static void mix(const Layer *layer, int64_t first, int64_t count, int64_t head, int64_t rows, const Scratch *scratch,
                int64_t at, int64_t width, int fresh) {
    int64_t d = layer->d, stride = layer->kv_heads * d;
    const float *values = layer->values + head * d;
    for (int64_t i = 0; i < d; i += 32)
        for (int64_t r = 0; r < rows; r += GROUP)
            add_group(scratch->scores + r * width + at, width, values + i, stride, layer->packing[first], count,
                      scratch->queries + r * d + i, d, fresh);
}

/* Up to 32 query rows of one key head, from `begin` on. */
static void attend_rows(const Layer *layer, const Sequence *sequence, int64_t head, int64_t begin,
                        const Scratch *scratch) {
    int64_t d = layer->d, heads = layer->heads, shared = heads / layer->kv_heads;
    int64_t rows = rows_from(sequence, shared, begin), seen = seen_by(sequence, shared, begin + rows - 1);
    int64_t prefix = sequence->prefix_count, tail = blocks(prefix) * KEYS, width = tail + blocks(seen) * KEYS;
    float sums[QUERIES];
    for (int64_t r = 0; r < rows; r++)
        memcpy(scratch->queries + r * d, layer->queries + place_of(sequence, heads, shared, d, head, begin + r), d * 4);
    score(layer, sequence->prefix_block, prefix, head, rows, scratch, 0, width);
    score(layer, sequence->tail_block, seen, head, rows, scratch, tail, width);
    for (int64_t r = 0; r < rows; r++) {
        float *scores = scratch->scores + r * width;
        int64_t own = seen_by(sequence, shared, begin + r);
        float most = largest(scores + tail, own, largest(scores, prefix, -INFINITY));
        sums[r] = weigh(scores, prefix, tail, most, layer->scale) +
                  weigh(scores + tail, own, width - tail, most, layer->scale);
    }
    mix(layer, sequence->prefix_block, prefix, head, rows, scratch, 0, width, 1);
    mix(layer, sequence->tail_block, seen, head, rows, scratch, tail, width, 0);
    for (int64_t r = 0; r < rows; r++) {
        float *out = layer->out + place_of(sequence, heads, shared, d, head, begin + r);
        for (int64_t i = 0; i < d; i++) out[i] = scratch->queries[r * d + i] / sums[r];
    }
}

/* queries, out (rows, heads, d); keys, values (rows, kv_heads, d); turned: room for `block_count` blocks of keys;
   width: keys of the longest sequence in whole blocks. Head sizes are multiples of 32. */
void rerankd_attend_wide(const float *queries, const float *keys, const float *values, float *out, int64_t heads,
                         int64_t kv_heads, int64_t d, const Sequence *sequences, const Block *packing,
                         int64_t block_count, const Item *items, int64_t item_count, int64_t width, float *turned,
                         int threads) {
    Layer layer = {.queries = queries, .keys = turned, .values = values, .out = out, .packing = packing,
                   .heads = heads, .kv_heads = kv_heads, .d = d, .scale = 1.0f / sqrtf((float)d)};
#pragma omp parallel num_threads(threads)
    {
        int64_t stride = kv_heads * d;
#pragma omp for schedule(static)
        for (int64_t b = 0; b < block_count; b++)
            for (int64_t head = 0; head < kv_heads; head++)
                turn_keys(keys + head * d, stride, packing[b], d, turned + (b * kv_heads + head) * KEYS * d);
        /* Whole groups of rows are computed, so there are some lines more than rows. */
        Scratch scratch = {.queries = calloc(QUERIES * d, 4), .scores = calloc(QUERIES * width, 4)};
#pragma omp for collapse(2) schedule(dynamic, 4)
        for (int64_t i = 0; i < item_count; i++)
            for (int64_t head = 0; head < kv_heads; head++)
                attend_rows(&layer, sequences + items[i].sequence, head, items[i].begin, &scratch);
        free(scratch.queries);
        free(scratch.scores);
    }
}
