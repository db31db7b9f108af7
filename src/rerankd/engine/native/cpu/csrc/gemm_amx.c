/* Products of rows with weights in AMX tiles, and what lies directly behind them.

   Float32 rows times bfloat16 weights: a float32 number is the sum of three bfloat16 numbers, to its last bit, so
   three products in bfloat16, summed in float32, are the product in float32. Bfloat16 rows times bfloat16 weights. And
   unsigned eight-bit rows around 128 times signed eight-bit weights.

   Rows come packed (packed.h). A panel of weights is two tiles of sixteen outputs a step. Bfloat16 weights lie where
   they are, in the mapped file, and are packed in passing; eight-bit ones are packed at load. A thread takes a share of
   the panels, a group of them at a time that the second-level cache holds, and goes over all rows with it: some steps
   of 32 rows stay in the first-level cache while the group streams by. While tiles multiply, the vector units finish
   the square before, pack the next group, and fetch the next rows. */

#if defined(__AMX_BF16__) && defined(__AMX_INT8__) && defined(__AVX512BF16__) && defined(__linux__)

#include <stdlib.h>
#include <string.h>

#include "fast_exp.h"
#include "gemm_pack.h"
#include "amx_tiles.h"

enum { FLOAT32, BFLOAT16, UINT8 };
/* What becomes of a panel's two tiles a and b: outputs side by side, a + b, or silu(a) * b, which is packed as the rows
   of another product, but for eight bits, which are rounded first. */
enum { PLAIN, GATED, ADDED };

#define GROUP (768 * 1024)   /* bytes of the packed weights that a thread works with at a time */
#define STEPS 16             /* steps of 32 rows in the first-level cache: 32 KB, in one term */
#define FEWEST 8             /* panels of a thread, below which threads share the rows out as well */

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t parts_of(int64_t all, int64_t size) { return (all + size - 1) / size; }
INLINE int64_t terms_of(int kind) { return kind == FLOAT32 ? TERMS : 1; }

typedef struct {
    const char *rows; /* packed */
    int64_t count, steps;
    const char *weights[2]; /* of the left and the right tile of the first panel; eight-bit ones are packed in [0] */
    int64_t panel_bytes;    /* from there to the next panel; of bfloat16 weights */
    const float *row_scales, *out_scales; /* of eight bits: what sums are multiplied with ... */
    const int32_t *middles;               /* ... after this is taken from them */
    char *out;
    int64_t out_bytes; /* from row to row; of packed rows: their steps */
} Product;

/* A square of sums that is complete, and its first row that is not written yet. */
typedef struct {
    const void *sums;
    int64_t row, panel, at;
} Square;

/* What is done beside the tiles: tiles of the next group, rows of the next round, the last square. */
typedef struct {
    int64_t panel, at, end; /* first panel of the next group; its tiles */
    char *to;
    const char *ahead;
    int64_t lines; /* of 64 bytes, a step */
    Square square;
} Beside;

/* 2^x to 2e-7 of itself (numbers.h); what is not a number stays so. */
INLINE __m512 two_to(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-126.0f), _mm512_min_ps(_mm512_set1_ps(126.0f), x));
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 f = _mm512_sub_ps(x, whole), p = _mm512_set1_ps(POWER[0]);
    for (int i = 1; i < POWERS; i++) p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(POWER[i]));
    return _mm512_scalef_ps(p, whole);
}

INLINE __m512 silu(__m512 x) {
    __m512 power = two_to(_mm512_mul_ps(x, _mm512_set1_ps(-1.44269504f)));
    return _mm512_div_ps(x, _mm512_add_ps(power, _mm512_set1_ps(1.0f)));
}

/* Sixteen sums of one row, multiplied out. */
INLINE __m512 numbers_of(const Product *p, const char *sums, int64_t row, int64_t output, int kind) {
    if (kind != UINT8) return _mm512_load_ps(sums);
    __m512i whole = _mm512_sub_epi32(_mm512_load_si512(sums), _mm512_loadu_si512(p->middles + output));
    __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(p->out_scales + output), _mm512_set1_ps(p->row_scales[row]));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(whole), scale);
}

/* A line of 64 bytes past the caches: it is read when all of the product is there, and need not be fetched now. */
INLINE void write_line(char *out, __m512i line) {
    if ((uintptr_t)out % 64)
        _mm512_storeu_si512(out, line);
    else
        _mm512_stream_si512((void *)out, line);
}

INLINE void write32(char *out, __m512 left, __m512 right, int out_kind) {
    if (out_kind == FLOAT32) {
        write_line(out, _mm512_castps_si512(left));
        write_line(out + 64, _mm512_castps_si512(right));
    } else
        write_line(out, (__m512i)_mm512_cvtne2ps_pbh(right, left));
}

/* Sixteen numbers of a row from output `at` on, as they are or, for another product, packed. */
INLINE void write16(const Product *p, int64_t row, int64_t at, __m512 numbers, int out_kind, int packed) {
    if (packed) {
        char *line = line_of(p->out, row, at / 32, p->out_bytes, terms_of(out_kind)) + at % 32 * 2;
        if (out_kind == FLOAT32)
            put_terms(numbers, line);
        else
            _mm256_store_si256((__m256i *)line, (__m256i)_mm512_cvtneps_pbh(numbers));
    } else if (out_kind == FLOAT32)
        _mm512_storeu_ps(p->out + row * p->out_bytes + at * 4, numbers);
    else
        _mm256_storeu_si256((__m256i *)(p->out + row * p->out_bytes + at * 2), (__m256i)_mm512_cvtneps_pbh(numbers));
}

/* Up to `rows` rows more of a square, from sums to out. */
INLINE void write_rows(const Product *p, Square *square, int64_t rows, int kind, int shape, int out_kind) {
    int64_t end = least(least(32, p->count - square->row), square->at + rows), output = square->panel * 32;
    for (; square->at < end; square->at++) {
        const char *sums = (const char *)square->sums + square->at * 128;
        int64_t row = square->row + square->at;
        __m512 a = numbers_of(p, sums, row, output, kind), b = numbers_of(p, sums + 64, row, output + 16, kind);
        if (shape == PLAIN)
            write32(p->out + row * p->out_bytes + output * (out_kind == FLOAT32 ? 4 : 2), a, b, out_kind);
        else if (shape == ADDED)
            write16(p, row, output / 2, _mm512_add_ps(a, b), out_kind, 0);
        else
            write16(p, row, output / 2, _mm512_mul_ps(silu(a), b), out_kind, kind != UINT8);
    }
}

/* One tile of the group to come: packed, or fetched where it is packed already. */
INLINE void bring_tile(const Product *p, Beside *beside, int kind) {
    int64_t step = beside->at / 2 % p->steps, panel = beside->panel + beside->at / 2 / p->steps, half = beside->at % 2;
    if (kind == UINT8) {
        const char *tile = p->weights[0] + ((panel * p->steps + step) * 2 + half) * BYTES;
        for (int i = 0; i < 16; i++) _mm_prefetch(tile + i * 64, _MM_HINT_T1);
    } else {
        const char *from = p->weights[half] + panel * p->panel_bytes + step * 64;
        __m512i lines[16];
        for (int i = 0; i < 16; i++) lines[i] = _mm512_loadu_si512(from + i * p->steps * 64);
        turn16(lines);
        for (int i = 0; i < 16; i++) _mm512_store_si512(beside->to + beside->at * BYTES + i * 64, lines[i]);
    }
    beside->at++;
}

INLINE void work_beside(const Product *p, Beside *beside, int64_t rows, int kind, int shape, int out_kind) {
    if (beside->at < beside->end) bring_tile(p, beside, kind);
    for (int64_t i = 0; i < beside->lines; i++, beside->ahead += 64) _mm_prefetch(beside->ahead, _MM_HINT_T1);
    if (beside->square.sums) write_rows(p, &beside->square, rows, kind, shape, out_kind);
}

#define MULTIPLY(sums, left, right)                                                                    \
    do {                                                                                               \
        if (kind == UINT8)                                                                             \
            _tile_dpbusd(sums, left, right);                                                           \
        else                                                                                           \
            _tile_dpbf16ps(sums, left, right);                                                         \
    } while (0)

/* Sums 0-3, 32 rows by 32 outputs, grow by some steps. The weights come by once: they shall not push the rows out of
   the first-level cache. */
INLINE void add_steps(const Product *p, const char *rows, const char *weights, int64_t steps, Beside *beside, int kind,
                      int shape, int out_kind) {
    int64_t written = parts_of(32, steps);
    for (int64_t step = 0; step < steps; step++, weights += 2 * BYTES) {
        _tile_stream_loadd(6, weights, 64);
        for (int64_t term = 0; term < terms_of(kind); term++, rows += 2 * BYTES) {
            _tile_loadd(4, rows, 64);
            MULTIPLY(0, 4, 6);
            if (term == 0) _tile_stream_loadd(7, weights + BYTES, 64);
            MULTIPLY(1, 4, 7);
            _tile_loadd(5, rows + BYTES, 64);
            MULTIPLY(2, 5, 6);
            MULTIPLY(3, 5, 7);
        }
        work_beside(p, beside, written, kind, shape, out_kind);
    }
}

/* 32 rows from `row` on by the panels [begin, end), whose packed weights are given. */
INLINE void add_panels(const Product *p, int64_t row, int64_t begin, int64_t end, const char *weights, float *sums,
                       Beside *beside, int kind, int shape, int out_kind) {
    int64_t terms = terms_of(kind), most = STEPS / terms, last = (parts_of(p->steps, most) - 1) * most;
    for (int64_t from = 0; from <= last; from += most) {
        int64_t steps = least(most, p->steps - from), bytes = steps * terms * 2 * BYTES;
        const char *rows = p->rows + (row / 32 * p->steps + from) * terms * 2 * BYTES;
        beside->ahead = rows + bytes;
        beside->lines = parts_of(bytes / 64, (end - begin) * steps);
        for (int64_t panel = begin; panel < end; panel++) {
            /* The square before is written out while this one is summed up, before this one is stored. */
            float *square = sums + (last ? panel - begin : 0) * 1024;
            from ? load_sums(square, 32) : clear_sums();
            add_steps(p, rows, weights + ((panel - begin) * p->steps + from) * 2 * BYTES, steps, beside, kind, shape,
                      out_kind);
            store_sums(square, 32);
            beside->square = (Square){from == last ? square : NULL, row, panel, 0};
        }
    }
}

/* Rows [top, bottom) by the panels [first, last). */
INLINE void add_all(const Product *p, int64_t top, int64_t bottom, int64_t first, int64_t last, int kind, int shape,
                    int out_kind) {
    int64_t panel_bytes = p->steps * 2 * BYTES, groups = parts_of((last - first) * panel_bytes, GROUP);
    int64_t group = parts_of(last - first, groups);
    char *room = aligned_alloc(64, 2 * group * panel_bytes * (kind != UINT8) + group * 4096);
    float *sums = (float *)room;
    char *packed[2] = {room + group * 4096, room + group * (4096 + panel_bytes)};
    Beside beside = {.panel = first, .end = 2 * p->steps * least(group, last - first), .to = packed[0]};
    set_up_tiles();
    for (int64_t begin = first, turn = 0; begin < last; begin += group, turn = !turn) {
        int64_t end = least(last, begin + group);
        const char *weights = kind == UINT8 ? p->weights[0] + begin * panel_bytes : packed[turn];
        while (kind != UINT8 && beside.at < beside.end) bring_tile(p, &beside, kind);
        beside.panel = end, beside.at = 0, beside.end = 2 * p->steps * least(group, last - end);
        beside.to = packed[!turn];
        for (int64_t row = top; row < bottom; row += 32)
            add_panels(p, row, begin, end, weights, sums, &beside, kind, shape, out_kind);
    }
    if (beside.square.sums) write_rows(p, &beside.square, 32, kind, shape, out_kind);
    _tile_release();
    _mm_sfence(); /* lines that went past the caches are there before this thread says so */
    free(room);
}

#define FOR(KIND, SHAPE, OUT)                                                       \
    if (kind == KIND && shape == SHAPE && out_kind == OUT)                          \
    add_all(p, top, bottom, first, last, KIND, SHAPE, OUT)

/* The formats as constants, so that each becomes a loop of its own. */
static void add_in_format(const Product *p, int64_t top, int64_t bottom, int64_t first, int64_t last, int kind,
                          int shape, int out_kind) {
    FOR(FLOAT32, PLAIN, FLOAT32);
    FOR(FLOAT32, GATED, FLOAT32);
    FOR(BFLOAT16, PLAIN, BFLOAT16);
    FOR(BFLOAT16, GATED, BFLOAT16);
    FOR(UINT8, PLAIN, BFLOAT16);
    FOR(UINT8, GATED, BFLOAT16);
    FOR(UINT8, ADDED, BFLOAT16);
}

/* rows: packed, `count` of them, of `steps` steps; left and right: the weights of the first panel's tiles,
   `panel_bytes` apart from panel to panel; row_scales (count), out_scales and middles (32 * panels) for UINT8;
   out (count, 32 * panels, or half of it) with a row stride in bytes, or packed in that many steps. */
void rerankd_product(const void *rows, int64_t count, int64_t steps, int kind, const void *left, const void *right,
                     int64_t panel_bytes, int64_t panels, int shape, const float *row_scales, const float *out_scales,
                     const int32_t *middles, void *out, int64_t out_bytes, int out_kind, int threads) {
    Product product = {rows, count, steps, {left, right}, panel_bytes, row_scales, out_scales, middles, out, out_bytes};
    int64_t across = least(threads, parts_of(panels, FEWEST)), down = threads / across;
    int64_t wide = parts_of(panels, across), high = parts_of(parts_of(count, 32), down) * 32;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t part = 0; part < across * down; part++) {
        int64_t first = part % across * wide, top = part / across * high;
        int64_t last = least(panels, first + wide), bottom = least(count, top + high);
        if (first < last && top < bottom)
            add_in_format(&product, top, bottom, first, last, kind, shape, out_kind);
    }
}

#else

void rerankd_product(void) {}

#endif
