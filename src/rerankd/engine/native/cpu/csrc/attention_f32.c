/* Attention over packed rows in float32, on any processor with vectors: no padding, no gathering, one call a layer.

   The same work as attention.c's, cut the same way. Keys are turned once, a shared prefix included. A run of query rows
   sees the keys in chunks, and what it has of the chunks before is weighed anew by the largest score so far, so that
   neither scores nor keys leave the caches however long a pair is. The products are small ones that stay in registers:
   GROUP rows by two vectors, which are as wide as the processor's own: wider ones a compiler takes apart badly. */

#include <stdlib.h>

#include "attention.h"
#include "fast_exp.h"

#if defined(__AVX512F__)
#define WIDTH 16
#elif defined(__AVX__)
#define WIDTH 8
#else
#define WIDTH 4
#endif
#if defined(__AVX512F__) || defined(__aarch64__)
#define GROUP 8 /* of 32 registers */
#else
#define GROUP 4 /* of 16 */
#endif
#define COLUMNS (2 * WIDTH)
#define CHUNK 512           /* keys whose scores are held at a time; with their values 512 KB of heads of 128 */
#define RUN (8 * QUERIES)   /* query rows that see a chunk one after another */

typedef float Lanes __attribute__((vector_size(4 * WIDTH), aligned(4)));

/* What all threads share; values are rows as they lie, keys turned: block, key head, then d lines of KEYS numbers. */
typedef struct {
    const float *queries, *keys, *values;
    float *out;
    const Block *packing;
    int64_t heads, kv_heads, d;
    float scale;
} Layer;

/* What one thread works in: the rows of a run, what becomes of them, the scores of QUERIES of them, and the values of a
   chunk, which lie apart and would get into each other's way in the caches. */
typedef struct {
    float *queries, *results, *scores, *values;
    float most[RUN], sums[RUN]; /* of each row, over the keys so far */
} Scratch;

/* out (GROUP, COLUMNS) = or += left (GROUP, count) times right (count, COLUMNS), each with a row stride. Unrolled, as
   the loop's own steps are a third of its time where vectors are narrow. */
INLINE void add_group(const float *left, int64_t left_stride, const float *right, int64_t right_stride,
                      int64_t count, float *out, int64_t out_stride, int fresh) {
    Lanes sums[GROUP][2];
    for (int g = 0; g < GROUP; g++)
        for (int half = 0; half < 2; half++)
            sums[g][half] = fresh ? (Lanes){0} : *(const Lanes *)(out + g * out_stride + half * WIDTH);
#pragma GCC unroll 4
    for (int64_t k = 0; k < count; k++) {
        const float *line = right + k * right_stride;
        Lanes low = *(const Lanes *)line, high = *(const Lanes *)(line + WIDTH);
        for (int g = 0; g < GROUP; g++) {
            float by = left[g * left_stride + k];
            sums[g][0] += low * by;
            sums[g][1] += high * by;
        }
    }
    for (int g = 0; g < GROUP; g++)
        for (int half = 0; half < 2; half++) *(Lanes *)(out + g * out_stride + half * WIDTH) = sums[g][half];
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

/* Scores of rows against `count` keys from a block on, (rows, CHUNK). */
static void score(const Layer *layer, int64_t first, int64_t count, int64_t head, const float *queries, int64_t rows,
                  float *scores) {
    int64_t d = layer->d;
    for (int64_t b = 0; b < blocks(count); b++) {
        const float *keys = layer->keys + ((first + b) * layer->kv_heads + head) * KEYS * d;
        for (int64_t i = 0; i < KEYS; i += COLUMNS)
            for (int64_t r = 0; r < rows; r += GROUP)
                add_group(queries + r * d, d, keys + i, KEYS, d, scores + r * CHUNK + b * KEYS + i, CHUNK, 1);
    }
}

/* The rows' weights times `count` values, added to their results. */
static void mix(const float *values, int64_t count, int64_t d, const float *weights, int64_t rows, float *results,
                int fresh) {
    for (int64_t i = 0; i < d; i += COLUMNS)
        for (int64_t r = 0; r < rows; r += GROUP)
            add_group(weights + r * CHUNK, CHUNK, values + i, d, count, results + r * d + i, d, fresh);
}

/* Scores -> weights, of the keys that each row sees; what the row has so far is weighed by the new largest score. */
static void weigh_rows(const Layer *layer, const Sequence *sequence, int64_t begin, int64_t row, int64_t rows,
                       int64_t from, int64_t count, int is_tail, int fresh, Scratch *scratch) {
    int64_t d = layer->d, shared = layer->heads / layer->kv_heads;
    for (int64_t r = 0; r < rows; r++) {
        float *scores = scratch->scores + r * CHUNK, *result = scratch->results + (row + r) * d;
        int64_t own = is_tail ? seen_by(sequence, shared, begin + row + r) - from : count;
        own = own < 0 ? 0 : own < count ? own : count;
        float before = scratch->most[row + r], most = largest(scores, own, before);
        float kept = fresh ? 0.0f : most == before ? 1.0f : exponential((before - most) * layer->scale);
        scratch->sums[row + r] = scratch->sums[row + r] * kept + weigh(scores, own, count, most, layer->scale);
        scratch->most[row + r] = most;
        if (!fresh && kept != 1.0f)
            for (int64_t i = 0; i < d; i++) result[i] *= kept;
    }
}

/* The rows of a run among a chunk of keys: `count` from block `first` on, the first of which is the `from`-th of the
   sequence's prefix or tail. */
static void attend_chunk(const Layer *layer, const Sequence *sequence, int64_t head, int64_t begin, int64_t rows,
                         int64_t first, int64_t from, int64_t count, int is_tail, int fresh, Scratch *scratch) {
    int64_t d = layer->d, shared = layer->heads / layer->kv_heads, stride = layer->kv_heads * d;
    const int64_t *places = layer->packing[first];
    for (int64_t key = 0; key < count; key++)
        memcpy(scratch->values + key * d, layer->values + places[key] * stride + head * d, d * 4);
    for (int64_t row = 0; row < rows; row += QUERIES) {
        int64_t these = rows - row < QUERIES ? rows - row : QUERIES, seen = count;
        if (is_tail) seen = seen_by(sequence, shared, begin + row + these - 1) - from;
        if (seen <= 0) continue;
        if (seen > count) seen = count;
        score(layer, first, seen, head, scratch->queries + row * d, these, scratch->scores);
        weigh_rows(layer, sequence, begin, row, these, from, seen, is_tail, fresh, scratch);
        mix(scratch->values, seen, d, scratch->scores, these, scratch->results + row * d, fresh);
    }
}

/* Query rows [begin, begin + rows) of a sequence and one key head. A chunk of keys and values stays in the second-level
   cache while all of them go by. */
static void attend_run(const Layer *layer, const Sequence *sequence, int64_t head, int64_t begin, int64_t rows,
                       Scratch *scratch) {
    int64_t d = layer->d, heads = layer->heads, shared = heads / layer->kv_heads, fresh = 1;
    for (int64_t r = 0; r < rows; r++) {
        memcpy(scratch->queries + r * d, layer->queries + place_of(sequence, heads, shared, d, head, begin + r), d * 4);
        scratch->most[r] = -INFINITY, scratch->sums[r] = 0.0f;
    }
    for (int is_tail = 0; is_tail < 2; is_tail++) {
        int64_t all = is_tail ? seen_by(sequence, shared, begin + rows - 1) : sequence->prefix_count;
        int64_t first = is_tail ? sequence->tail_block : sequence->prefix_block;
        for (int64_t from = 0; from < all; from += CHUNK, fresh = 0)
            attend_chunk(layer, sequence, head, begin, rows, first + from / KEYS, from,
                         all - from < CHUNK ? all - from : CHUNK, is_tail, fresh, scratch);
    }
    for (int64_t r = 0; r < rows; r++) {
        float *out = layer->out + place_of(sequence, heads, shared, d, head, begin + r);
        for (int64_t i = 0; i < d; i++) out[i] = scratch->results[r * d + i] / scratch->sums[r];
    }
}

/* Some items, those of one sequence together. */
static void attend_items(const Layer *layer, const Sequence *sequences, const Item *items, int64_t count, int64_t head,
                         Scratch *scratch) {
    int64_t shared = layer->heads / layer->kv_heads;
    for (int64_t i = 0, next; i < count; i = next) {
        const Sequence *sequence = sequences + items[i].sequence;
        for (next = i + 1; next < count && items[next].sequence == items[i].sequence; next++);
        int64_t last = items[next - 1].begin, rows = last + rows_from(sequence, shared, last) - items[i].begin;
        attend_run(layer, sequence, head, items[i].begin, rows, scratch);
    }
}

/* queries, out (rows, heads, d); keys, values (rows, kv_heads, d); turned: room for `block_count` blocks of keys. Head
   sizes are multiples of 32. */
void rerankd_attend_wide(const float *queries, const float *keys, const float *values, float *out, int64_t heads,
                         int64_t kv_heads, int64_t d, const Sequence *sequences, const Block *packing,
                         int64_t block_count, const Item *items, int64_t item_count, float *turned, int threads) {
    Layer layer = {.queries = queries, .keys = turned, .values = values, .out = out, .packing = packing,
                   .heads = heads, .kv_heads = kv_heads, .d = d, .scale = 1.0f / sqrtf((float)d)};
#pragma omp parallel num_threads(threads)
    {
        int64_t stride = kv_heads * d;
#pragma omp for schedule(static)
        for (int64_t b = 0; b < block_count; b++)
            for (int64_t head = 0; head < kv_heads; head++)
                turn_keys(keys + head * d, stride, packing[b], d, turned + (b * kv_heads + head) * KEYS * d);
        Scratch scratch = {.queries = calloc(RUN * d, 4), .results = calloc(RUN * d, 4),
                           .scores = calloc(QUERIES * CHUNK, 4), .values = calloc(CHUNK * d, 4)};
#pragma omp for collapse(2) schedule(dynamic)
        for (int64_t i = 0; i < item_count; i += RUN / QUERIES)
            for (int64_t head = 0; head < kv_heads; head++) {
                int64_t left = item_count - i, count = left < RUN / QUERIES ? left : RUN / QUERIES;
                attend_items(&layer, sequences, items + i, count, head, &scratch);
            }
        free(scratch.queries);
        free(scratch.results);
        free(scratch.scores);
        free(scratch.values);
    }
}
