/* Varlen attention in float32, on any processor with vectors: no padding, no gathering, one call a layer.

   FlashAttention's online softmax: a run of query rows sees the keys chunk by chunk, and keeps of what it has seen the
   running maximum m, the running sum l and the running result o. A chunk whose scores have a larger maximum rescales
   l and o by e^(m_old - m_new), so that neither scores nor keys leave the caches however long a pair is.

   Keys are transposed once a call, into blocks that all query rows read, a shared prefix included. Both products (scores
   = Q K^T, result += P V) are one micro-kernel of MR rows by two vectors that stay in registers. Vectors are as wide as
   the processor's own: wider ones a compiler takes apart badly. */

#include "attention.h"
#include "fast_exp.h"

#if defined(__AVX512F__)
#define VECTOR 16
#elif defined(__AVX__)
#define VECTOR 8
#else
#define VECTOR 4
#endif
/* Rows of the micro-kernel: MR x 2 accumulators, 2 vectors of keys or values and 1 broadcast. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define MR 8 /* of 32 registers: 19 */
#else
#define MR 4 /* of 16: 11 */
#endif
#define NR (2 * VECTOR)
#define KEY_CHUNK 512               /* keys whose scores are held at a time; with their values 512 KB of heads of 128 */
#define QUERY_RUN (8 * QUERY_BLOCK) /* query rows that see a chunk one after another */

typedef float Vector __attribute__((vector_size(4 * VECTOR), aligned(4)));

/* What all threads read; values are rows as they lie, keys transposed: block, key head, then d rows of KEY_BLOCK. */
typedef struct {
    const float *queries, *keys, *values;
    float *out;
    const Block *blocks;
    int64_t heads, kv_heads, d;
    float scale; /* of scores: 1 / sqrt(d) */
} Attention;

/* What one thread works in: the query rows of a run, their results o, the scores of QUERY_BLOCK of them, and the values
   of a chunk, which lie apart and would get into each other's way in the caches. */
typedef struct {
    float *queries, *results, *scores, *values;
    float max[QUERY_RUN], sum[QUERY_RUN]; /* m and l of each row, over the keys so far */
} Scratch;

/* Micro-kernel: c (MR, NR) = or += a (MR, k) times b (k, NR), row-major with the strides lda, ldb, ldc. Unrolled, as the
   loop's own instructions are a third of its time where vectors are narrow. */
INLINE void multiply_block(const float *a, int64_t lda, const float *b, int64_t ldb, int64_t k, float *c, int64_t ldc,
                           int fresh) {
    Vector sums[MR][2];
    for (int row = 0; row < MR; row++)
        for (int half = 0; half < 2; half++)
            sums[row][half] = fresh ? (Vector){0} : *(const Vector *)(c + row * ldc + half * VECTOR);
#pragma GCC unroll 4
    for (int64_t i = 0; i < k; i++) {
        const float *line = b + i * ldb;
        Vector low = *(const Vector *)line, high = *(const Vector *)(line + VECTOR);
        for (int row = 0; row < MR; row++) {
            float by = a[row * lda + i];
            sums[row][0] += low * by;
            sums[row][1] += high * by;
        }
    }
    for (int row = 0; row < MR; row++)
        for (int half = 0; half < 2; half++) *(Vector *)(c + row * ldc + half * VECTOR) = sums[row][half];
}

/* One block of keys, transposed; keys that are not there are zero. */
static void transpose_keys(const float *keys, int64_t stride, const int64_t *rows, int64_t d, float *to) {
    for (int64_t key = 0; key < KEY_BLOCK; key++)
        for (int64_t i = 0; i < d; i++) to[i * KEY_BLOCK + key] = rows[key] >= 0 ? keys[rows[key] * stride + i] : 0.0f;
}

INLINE float row_max(const float *scores, int64_t count, float max) {
#pragma omp simd reduction(max : max)
    for (int64_t i = 0; i < count; i++) max = scores[i] > max ? scores[i] : max;
    return max;
}

/* scores -> e^(scale * (score - max)) in place; those from `count` to `padded` become 0; returns their sum. */
INLINE float exponentiate(float *scores, int64_t count, int64_t padded, float max, float scale) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) sum += scores[i] = fast_expf((scores[i] - max) * scale);
    for (int64_t i = count; i < padded; i++) scores[i] = 0.0f;
    return sum;
}

/* Q K^T: scores (rows, KEY_CHUNK) of query rows against `count` keys from a block on. */
static void compute_scores(const Attention *attention, int64_t first, int64_t count, int64_t kv_head,
                           const float *queries, int64_t rows, float *scores) {
    int64_t d = attention->d;
    for (int64_t b = 0; b < num_blocks(count); b++) {
        const float *keys = attention->keys + ((first + b) * attention->kv_heads + kv_head) * KEY_BLOCK * d;
        for (int64_t i = 0; i < KEY_BLOCK; i += NR)
            for (int64_t r = 0; r < rows; r += MR)
                multiply_block(queries + r * d, d, keys + i, KEY_BLOCK, d, scores + r * KEY_CHUNK + b * KEY_BLOCK + i,
                               KEY_CHUNK, 1);
    }
}

/* P V: the rows' weights times `count` values, added to their results. */
static void accumulate_values(const float *values, int64_t count, int64_t d, const float *weights, int64_t rows,
                              float *results, int fresh) {
    for (int64_t i = 0; i < d; i += NR)
        for (int64_t r = 0; r < rows; r += MR)
            multiply_block(weights + r * KEY_CHUNK, KEY_CHUNK, values + i, d, count, results + r * d + i, d, fresh);
}

/* The online softmax step: scores -> weights of the keys that each row sees; what the row has so far is rescaled by the
   new maximum. */
static void update_softmax(const Attention *attention, const Sequence *sequence, int64_t begin, int64_t row,
                           int64_t rows, int64_t from, int64_t count, int is_tail, int fresh, Scratch *scratch) {
    int64_t d = attention->d, group = attention->heads / attention->kv_heads;
    for (int64_t r = 0; r < rows; r++) {
        float *scores = scratch->scores + r * KEY_CHUNK, *result = scratch->results + (row + r) * d;
        int64_t visible = is_tail ? visible_keys(sequence, group, begin + row + r) - from : count;
        visible = visible < 0 ? 0 : visible < count ? visible : count;
        float old_max = scratch->max[row + r], max = row_max(scores, visible, old_max);
        float rescale = fresh ? 0.0f : max == old_max ? 1.0f : fast_expf((old_max - max) * attention->scale);
        scratch->sum[row + r] =
            scratch->sum[row + r] * rescale + exponentiate(scores, visible, count, max, attention->scale);
        scratch->max[row + r] = max;
        if (!fresh && rescale != 1.0f)
            for (int64_t i = 0; i < d; i++) result[i] *= rescale;
    }
}

/* The rows of a run among a chunk of keys: `count` from block `first` on, the first of which is the `from`-th of the
   sequence's prefix or tail. */
static void attend_chunk(const Attention *attention, const Sequence *sequence, int64_t kv_head, int64_t begin,
                         int64_t rows, int64_t first, int64_t from, int64_t count, int is_tail, int fresh,
                         Scratch *scratch) {
    int64_t d = attention->d, group = attention->heads / attention->kv_heads, stride = attention->kv_heads * d;
    const int64_t *key_rows = attention->blocks[first];
    for (int64_t key = 0; key < count; key++)
        memcpy(scratch->values + key * d, attention->values + key_rows[key] * stride + kv_head * d, (size_t)d * 4);
    for (int64_t row = 0; row < rows; row += QUERY_BLOCK) {
        int64_t these = min64(rows - row, QUERY_BLOCK), visible = count;
        if (is_tail) visible = visible_keys(sequence, group, begin + row + these - 1) - from;
        if (visible <= 0) continue;
        if (visible > count) visible = count;
        compute_scores(attention, first, visible, kv_head, scratch->queries + row * d, these, scratch->scores);
        update_softmax(attention, sequence, begin, row, these, from, visible, is_tail, fresh, scratch);
        accumulate_values(scratch->values, visible, d, scratch->scores, these, scratch->results + row * d, fresh);
    }
}

/* Query rows [begin, begin + rows) of a sequence and one key head. A chunk of keys and values stays in the second-level
   cache while all of them go by. */
static void attend_run(const Attention *attention, const Sequence *sequence, int64_t kv_head, int64_t begin,
                       int64_t rows, Scratch *scratch) {
    int64_t d = attention->d, heads = attention->heads, group = heads / attention->kv_heads;
    int fresh = 1;
    for (int64_t r = 0; r < rows; r++) {
        memcpy(scratch->queries + r * d,
               attention->queries + query_offset(sequence, heads, group, d, kv_head, begin + r), (size_t)d * 4);
        scratch->max[r] = -INFINITY, scratch->sum[r] = 0.0f;
    }
    for (int is_tail = 0; is_tail < 2; is_tail++) {
        int64_t all = is_tail ? visible_keys(sequence, group, begin + rows - 1) : sequence->prefix_count;
        int64_t first = is_tail ? sequence->tail_block : sequence->prefix_block;
        for (int64_t from = 0; from < all; from += KEY_CHUNK, fresh = 0)
            attend_chunk(attention, sequence, kv_head, begin, rows, first + from / KEY_BLOCK, from,
                         min64(all - from, KEY_CHUNK), is_tail, fresh, scratch);
    }
    for (int64_t r = 0; r < rows; r++) {
        float *out = attention->out + query_offset(sequence, heads, group, d, kv_head, begin + r);
        for (int64_t i = 0; i < d; i++) out[i] = scratch->results[r * d + i] / scratch->sum[r];
    }
}

/* Some work items, those of one sequence together. */
static void attend_items(const Attention *attention, const Sequence *sequences, const WorkItem *items, int64_t count,
                         int64_t kv_head, Scratch *scratch) {
    int64_t group = attention->heads / attention->kv_heads;
    for (int64_t i = 0, next; i < count; i = next) {
        const Sequence *sequence = sequences + items[i].sequence;
        for (next = i + 1; next < count && items[next].sequence == items[i].sequence; next++);
        int64_t last = items[next - 1].begin, rows = last + num_query_rows(sequence, group, last) - items[i].begin;
        attend_run(attention, sequence, kv_head, items[i].begin, rows, scratch);
    }
}

/* Cleared, as the micro-kernel reads whole blocks of MR rows: those that do not exist shall be numbers too. */
static int new_scratch(Scratch *scratch, int64_t d) {
    scratch->queries = calloc((size_t)(QUERY_RUN * d), 4);
    scratch->results = calloc((size_t)(QUERY_RUN * d), 4);
    scratch->scores = calloc(QUERY_BLOCK * KEY_CHUNK, 4);
    scratch->values = calloc((size_t)(KEY_CHUNK * d), 4);
    return scratch->queries && scratch->results && scratch->scores && scratch->values;
}

static void free_scratch(const Scratch *scratch) {
    free(scratch->queries);
    free(scratch->results);
    free(scratch->scores);
    free(scratch->values);
}

/* queries, out (tokens, heads, d); keys, values (rows, kv_heads, d); packed_keys: room for `block_count` blocks of keys.
   d is a multiple of 32. */
KERNEL(attention_f32)(const float *queries, const float *keys, const float *values, float *out, int64_t heads,
                      int64_t kv_heads, int64_t d, const Sequence *sequences, const Block *blocks, int64_t block_count,
                      const WorkItem *items, int64_t item_count, float *packed_keys, int threads) {
    if (d % 32) return KERNEL_UNSUPPORTED;
    Attention attention = {.queries = queries, .keys = packed_keys, .values = values, .out = out, .blocks = blocks,
                           .heads = heads, .kv_heads = kv_heads, .d = d, .scale = 1.0f / sqrtf((float)d)};
    int status = KERNEL_OK;
#pragma omp parallel num_threads(threads)
    {
        int64_t stride = kv_heads * d;
#pragma omp for schedule(static)
        for (int64_t b = 0; b < block_count; b++)
            for (int64_t head = 0; head < kv_heads; head++)
                transpose_keys(keys + head * d, stride, blocks[b], d, packed_keys + (b * kv_heads + head) * KEY_BLOCK * d);
        Scratch scratch;
        int is_ready = new_scratch(&scratch, d);
        if (!is_ready) report(&status, KERNEL_OUT_OF_MEMORY);
#pragma omp for collapse(2) schedule(dynamic)
        for (int64_t i = 0; i < item_count; i += QUERY_RUN / QUERY_BLOCK)
            for (int64_t head = 0; head < kv_heads; head++)
                if (is_ready)
                    attend_items(&attention, sequences, items + i, min64(item_count - i, QUERY_RUN / QUERY_BLOCK), head,
                                 &scratch);
        free_scratch(&scratch);
    }
    return status;
}
