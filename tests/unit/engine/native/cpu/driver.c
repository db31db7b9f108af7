/* Calls every kernel of one instruction set without Python, beside plain loops: for sanitizers and for emulators.

   Compiled with KERNEL_ISA, and with HAS_<name of the C file> for each that the instruction set has (test_compiled.py).
   Buffers are exactly as long as the kernels may touch, and calloc and aligned_alloc can be made to fail. Exits with 77
   where the processor does not run the instruction set. */

#include <stdio.h>
#include <stdlib.h>

#include "attention.h"
#include "fast_exp.h"
#include "kernels.h"

#define SKIPPED 77
#define THREADS 3
#define EPS 1e-6f
#define CALL(name) EXPAND_KERNEL_SYMBOL(name, KERNEL_ISA)

int rerankd_cpu_supports(const char *isa);
KERNEL(add_rms_norm)(float *, const void *, int, const float *, const float *, float, void *, int, int, float *, int64_t,
                     int64_t, int);
KERNEL(qk_norm_rope)(const void *, int64_t, void *, int, const float *, int64_t, int64_t, int64_t, const float *, float,
                     const float *, const float *, int);
KERNEL(silu_and_mul)(const void *, const void *, int64_t, int, const float *, void *, int, float *, int64_t, int64_t,
                     int);
KERNEL(attention_f32)(const float *, const float *, const float *, float *, int64_t, int64_t, int64_t, const Sequence *,
                      const Block *, int64_t, const WorkItem *, int64_t, float *, int);
KERNEL(gemm)(const void *, int64_t, int64_t, const void *, int, int64_t, const float *, float *, int64_t, int);

/* Allocation that fails on demand: the linker puts these in place of the C library's (--wrap). */
static int allocations_fail;
void *__real_calloc(size_t, size_t);
void *__real_aligned_alloc(size_t, size_t);
void *__wrap_calloc(size_t n, size_t size) { return allocations_fail ? NULL : __real_calloc(n, size); }
void *__wrap_aligned_alloc(size_t to, size_t size) { return allocations_fail ? NULL : __real_aligned_alloc(to, size); }

static int failures;

static void expect(int is_right, const char *what) {
    if (is_right) return;
    failures++;
    printf("wrong: %s\n", what);
}

static float near(float found, double expected, double bound) { return fabs(found - expected) <= bound; }

/* Numbers in [-2, 2), the same on every machine. */
static uint32_t seed = 1;
static float next_number(void) {
    seed = seed * 1664525u + 1013904223u;
    return (float)(seed >> 8) / (1 << 22) - 2.0f;
}

static float *numbers(int64_t count) {
    float *values = malloc((size_t)count * sizeof *values);
    for (int64_t i = 0; i < count; i++) values[i] = next_number();
    return values;
}

static uint16_t *to_bf16(const float *values, int64_t count) {
    uint16_t *narrow = malloc((size_t)count * sizeof *narrow);
    for (int64_t i = 0; i < count; i++) narrow[i] = (uint16_t)(float_to_bits(values[i]) >> 16);
    return narrow;
}

static float from_bf16(uint16_t value) { return bits_to_float((uint32_t)value << 16); }

static void check_exp(void) {
    double small = 0, large = 0;
    for (float x = -87.0f; x <= 88.0f; x += 0.0137f) {
        double error = fabs(fast_expf(x) / exp(x) - 1.0);
        if (fabsf(x) <= 8.0f && error > small) small = error;
        if (error > large) large = error;
    }
    printf("fast_expf: %.1e within 8, %.1e in all\n", small, large);
    expect(small <= 6e-7 && large <= 6e-6, "fast_expf");
}

/* A value that was written in a format. */
static double stored(const void *out, const float *scales, int dtype, int64_t row, int64_t at) {
    if (dtype == FLOAT32) return ((const float *)out)[at];
    if (dtype == BFLOAT16) return from_bf16(((const uint16_t *)out)[at]);
    return (((const uint8_t *)out)[at] - ZERO_POINT) * (double)scales[row];
}

static double step_of(int dtype) { return dtype == FLOAT32 ? 2e-5 : dtype == BFLOAT16 ? 3e-2 : 6e-2; }
static int64_t bytes_of(int dtype) { return dtype == FLOAT32 ? 4 : dtype == BFLOAT16 ? 2 : 1; }

static void check_add_rms_norm(int64_t width, int added_dtype, int out_dtype) {
    enum { TOKENS = 5 };
    float *rows = numbers(TOKENS * width), *added = numbers(TOKENS * width), *weight = numbers(width);
    float *before = malloc((size_t)(TOKENS * width) * 4), scales[TOKENS], out_scales[TOKENS];
    memcpy(before, rows, (size_t)(TOKENS * width) * 4);
    for (int i = 0; i < TOKENS; i++) scales[i] = 0.5f + (float)i;
    uint16_t *narrow = to_bf16(added, TOKENS * width);
    void *out = malloc((size_t)(TOKENS * width * bytes_of(out_dtype)));
    int status = CALL(add_rms_norm)(rows, added_dtype == FLOAT32 ? (void *)added : narrow, added_dtype, scales, weight,
                                           EPS, out, out_dtype, 0, out_scales, TOKENS, width, THREADS);
    expect(status == KERNEL_OK, "add_rms_norm's status");
    for (int64_t r = 0; r < TOKENS; r++) {
        double squares = 0;
        for (int64_t i = 0; i < width; i++) {
            float more = added_dtype == FLOAT32 ? added[r * width + i] : from_bf16(narrow[r * width + i]);
            expect(near(rows[r * width + i], before[r * width + i] + (double)more * scales[r], 1e-5), "the residual");
            squares += (double)rows[r * width + i] * rows[r * width + i];
        }
        for (int64_t i = 0; i < width; i++) {
            double normed = rows[r * width + i] / sqrt(squares / (double)width + EPS) * weight[i];
            double found = stored(out, out_scales, out_dtype, r, r * width + i);
            expect(fabs(found - normed) <= step_of(out_dtype), "add_rms_norm");
        }
    }
    free(rows), free(added), free(weight), free(before), free(narrow), free(out);
}

static void check_qk_norm_rope(int64_t d) {
    enum { TOKENS = 3, HEADS = 2 };
    int64_t stride = HEADS * d + 5;
    float *heads = numbers(TOKENS * stride - 5), *weight = numbers(HEADS * d), *angles = numbers(TOKENS * d / 2);
    float *cosines = malloc((size_t)(TOKENS * d / 2) * 4), *sines = malloc((size_t)(TOKENS * d / 2) * 4);
    float *out = malloc((size_t)(TOKENS * HEADS * d) * 4);
    for (int64_t i = 0; i < TOKENS * d / 2; i++) cosines[i] = cosf(angles[i]), sines[i] = sinf(angles[i]);
    expect(CALL(qk_norm_rope)(heads, stride, out, FLOAT32, NULL, TOKENS, HEADS, d, weight, EPS, cosines, sines,
                                     THREADS) == KERNEL_OK, "qk_norm_rope's status");
    for (int64_t r = 0; r < TOKENS; r++)
        for (int64_t h = 0; h < HEADS; h++) {
            const float *head = heads + r * stride + h * d;
            double squares = 0;
            for (int64_t i = 0; i < d; i++) squares += (double)head[i] * head[i];
            double inverse = 1.0 / sqrt(squares / (double)d + EPS);
            for (int64_t i = 0; i < d / 2; i++) {
                double left = head[i] * inverse * weight[h * d + i], angle = angles[r * d / 2 + i];
                double right = head[i + d / 2] * inverse * weight[h * d + i + d / 2];
                const float *found = out + (r * HEADS + h) * d;
                expect(near(found[i], left * cos(angle) - right * sin(angle), 1e-4), "qk_norm_rope, left");
                expect(near(found[i + d / 2], right * cos(angle) + left * sin(angle), 1e-4), "qk_norm_rope, right");
            }
        }
    free(heads), free(weight), free(angles), free(cosines), free(sines), free(out);
}

static void check_silu_and_mul(int64_t width, int out_dtype) {
    enum { TOKENS = 4 };
    int64_t stride = 2 * width;
    float *both = numbers(TOKENS * stride), out_scales[TOKENS];
    void *out = malloc((size_t)(TOKENS * width * bytes_of(out_dtype)));
    expect(CALL(silu_and_mul)(both, both + width, stride, FLOAT32, NULL, out, out_dtype, out_scales, TOKENS, width,
                                     THREADS) == KERNEL_OK, "silu_and_mul's status");
    for (int64_t r = 0; r < TOKENS; r++)
        for (int64_t i = 0; i < width; i++) {
            double gate = both[r * stride + i], product = gate / (1.0 + exp(-gate)) * both[r * stride + width + i];
            expect(fabs(stored(out, out_scales, out_dtype, r, r * width + i) - product) <= step_of(out_dtype), "silu_and_mul");
        }
    free(both), free(out);
}

/* A prefix of 40 tokens, a tail of 33 that sees it, and 600 tokens alone, of which the last 100 are queries. */
static int attend(int64_t d, int is_checked) {
    enum { HEADS = 4, KV_HEADS = 2, GROUP = 2, TOKENS = 673, QUERIES = 173, BLOCKS = 2 + 2 + 19 };
    const Sequence sequences[] = {{0, 0, 0, 40, 0, 40}, {0, 40, 2, 33, 40, 33}, {0, 0, 4, 600, 73, 100}};
    const int64_t begins[] = {0, 40, 73}, counts[] = {40, 33, 600};
    float *queries = numbers(QUERIES * HEADS * d), *out = malloc((size_t)(QUERIES * HEADS * d) * 4);
    float *keys = numbers(TOKENS * KV_HEADS * d), *values = numbers(TOKENS * KV_HEADS * d);
    float *packed = malloc((size_t)(BLOCKS * KV_HEADS * KEY_BLOCK * d) * 4);
    Block *blocks = malloc(sizeof *blocks * BLOCKS);
    WorkItem items[32];
    int64_t block = 0, item_count = 0;
    for (int segment = 0; segment < 3; segment++)
        for (int64_t from = 0; from < counts[segment]; from += KEY_BLOCK, block++)
            for (int64_t i = 0; i < KEY_BLOCK; i++)
                blocks[block][i] = from + i < counts[segment] ? begins[segment] + from + i : -1;
    for (int64_t s = 0; s < 3; s++)
        for (int64_t row = 0; row < sequences[s].query_count * GROUP; row += QUERY_BLOCK)
            items[item_count++] = (WorkItem){s, row};
    int status = CALL(attention_f32)(queries, keys, values, out, HEADS, KV_HEADS, d, sequences, blocks, BLOCKS, items,
                                            item_count, packed, THREADS);
    for (int64_t s = 0; is_checked && s < 3; s++)
        for (int64_t q = 0; q < sequences[s].query_count; q++)
            for (int64_t head = 0; head < HEADS; head++) {
                const Sequence *sequence = sequences + s;
                int64_t tail = sequence->tail_count - sequence->query_count + q + 1, seen = sequence->prefix_count + tail;
                double weights[1024], sum = 0, result[256] = {0};
                for (int64_t k = 0; k < seen; k++) {
                    int64_t row = k < sequence->prefix_count ? k : begins[s] + k - sequence->prefix_count;
                    double score = 0;
                    for (int64_t i = 0; i < d; i++)
                        score += (double)queries[((sequence->query + q) * HEADS + head) * d + i] *
                                 keys[(row * KV_HEADS + head / GROUP) * d + i];
                    sum += weights[k] = exp(score / sqrt((double)d));
                    for (int64_t i = 0; i < d; i++)
                        result[i] += weights[k] * values[(row * KV_HEADS + head / GROUP) * d + i];
                }
                for (int64_t i = 0; i < d; i++)
                    expect(near(out[((sequence->query + q) * HEADS + head) * d + i], result[i] / sum, 1e-4), "attention_f32");
            }
    free(queries), free(out), free(keys), free(values), free(packed), free(blocks);
    return status;
}

#ifdef HAS_GEMM_AVX2

static int multiply(int64_t tokens, int64_t width, int64_t outputs, int dtype) {
    float *a = numbers(tokens * width), *b = numbers(outputs * width), *scales = numbers(outputs);
    uint16_t *narrow = to_bf16(b, outputs * width);
    uint8_t *bytes = malloc((size_t)(tokens * width));
    int8_t *whole = malloc((size_t)(outputs * width));
    for (int64_t i = 0; i < tokens * width; i++) bytes[i] = (uint8_t)(i % 3 ? (int)(a[i] * 60.0f) + 128 : 255);
    for (int64_t i = 0; i < outputs * width; i++) whole[i] = (int8_t)(i % 2 ? (int)(b[i] * 60.0f) : 127);
    int64_t stride = outputs + 3;
    float *out = malloc((size_t)(tokens * stride - 3) * 4);
    const void *weight = dtype == FLOAT32 ? (void *)b : dtype == BFLOAT16 ? (void *)narrow : whole;
    int status = CALL(gemm)(dtype == INT8 ? (void *)bytes : a, tokens, width, weight, dtype, outputs,
                                   dtype == INT8 ? scales : NULL, out, stride, THREADS);
    for (int64_t t = 0; status == KERNEL_OK && t < tokens; t++)
        for (int64_t o = 0; o < outputs; o++) {
            double sum = 0;
            for (int64_t k = 0; k < width; k++) {
                int64_t at = o * width + k;
                double left = dtype == INT8 ? bytes[t * width + k] - ZERO_POINT : a[t * width + k];
                sum += left * (dtype == INT8 ? whole[at] : dtype == BFLOAT16 ? from_bf16(narrow[at]) : b[at]);
            }
            double expected = dtype == INT8 ? sum * scales[o] : sum;
            expect(near(out[t * stride + o], expected, 1e-3 + fabs(expected) * 1e-5), "gemm");
        }
    free(a), free(b), free(scales), free(narrow), free(bytes), free(whole), free(out);
    return status;
}

static void check_gemm(void) {
    const int64_t shapes[][3] = {{1, 16, 16}, {7, 48, 48}, {97, 1040, 16}, {5, 32, 304}};
    for (int shape = 0; shape < 4; shape++)
        for (int dtype = FLOAT32; dtype <= INT8; dtype++)
            expect(multiply(shapes[shape][0], shapes[shape][1], shapes[shape][2], dtype) == KERNEL_OK, "gemm's status");
    expect(multiply(2, 24, 16, FLOAT32) == KERNEL_UNSUPPORTED, "a width that does not fit");
    allocations_fail = 1;
    expect(multiply(7, 48, 48, FLOAT32) == KERNEL_OUT_OF_MEMORY, "gemm without memory");
    allocations_fail = 0;
}

#else
static void check_gemm(void) {}
#endif

#define TEXT(name) #name
#define TEXT_OF(macro) TEXT(macro)

int main(void) {
    if (!rerankd_cpu_supports(TEXT_OF(KERNEL_ISA))) return SKIPPED;
    check_exp();
    for (int out = FLOAT32; out <= INT8; out++) {
        check_add_rms_norm(100, FLOAT32, out);
        check_add_rms_norm(1024, BFLOAT16, out);
        check_silu_and_mul(100, out);
    }
    for (int64_t d = 32; d <= 128; d *= 2) {
        check_qk_norm_rope(d);
        expect(attend(d, 1) == KERNEL_OK, "attention's status");
    }
    expect(attend(48, 0) == KERNEL_UNSUPPORTED, "a head size that does not fit");
    allocations_fail = 1;
    expect(attend(64, 0) == KERNEL_OUT_OF_MEMORY, "attention without memory");
    allocations_fail = 0;
    check_gemm();
    printf("%s: %d wrong\n", TEXT_OF(KERNEL_ISA), failures);
    return failures != 0;
}
