/* The layout of packed activations, the A operand of the GEMM in AMX tiles.

   An A tile is 16 rows of 64 bytes: 32 values of bfloat16 or 64 of uint8 along K. Rows go by blocks of 32, which are two
   tiles, and float32 values as three bfloat16 terms whose sum they are (to the last bit: 3 x 8 bits of mantissa):

       rows 0-31    k tile 0:  term 0: [ tile of rows 0-15 ][ tile of rows 16-31 ]    2 x 1024 bytes
                               term 1: [       "           ][        "           ]    float32 alone
                               term 2: [       "           ][        "           ]
                    k tile 1:  ...
       rows 32-63   k tile 0:  ...

   A GEMM reads this as one sequential stream. Rows that do not exist, of the last block, hold anything. */

#ifndef RERANKD_GEMM_PACK_H
#define RERANKD_GEMM_PACK_H

#include "kernels.h"

#define TILE_BYTES 1024 /* 16 rows of 64 bytes */
#define TILE_ROW_BYTES 64
#define ROW_BLOCK 32    /* rows of two A tiles */
#define FLOAT32_TERMS 3

/* Where the 64 bytes of a row's K tile are, of its first term; the next terms follow 2 * TILE_BYTES apart. */
INLINE char *packed_tile_row(void *packed, int64_t row, int64_t k_tile, int64_t k_tiles, int64_t terms) {
    return (char *)packed + (row / ROW_BLOCK * k_tiles + k_tile) * terms * 2 * TILE_BYTES +
           row % ROW_BLOCK * TILE_ROW_BYTES;
}

#ifdef __AVX512BF16__

#include <immintrin.h>

/* What is left of sixteen values without the bfloat16 values that are taken from them. */
INLINE __m512 subtract_bf16(__m512 values, __m256i taken) {
    return _mm512_sub_ps(values, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(taken), 16)));
}

/* Split sixteen float32 values into their bfloat16 terms (BF16x3), half a tile row each. */
INLINE void store_bf16_terms(__m512 values, char *to) {
    for (int term = 0; term < FLOAT32_TERMS; term++, to += 2 * TILE_BYTES) {
        __m256i taken = (__m256i)_mm512_cvtneps_pbh(values);
        _mm256_store_si256((__m256i *)to, taken);
        values = subtract_bf16(values, taken);
    }
}

#endif
#endif
