/* The work list of varlen attention: what both attention kernels are told of a batch. cpu/attention_varlen.py makes it.

   Tokens of all sequences lie one after another, without padding. Keys are packed in blocks of 32, and a sequence reads
   two runs of blocks: those of its prefix, all of which its queries see, and those of its tail, which they see causally.
   Query heads that share a key head (grouped-query attention) are worked on together: "query rows" counts tokens times
   the heads of such a group. */

#ifndef RERANKD_ATTENTION_H
#define RERANKD_ATTENTION_H

#include "kernels.h"

#define KEY_BLOCK 32   /* keys of a block */
#define QUERY_BLOCK 32 /* query rows of a work item */

/* One sequence: where its packed keys begin, in blocks, and how many there are; its query tokens, which are the last
   ones of its tail. */
typedef struct {
    int64_t prefix_block, prefix_count, tail_block, tail_count, query, query_count;
} Sequence;

/* The rows of the KEY_BLOCK keys that are packed together; -1 where there is none, which is at the end. */
typedef int64_t Block[KEY_BLOCK];

/* QUERY_BLOCK query rows of a sequence, from `begin` on. */
typedef struct {
    int64_t sequence, begin;
} WorkItem;

INLINE int64_t num_blocks(int64_t keys) { return ceil_div(keys, KEY_BLOCK); }

/* Query rows of an item; `group` is the number of query heads that share a key head. */
INLINE int64_t num_query_rows(const Sequence *sequence, int64_t group, int64_t begin) {
    return min64(sequence->query_count * group - begin, QUERY_BLOCK);
}

/* The causal mask: how many keys of the tail query row r sees. */
INLINE int64_t visible_keys(const Sequence *sequence, int64_t group, int64_t r) {
    return sequence->tail_count - sequence->query_count + r / group + 1;
}

/* Where query row r lies in (tokens, heads, d). */
INLINE int64_t query_offset(const Sequence *sequence, int64_t heads, int64_t group, int64_t d, int64_t kv_head,
                            int64_t r) {
    return ((sequence->query + r / group) * heads + kv_head * group + r % group) * d;
}

#endif
