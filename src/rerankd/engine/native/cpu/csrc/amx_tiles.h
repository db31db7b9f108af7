/* AMX tiles: what the GEMM and the attention in tiles share.

   There are eight tile registers, TMM0 to TMM7, each 16 rows of 64 bytes. Both kernels use the 2 x 2 pattern:

                      B: TMM6  TMM7          C 0-3: accumulators, 16 x 16 of float32 or int32; together 32 x 32
       A: TMM4           TMM0  TMM1          A 4-5: 16 rows each, K values in order
          TMM5           TMM2  TMM3          B 6-7: 16 outputs each, VNNI-packed (see gemm_amx.c)

   Four TDP instructions an A and B pair: each loaded tile is used twice. */

#ifndef RERANKD_AMX_TILES_H
#define RERANKD_AMX_TILES_H

#include <immintrin.h>

#include "kernels.h"

/* Tile roles; intrinsics want constants. */
#define C_TOP_LEFT 0
#define C_TOP_RIGHT 1
#define C_BOTTOM_LEFT 2
#define C_BOTTOM_RIGHT 3
#define A_TOP 4
#define A_BOTTOM 5
#define B_LEFT 6
#define B_RIGHT 7

#define TILE_BF16 512 /* bfloat16 values of a tile */

typedef uint16_t bfloat16;

/* The 64 bytes that LDTILECFG reads (Intel SDM, palette 1). */
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} __attribute__((packed)) TileConfig;

INLINE void configure_tiles(void) {
    TileConfig config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = 64;
        config.rows[i] = 16;
    }
    /* The compiler believes that eight bytes are read. */
    __asm__ volatile("" ::"r"(&config) : "memory");
    _tile_loadconfig(&config);
}

INLINE void zero_accumulators(void) {
    _tile_zero(C_TOP_LEFT);
    _tile_zero(C_TOP_RIGHT);
    _tile_zero(C_BOTTOM_LEFT);
    _tile_zero(C_BOTTOM_RIGHT);
}

/* The accumulators as a block of 32 x 32; ldc: values from row to row. */
INLINE void store_accumulators(float *c, int64_t ldc) {
    _tile_stored(C_TOP_LEFT, c, ldc * 4);
    _tile_stored(C_TOP_RIGHT, c + 16, ldc * 4);
    _tile_stored(C_BOTTOM_LEFT, c + 16 * ldc, ldc * 4);
    _tile_stored(C_BOTTOM_RIGHT, c + 16 * ldc + 16, ldc * 4);
}

INLINE void load_accumulators(const float *c, int64_t ldc) {
    _tile_loadd(C_TOP_LEFT, c, ldc * 4);
    _tile_loadd(C_TOP_RIGHT, c + 16, ldc * 4);
    _tile_loadd(C_BOTTOM_LEFT, c + 16 * ldc, ldc * 4);
    _tile_loadd(C_BOTTOM_RIGHT, c + 16 * ldc + 16, ldc * 4);
}

/* Transpose 16 x 16 words of 32 bits in registers: VNNI packing, where a word is two bfloat16 values of one row. */
INLINE void transpose_16x16(__m512i *a) {
    __m512i b[16];
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    for (int i = 0; i < 8; i++) {
        int at = i % 4 + i / 4 * 8;
        b[i] = _mm512_shuffle_i32x4(a[at], a[at + 4], 0x88);
        b[i + 8] = _mm512_shuffle_i32x4(a[at], a[at + 4], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        a[i] = _mm512_shuffle_i32x4(b[i], b[i + 4], 0x88);
        a[i + 8] = _mm512_shuffle_i32x4(b[i], b[i + 4], 0xdd);
        a[i + 4] = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0x88);
        a[i + 12] = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0xdd);
    }
}

#endif
