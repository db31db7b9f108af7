/* Rows as products in tiles take them: by 32 rows, by step of 64 bytes, by term, two tiles of sixteen lines. */

#ifndef RERANKD_PACKED_H
#define RERANKD_PACKED_H

#include <stdint.h>

#ifndef INLINE
#define INLINE static inline __attribute__((always_inline))
#endif

#define BYTES 1024 /* of a tile */
#define TERMS 3    /* bfloat16 numbers that a float32 number is the sum of, to its last bit */

/* Where a row's line of a step is, the first of its terms. */
INLINE char *line_of(void *packed, int64_t row, int64_t step, int64_t steps, int64_t terms) {
    return (char *)packed + (row / 32 * steps + step) * terms * 2 * BYTES + row % 32 * 64;
}

#ifdef __AVX512BF16__

#include <immintrin.h>

/* Sixteen numbers without the bfloat16 number that is taken from them. */
INLINE __m512 rest_of(__m512 numbers, __m256i taken) {
    return _mm512_sub_ps(numbers, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(taken), 16)));
}

/* Sixteen numbers as their terms, half a line each. */
INLINE void put_terms(__m512 numbers, char *to) {
    for (int term = 0; term < TERMS; term++, to += 2 * BYTES) {
        __m256i taken = (__m256i)_mm512_cvtneps_pbh(numbers);
        _mm256_store_si256((__m256i *)to, taken);
        numbers = rest_of(numbers, taken);
    }
}

#endif
#endif
