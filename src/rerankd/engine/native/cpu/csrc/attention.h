/* What both attentions are told of a batch; kernel_attention.py makes it. */

#ifndef RERANKD_ATTENTION_H
#define RERANKD_ATTENTION_H

#include <stdint.h>

#define KEYS 32    /* keys of a block */
#define QUERIES 32 /* query rows of a block */

/* One sequence: where its packed keys begin, in blocks, and how many there are; its query rows, which are the last
   ones of its tail. */
typedef struct {
    int64_t prefix_block, prefix_count, tail_block, tail_count, query, query_count;
} Sequence;

/* The rows of KEYS keys that are packed together; -1 where there is none, which is at the end. */
typedef int64_t Block[KEYS];

/* The query rows from `begin` on, times the heads that share a key head; a piece of work. */
typedef struct {
    int64_t sequence, begin;
} Item;

static inline int64_t blocks(int64_t keys) { return (keys + KEYS - 1) / KEYS; }

/* Query rows are counted over the heads that share a key head, then over the rows of the sequence. Here: how many of
   them an item has ... */
static inline int64_t rows_from(const Sequence *sequence, int64_t shared, int64_t begin) {
    int64_t rows = sequence->query_count * shared - begin;
    return rows < QUERIES ? rows : QUERIES;
}

/* ... how many rows of its tail query row r sees ... */
static inline int64_t seen_by(const Sequence *sequence, int64_t shared, int64_t r) {
    return sequence->tail_count - sequence->query_count + r / shared + 1;
}

/* ... and where it lies in (rows, heads, d). */
static inline int64_t place_of(const Sequence *sequence, int64_t heads, int64_t shared, int64_t d, int64_t head,
                               int64_t r) {
    return ((sequence->query + r / shared) * heads + head * shared + r % shared) * d;
}

#endif
