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

/* Rows of keys that are packed together. */
typedef struct {
    int64_t row, count;
} Block;

/* The query rows from `begin` on, times the heads that share a key head; a piece of work. */
typedef struct {
    int64_t sequence, begin;
} Item;

static inline int64_t blocks(int64_t keys) { return (keys + KEYS - 1) / KEYS; }

#endif
