/* GEMM in AMX tiles, with its epilogue: C (rows, outputs) = A (rows, K) B^T (outputs, K).

   Formats: float32 rows times bfloat16 weights, exact in float32: a float32 value is the sum of three bfloat16 values, to
   its last bit, so three products in bfloat16, summed in float32, are the product (BF16x3). bfloat16 rows times bfloat16
   weights (TDPBF16PS). uint8 rows, zero point 128, times int8 weights (TDPBUSD).

   A comes packed (gemm_pack.h). B is taken in panels of 32 outputs: two B tiles, left and right, of 16 outputs a K tile,
   VNNI-packed: a tile row holds, for each of the 16 outputs, the next values along K:

       bfloat16:  tile row j = [ B[0][2j] B[0][2j+1] | B[1][2j] B[1][2j+1] | ... | B[15][2j] B[15][2j+1] ]
       int8:      tile row j = [ B[0][4j] ... B[0][4j+3] | ... | B[15][4j] ... B[15][4j+3] ]

   bfloat16 weights lie where they are, in the mapped file, and are packed in passing; int8 ones are packed at load.

   Blocking: a thread takes a share of the panels, a block of them at a time that the second-level cache holds
   (L2_BLOCK_BYTES), and goes over all rows with it: L1_K_TILES K tiles of 32 rows stay in the first-level cache while the
   block streams by. The accumulators are 32 x 32, in four tiles (amx_tiles.h).

   Software pipelining: the tile unit and the vector units work side by side. While accumulator block i is multiplied,
   after each K tile a piece of the side work is interleaved:

       tile unit     | K tile 0 of i      | K tile 1 of i      | K tile 2 of i      | ...
       vector units  | epilogue of i - 1, some rows a K tile; VNNI packing of the next block of B, one tile a K tile;
                     | prefetch of the next K tiles of A

   Epilogues, of a panel's left sums a and right sums b: NONE, outputs side by side; SUM, a + b; SILU_MUL, silu(a) * b,
   which comes packed as the A of the next GEMM, except for INT8, where a whole row has to be there before it is
   quantized. */

#include <string.h>

#include "amx_tiles.h"
#include "fast_exp.h"
#include "gemm_pack.h"

enum { EPILOGUE_NONE, EPILOGUE_SILU_MUL, EPILOGUE_SUM };

#define L2_BLOCK_BYTES (768 * 1024) /* of packed B that a thread works with at a time */
#define L1_K_TILES 16               /* K tiles of 32 rows of A in the first-level cache: 32 KB, in one term */
#define MIN_PANELS 8                /* of a thread, below which threads divide the rows as well */
#define PANEL_OUTPUTS 32
#define BLOCK_BYTES 4096            /* of an accumulator block, 32 x 32 of four bytes */

INLINE int64_t num_terms(int dtype) { return dtype == FLOAT32 ? FLOAT32_TERMS : 1; }

typedef struct {
    const char *rows; /* A, packed */
    int64_t tokens, k_tiles;
    const char *weights[2];                 /* of the left and the right tile of the first panel; of INT8 packed in [0] */
    int64_t panel_stride;                   /* bytes from there to the next panel; of bfloat16 weights */
    const float *row_scales, *output_scales; /* of INT8: what sums are multiplied with ... */
    const int32_t *zero_point_corrections;  /* ... after this is subtracted: 128 times the sum of an output's weights */
    char *out;
    int64_t out_stride; /* bytes from row to row; of packed rows: their K tiles */
} Gemm;

/* An accumulator block that is complete, and its first row that has not gone through the epilogue yet. */
typedef struct {
    const void *sums;
    int64_t row, panel, next_row;
} Accumulator;

/* What is done beside the tile unit. */
typedef struct {
    int64_t panel, next_tile, end_tile; /* of the next block of B: its first panel; its tiles, packed so far and in all */
    char *packed;
    const char *prefetch; /* next K tiles of A */
    int64_t prefetch_lines; /* of 64 bytes, a K tile */
    Accumulator done;
} SideWork;

/* 2^x, maximum relative error 2e-7 (fast_exp.h); NaN stays NaN. */
INLINE __m512 exp2_16(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-126.0f), _mm512_min_ps(_mm512_set1_ps(126.0f), x));
    __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 f = _mm512_sub_ps(x, n), p = _mm512_set1_ps(EXP2_POLYNOMIAL[0]);
    for (int i = 1; i < EXP2_TERMS; i++) p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(EXP2_POLYNOMIAL[i]));
    return _mm512_scalef_ps(p, n);
}

INLINE __m512 silu(__m512 x) {
    __m512 power = exp2_16(_mm512_mul_ps(x, _mm512_set1_ps(-LOG2_E)));
    return _mm512_div_ps(x, _mm512_add_ps(power, _mm512_set1_ps(1.0f)));
}

/* Sixteen sums of one row in float32: INT8 is dequantized. */
INLINE __m512 dequantize(const Gemm *gemm, const char *sums, int64_t row, int64_t output, int dtype) {
    if (dtype != INT8) return _mm512_load_ps(sums);
    __m512i shift = _mm512_loadu_si512(gemm->zero_point_corrections + output);
    __m512i whole = _mm512_sub_epi32(_mm512_load_si512(sums), shift);
    __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(gemm->output_scales + output), _mm512_set1_ps(gemm->row_scales[row]));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(whole), scale);
}

/* 64 bytes past the caches: they are read when all of the product is there, and need not be fetched now. */
INLINE void stream_line(char *out, __m512i line) {
    if ((uintptr_t)out % 64)
        _mm512_storeu_si512(out, line);
    else
        _mm512_stream_si512((void *)out, line);
}

INLINE void store_32(char *out, __m512 left, __m512 right, int out_dtype) {
    if (out_dtype == FLOAT32) {
        stream_line(out, _mm512_castps_si512(left));
        stream_line(out + 64, _mm512_castps_si512(right));
    } else
        stream_line(out, (__m512i)_mm512_cvtne2ps_pbh(right, left));
}

/* Sixteen values of a row from output `at` on, row-major or packed as the A of the next GEMM. */
INLINE void store_16(const Gemm *gemm, int64_t row, int64_t at, __m512 values, int out_dtype, int packed) {
    if (packed) {
        char *line = packed_tile_row(gemm->out, row, at / 32, gemm->out_stride, num_terms(out_dtype)) + at % 32 * 2;
        if (out_dtype == FLOAT32)
            store_bf16_terms(values, line);
        else
            _mm256_store_si256((__m256i *)line, (__m256i)_mm512_cvtneps_pbh(values));
    } else if (out_dtype == FLOAT32)
        _mm512_storeu_ps(gemm->out + row * gemm->out_stride + at * 4, values);
    else
        _mm256_storeu_si256((__m256i *)(gemm->out + row * gemm->out_stride + at * 2), (__m256i)_mm512_cvtneps_pbh(values));
}

/* The epilogue of up to `rows` more rows of a complete accumulator block. */
INLINE void run_epilogue(const Gemm *gemm, Accumulator *done, int64_t rows, int dtype, int epilogue, int out_dtype) {
    int64_t end = min64(min64(ROW_BLOCK, gemm->tokens - done->row), done->next_row + rows);
    int64_t output = done->panel * PANEL_OUTPUTS;
    for (; done->next_row < end; done->next_row++) {
        const char *sums = (const char *)done->sums + done->next_row * 128;
        int64_t row = done->row + done->next_row;
        __m512 a = dequantize(gemm, sums, row, output, dtype);
        __m512 b = dequantize(gemm, sums + 64, row, output + 16, dtype);
        if (epilogue == EPILOGUE_NONE)
            store_32(gemm->out + row * gemm->out_stride + output * (out_dtype == FLOAT32 ? 4 : 2), a, b, out_dtype);
        else if (epilogue == EPILOGUE_SUM)
            store_16(gemm, row, output / 2, _mm512_add_ps(a, b), out_dtype, 0);
        else
            store_16(gemm, row, output / 2, _mm512_mul_ps(silu(a), b), out_dtype, dtype != INT8);
    }
}

/* One tile of the next block of B: VNNI-packed, or prefetched where it is packed already. */
INLINE void pack_next_tile(const Gemm *gemm, SideWork *side, int dtype) {
    int64_t k_tile = side->next_tile / 2 % gemm->k_tiles, panel = side->panel + side->next_tile / 2 / gemm->k_tiles;
    int64_t half = side->next_tile % 2;
    if (dtype == INT8) {
        const char *tile = gemm->weights[0] + ((panel * gemm->k_tiles + k_tile) * 2 + half) * TILE_BYTES;
        for (int i = 0; i < 16; i++) _mm_prefetch(tile + i * 64, _MM_HINT_T1);
    } else {
        const char *from = gemm->weights[half] + panel * gemm->panel_stride + k_tile * 64;
        __m512i lines[16];
        for (int i = 0; i < 16; i++) lines[i] = _mm512_loadu_si512(from + i * gemm->k_tiles * 64);
        transpose_16x16(lines);
        for (int i = 0; i < 16; i++) _mm512_store_si512(side->packed + side->next_tile * TILE_BYTES + i * 64, lines[i]);
    }
    side->next_tile++;
}

INLINE void interleave_side_work(const Gemm *gemm, SideWork *side, int64_t rows, int dtype, int epilogue,
                                 int out_dtype) {
    if (side->next_tile < side->end_tile) pack_next_tile(gemm, side, dtype);
    for (int64_t i = 0; i < side->prefetch_lines; i++, side->prefetch += 64) _mm_prefetch(side->prefetch, _MM_HINT_T1);
    if (side->done.sums) run_epilogue(gemm, &side->done, rows, dtype, epilogue, out_dtype);
}

#define MULTIPLY(c, a, b)              \
    do {                               \
        if (dtype == INT8)             \
            _tile_dpbusd(c, a, b);     \
        else                           \
            _tile_dpbf16ps(c, a, b);   \
    } while (0)

/* The accumulators, 32 rows by 32 outputs, grow by some K tiles. B comes by once and shall not push A out of the
   first-level cache: it is loaded with the streaming hint. */
INLINE void multiply_k_tiles(const Gemm *gemm, const char *a, const char *b, int64_t k_tiles, SideWork *side, int dtype,
                             int epilogue, int out_dtype) {
    int64_t epilogue_rows = ceil_div(ROW_BLOCK, k_tiles);
    for (int64_t k_tile = 0; k_tile < k_tiles; k_tile++, b += 2 * TILE_BYTES) {
        _tile_stream_loadd(B_LEFT, b, 64);
        for (int64_t term = 0; term < num_terms(dtype); term++, a += 2 * TILE_BYTES) {
            _tile_loadd(A_TOP, a, 64);
            MULTIPLY(C_TOP_LEFT, A_TOP, B_LEFT);
            if (term == 0) _tile_stream_loadd(B_RIGHT, b + TILE_BYTES, 64);
            MULTIPLY(C_TOP_RIGHT, A_TOP, B_RIGHT);
            _tile_loadd(A_BOTTOM, a + TILE_BYTES, 64);
            MULTIPLY(C_BOTTOM_LEFT, A_BOTTOM, B_LEFT);
            MULTIPLY(C_BOTTOM_RIGHT, A_BOTTOM, B_RIGHT);
        }
        interleave_side_work(gemm, side, epilogue_rows, dtype, epilogue, out_dtype);
    }
}

/* 32 rows from `row` on by the panels [begin, end), whose packed weights are given. Where K is longer than L1_K_TILES,
   partial sums of every panel wait in `sums`. */
INLINE void multiply_row_block(const Gemm *gemm, int64_t row, int64_t begin, int64_t end, const char *weights,
                               float *sums, SideWork *side, int dtype, int epilogue, int out_dtype) {
    int64_t terms = num_terms(dtype), most = L1_K_TILES / terms, last = (ceil_div(gemm->k_tiles, most) - 1) * most;
    for (int64_t from = 0; from <= last; from += most) {
        int64_t k_tiles = min64(most, gemm->k_tiles - from), bytes = k_tiles * terms * 2 * TILE_BYTES;
        const char *rows = gemm->rows + (row / ROW_BLOCK * gemm->k_tiles + from) * terms * 2 * TILE_BYTES;
        side->prefetch = rows + bytes;
        side->prefetch_lines = ceil_div(bytes / 64, (end - begin) * k_tiles);
        for (int64_t panel = begin; panel < end; panel++) {
            /* The block before goes through its epilogue while this one is summed up, before this one is stored. */
            float *block = sums + (last ? panel - begin : 0) * 1024;
            from ? load_accumulators(block, 32) : zero_accumulators();
            multiply_k_tiles(gemm, rows, weights + ((panel - begin) * gemm->k_tiles + from) * 2 * TILE_BYTES, k_tiles, side,
                             dtype, epilogue, out_dtype);
            store_accumulators(block, 32);
            side->done = (Accumulator){from == last ? block : NULL, row, panel, 0};
        }
    }
}

/* Rows [top, bottom) by the panels [first, last). */
INLINE int multiply(const Gemm *gemm, int64_t top, int64_t bottom, int64_t first, int64_t last, int dtype, int epilogue,
                    int out_dtype) {
    int64_t panel_bytes = gemm->k_tiles * 2 * TILE_BYTES, blocks = ceil_div((last - first) * panel_bytes, L2_BLOCK_BYTES);
    int64_t block = ceil_div(last - first, blocks);
    /* Partial sums of a block, then two blocks of packed B by turns: one that is multiplied, one that is packed. */
    char *scratch = scratch_alloc(2 * block * panel_bytes * (dtype != INT8) + block * BLOCK_BYTES);
    if (!scratch) return KERNEL_OUT_OF_MEMORY;
    float *sums = (float *)scratch;
    char *packed[2] = {scratch + block * BLOCK_BYTES, scratch + block * (BLOCK_BYTES + panel_bytes)};
    SideWork side = {.panel = first, .end_tile = 2 * gemm->k_tiles * min64(block, last - first), .packed = packed[0]};
    configure_tiles();
    for (int64_t begin = first, turn = 0; begin < last; begin += block, turn = !turn) {
        int64_t end = min64(last, begin + block);
        const char *weights = dtype == INT8 ? gemm->weights[0] + begin * panel_bytes : packed[turn];
        while (dtype != INT8 && side.next_tile < side.end_tile) pack_next_tile(gemm, &side, dtype);
        side.panel = end, side.next_tile = 0, side.end_tile = 2 * gemm->k_tiles * min64(block, last - end);
        side.packed = packed[!turn];
        for (int64_t row = top; row < bottom; row += ROW_BLOCK)
            multiply_row_block(gemm, row, begin, end, weights, sums, &side, dtype, epilogue, out_dtype);
    }
    if (side.done.sums) run_epilogue(gemm, &side.done, ROW_BLOCK, dtype, epilogue, out_dtype);
    _tile_release();
    _mm_sfence(); /* lines that went past the caches are there before this thread says so */
    free(scratch);
    return KERNEL_OK;
}

#define FOR(DTYPE, EPILOGUE, OUT)                                            \
    if (dtype == DTYPE && epilogue == EPILOGUE && out_dtype == OUT)          \
    return multiply(gemm, top, bottom, first, last, DTYPE, EPILOGUE, OUT)

/* The formats as constants, so that each becomes a loop of its own. */
static int multiply_in_format(const Gemm *gemm, int64_t top, int64_t bottom, int64_t first, int64_t last, int dtype,
                              int epilogue, int out_dtype) {
    FOR(FLOAT32, EPILOGUE_NONE, FLOAT32);
    FOR(FLOAT32, EPILOGUE_SILU_MUL, FLOAT32);
    FOR(BFLOAT16, EPILOGUE_NONE, BFLOAT16);
    FOR(BFLOAT16, EPILOGUE_SILU_MUL, BFLOAT16);
    FOR(INT8, EPILOGUE_NONE, BFLOAT16);
    FOR(INT8, EPILOGUE_SILU_MUL, BFLOAT16);
    FOR(INT8, EPILOGUE_SUM, BFLOAT16);
    return KERNEL_UNSUPPORTED;
}

/* rows: A, packed, `tokens` of them in `k_tiles`; left and right: the weights of the first panel's tiles, `panel_stride`
   bytes apart from panel to panel; row_scales (tokens), output_scales and zero_point_corrections (32 * panels) of INT8;
   out (tokens, 32 * panels, or half of it) with a row stride in bytes, or packed in that many K tiles. */
KERNEL(gemm_packed)(const void *rows, int64_t tokens, int64_t k_tiles, int dtype, const void *left, const void *right,
                    int64_t panel_stride, int64_t panels, int epilogue, const float *row_scales,
                    const float *output_scales, const int32_t *zero_point_corrections, void *out, int64_t out_stride,
                    int out_dtype, int threads) {
    Gemm gemm = {rows, tokens, k_tiles, {left, right}, panel_stride, row_scales, output_scales, zero_point_corrections,
                 out, out_stride};
    int64_t across = min64(threads, ceil_div(panels, MIN_PANELS)), down = threads / across;
    int64_t wide = ceil_div(panels, across), high = ceil_div(ceil_div(tokens, ROW_BLOCK), down) * ROW_BLOCK;
    int status = KERNEL_OK;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t part = 0; part < across * down; part++) {
        int64_t first = part % across * wide, top = part / across * high;
        int64_t last = min64(panels, first + wide), bottom = min64(tokens, top + high);
        if (first >= last || top >= bottom) continue;
        int code = multiply_in_format(&gemm, top, bottom, first, last, dtype, epilogue, out_dtype);
        if (code != KERNEL_OK) report(&status, code);
    }
    return status;
}
