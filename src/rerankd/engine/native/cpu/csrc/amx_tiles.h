/* AMX tiles: what attention.c and products.c share. All tiles have 16 rows of 64 bytes; 0-3 hold sums. */

#ifndef RERANKD_TILES_H
#define RERANKD_TILES_H

#include <immintrin.h>
#include <stdint.h>

#ifndef INLINE
#define INLINE static inline __attribute__((always_inline))
#endif
#define TILE 512 /* bfloat16 numbers of a tile */

typedef uint16_t bfloat16;

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} __attribute__((packed)) TileConfig;

INLINE void set_up_tiles(void) {
    TileConfig config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.bytes[i] = 64;
        config.rows[i] = 16;
    }
    /* The compiler believes that eight bytes are read. */
    __asm__ volatile("" ::"r"(&config) : "memory");
    _tile_loadconfig(&config);
}

INLINE void clear_sums(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

/* Sums 0-3 are a square of 32 x 32: stride counts numbers. */
INLINE void store_sums(float *sums, int64_t stride) {
    _tile_stored(0, sums, stride * 4);
    _tile_stored(1, sums + 16, stride * 4);
    _tile_stored(2, sums + 16 * stride, stride * 4);
    _tile_stored(3, sums + 16 * stride + 16, stride * 4);
}

INLINE void load_sums(const float *sums, int64_t stride) {
    _tile_loadd(0, sums, stride * 4);
    _tile_loadd(1, sums + 16, stride * 4);
    _tile_loadd(2, sums + 16 * stride, stride * 4);
    _tile_loadd(3, sums + 16 * stride + 16, stride * 4);
}

/* Sixteen lines of sixteen 32-bit words, lines turned to columns. */
INLINE void turn16(__m512i *a) {
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
