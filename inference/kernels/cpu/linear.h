/* y = x w^T + bias, for weights in f32, bf16, int8 and int4.
 *
 * Layouts, chosen so that no inner loop shuffles or reduces across lanes: blocks of 16 outputs, each a run of
 * 64-byte steps of sixteen 32-bit lanes, one for each output. A lane holds one f32 input, two bf16, four int8
 * (bytes in order) or eight int4 (the low nibbles of its bytes are inputs 0-3, the high ones 4-7, each stored
 * plus 8). Quantised weights carry a bf16 scale for each 64 inputs: [N/16][K/64][16].
 *
 * Integer weights meet inputs rounded to int8, one scale for each 64 of them (as llama.cpp's Q8_0 does): the
 * products are then exact byte dot products, four to sixteen times denser than float ones.
 */
#ifndef LINEAR_H
#define LINEAR_H
#include "ops.h"
#include "tiles.h"
#include "vector.h"

/* Blocks of 16 outputs that a tile of so many rows takes: what keeps its accumulators in registers (32 of
 * them with AVX-512, else 16). */
#if LANES == 16
#define WIDTH(ROWS) 4
#elif LANES == 8
#define WIDTH(ROWS) ((ROWS) == 1 ? 4 : (ROWS) == 2 ? 2 : 1)
#else
#define WIDTH(ROWS) ((ROWS) == 1 ? 2 : 1)
#endif
#define INT_WIDTH(ROWS) (LANES == 16 ? 4 : (ROWS) == 1 ? 2 : 1)
#define PANEL 4       /* blocks that a thread takes at a time */
#define FETCH 1024    /* bytes that a tile bound by memory reads ahead */
#define ROWS_OF(dtype) ((dtype) >= INT8 ? 4 : 6) /* of the largest tile */

typedef struct { /* a linear operation, as its tiles see it */
    int K, n;
    const float *bias;
    float *y;
    const float *x;       /* f32 weights, or bf16 without VDPBF16PS: [tokens][stride] */
    const operand *xb;    /* bf16 weights: [tokens][stride] */
    long stride;
    const int8_t *xq;     /* integer weights: [tokens][K] */
    const float *xscale;  /* [tokens][K / GROUP] */
    const int32_t *xsum;  /* sums of xq */
    const bf16 *scale;    /* of the weights */
} linear_t;

/* 64-byte steps of vector v of a tile whose blocks are `ws` bytes apart. */
INLINE const char *lane_of(const char *w, long ws, int v) {
    return w + v / VPB * ws + v % VPB * (long)sizeof(vf);
}

INLINE void store_row(const linear_t *l, int row, int column, vf acc) {
    float *y = l->y + (long)row * l->n + column;
    if (l->bias) acc += load(l->bias + column);
    if (column + LANES <= l->n) *(vf *)y = acc;
    else for (int i = 0; i < l->n - column; i++) y[i] = acc[i];
}

/* Tiles: M rows of x from `row`, W blocks of weights from output `column`. `ahead` is a block of the next
 * panel: while a tile of many rows computes, it is fetched, so that memory and arithmetic overlap. Without it,
 * and for one or two rows, what comes next of the tile's own blocks is fetched. */

INLINE void tile_f32(const int M, const int W, const linear_t *l, int row, const char *w, long ws, int column,
                     const char *ahead, int ahead_step) {
    const int V = W * VPB;
    vf acc[6][4 * VPB];
    UNROLL for (int m = 0; m < M; m++) UNROLL for (int v = 0; v < V; v++) acc[m][v] = (vf){0};
    const float *x = l->x + row * l->stride;
    for (int k = 0; k < l->K; k++) {
        vf wv[4 * VPB];
        if (M > 2 && ahead) __builtin_prefetch(ahead + (long)k * ahead_step, 0, 2);
        UNROLL for (int v = 0; v < V; v++) {
            const char *p = lane_of(w, ws, v) + k * 64L;
            wv[v] = load((const float *)p);
            if ((M <= 2 || !ahead) && v % VPB == 0) __builtin_prefetch(p + FETCH);
        }
        UNROLL for (int m = 0; m < M; m++) {
            float xv = x[m * l->stride + k];
            UNROLL for (int v = 0; v < V; v++) acc[m][v] += wv[v] * xv;
        }
    }
    UNROLL for (int m = 0; m < M; m++)
        UNROLL for (int v = 0; v < V; v++) store_row(l, row + m, column + v * LANES, acc[m][v]);
}

INLINE void tile_bf16(const int M, const int W, const linear_t *l, int row, const char *w, long ws, int column,
                      const char *ahead) {
    const int V = W * VPB;
    vf acc[6][4 * VPB];
    UNROLL for (int m = 0; m < M; m++) UNROLL for (int v = 0; v < V; v++) acc[m][v] = (vf){0};
    const operand *x = l->xb + row * l->stride;
    for (int k = 0; k < l->K; k += 2) {
        vu wv[4 * VPB];
        if (M > 2 && ahead) __builtin_prefetch(ahead + k * 32L, 0, 2);
        UNROLL for (int v = 0; v < V; v++) {
            const char *p = lane_of(w, ws, v) + k * 32L;
            wv[v] = load_words(p);
            if ((M <= 2 || !ahead) && v % VPB == 0) __builtin_prefetch(p + FETCH);
        }
        UNROLL for (int m = 0; m < M; m++)
            UNROLL for (int v = 0; v < V; v++) acc[m][v] = dot2(acc[m][v], x + m * l->stride + k, wv[v]);
    }
    UNROLL for (int m = 0; m < M; m++)
        UNROLL for (int v = 0; v < V; v++) store_row(l, row + m, column + v * LANES, acc[m][v]);
}

INLINE uint32_t four(const int8_t *x) { uint32_t u; memcpy(&u, x, 4); return u; }

INLINE void tile_int(const int M, const int W, const int dtype, const linear_t *l, int row, const char *w,
                     long ws, int column, const char *ahead) {
    const int V = W * VPB, steps = GROUP / (dtype == INT4 ? 8 : 4), offset = dtype == INT4 ? 8 : OFFSET;
    const int groups = l->K / GROUP;
    vf acc[4][4 * VPB];
    UNROLL for (int m = 0; m < M; m++) UNROLL for (int v = 0; v < V; v++) acc[m][v] = (vf){0};
    for (int g = 0; g < groups; g++) {
        vi part[4][4 * VPB];
        UNROLL for (int m = 0; m < M; m++) UNROLL for (int v = 0; v < V; v++) part[m][v] = (vi){0};
        const int8_t *x = l->xq + (long)row * l->K + g * GROUP;
        for (int j = 0; j < steps; j++) {
            long at = ((long)g * steps + j) * 64;
            if (M > 2 && ahead) __builtin_prefetch(ahead + at, 0, 2);
            UNROLL for (int v = 0; v < V; v++) {
                const char *p = lane_of(w, ws, v) + at;
                vu words = load_words(p);
                if ((M <= 2 || !ahead) && v % VPB == 0) __builtin_prefetch(p + FETCH);
                if (dtype == INT4) {
                    vu low = words & 0x0f0f0f0fu, high = words >> 4 & 0x0f0f0f0fu;
                    UNROLL for (int m = 0; m < M; m++) {
                        const int8_t *xm = x + (long)m * l->K + j * 8;
                        part[m][v] = dot4u(dot4u(part[m][v], low, four(xm)), high, four(xm + 4));
                    }
                } else {
                    vu signed_bytes = bytes(words);
                    UNROLL for (int m = 0; m < M; m++)
                        part[m][v] = dot4s(part[m][v], signed_bytes, four(x + (long)m * l->K + j * 4));
                }
            }
        }
        UNROLL for (int v = 0; v < V; v++) {
            int blk = column / BLOCK + v / VPB;
            vf s = load_bf16(l->scale + ((long)blk * groups + g) * BLOCK + v % VPB * LANES);
            UNROLL for (int m = 0; m < M; m++) {
                long at = (long)(row + m) * groups + g;
                vi exact = part[m][v] - offset * l->xsum[at];
                acc[m][v] += __builtin_convertvector(exact, vf) * (s * l->xscale[at]);
            }
        }
    }
    UNROLL for (int m = 0; m < M; m++)
        UNROLL for (int v = 0; v < V; v++) store_row(l, row + m, column + v * LANES, acc[m][v]);
}

/* All rows against a panel of `nb` blocks: tiles of BIG rows, then of 4, 2 and 1. */
#define ROWS(M, W, TILE)                                                                                     \
    {                                                                                                        \
        int blk = 0;                                                                                         \
        for (; blk + (W) <= nb; blk += (W)) TILE(M, W);                                                      \
        if ((W) > 1) for (; blk < nb; blk++) TILE(M, 1);                                                     \
        row += (M);                                                                                          \
    }
#define PANEL_OF(NAME, BIG, WIDE, TILE, ...)                                                                 \
    static void NAME(const linear_t *l, int tokens, const char *w, long ws, int column, int nb,              \
                     const char *next, long next_ws, ##__VA_ARGS__) {                                        \
        for (int row = 0; row < tokens;) {                                                                   \
            int left = tokens - row;                                                                         \
            const char *ahead = next ? next + (row / BIG & 3) * next_ws : NULL;                              \
            (void)ahead;                                                                                     \
            if (left >= BIG) ROWS(BIG, WIDE(BIG), TILE)                                                      \
            else if (BIG > 4 && left >= 4) ROWS(4, WIDE(4), TILE)                                            \
            else if (left >= 2) ROWS(2, WIDE(2), TILE)                                                       \
            else ROWS(1, WIDE(1), TILE)                                                                      \
        }                                                                                                    \
    }
#define AT w + blk * ws, ws, column + blk * BLOCK, ahead
#define F32_TILE(M, W) tile_f32(M, W, l, row, AT, ahead_step)
#define BF16_TILE(M, W) tile_bf16(M, W, l, row, AT)
#define INT8_TILE(M, W) tile_int(M, W, INT8, l, row, AT)
#define INT4_TILE(M, W) tile_int(M, W, INT4, l, row, AT)
PANEL_OF(panel_f32, ROWS_OF(F32), WIDTH, F32_TILE, int ahead_step)
PANEL_OF(panel_bf16, ROWS_OF(BF16), WIDTH, BF16_TILE)
PANEL_OF(panel_int8, ROWS_OF(INT8), INT_WIDTH, INT8_TILE)
PANEL_OF(panel_int4, ROWS_OF(INT4), INT_WIDTH, INT4_TILE)

/* Inputs as integer weights want them. A group that holds NaN or infinity gets NaN as its scale. */
static void quantize_rows(const float *x, int8_t *xq, float *xscale, int32_t *xsum, int tokens, int k, int K,
                          int tiles, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int m = 0; m < tokens; m++)
        for (int g = 0; g < K / GROUP; g++) {
            const float *in = x + (long)m * k + g * GROUP;
            int8_t *out = xq + (tiles ? tile_at(m, g, K / GROUP) : (long)m * K + g * GROUP);
            int count = k - g * GROUP < GROUP ? k - g * GROUP : GROUP;
            float peak = 0, poison = 0;
            for (int i = 0; i < count; i++) {
                float a = fabsf(in[i]);
                peak = a > peak ? a : peak;
                poison += in[i] * 0.0f;
            }
            float scale = peak / 127, inverse = peak > 0 && poison == 0 ? 127 / peak : 0;
            int32_t total = 0;
            for (int i = 0; i < count; i++) {
                int32_t q = (int32_t)rintf(in[i] * inverse);
                out[i] = (int8_t)q;
                total += q;
            }
            for (int i = count; i < GROUP; i++) out[i] = 0;
            xscale[(long)m * (K / GROUP) + g] = scale + poison;
            xsum[(long)m * (K / GROUP) + g] = total;
        }
}

static void operand_rows(const float *x, operand *out, int tokens, int k, int K, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int m = 0; m < tokens; m++) {
        for (int i = 0; i < k; i++) out[(long)m * K + i] = to_operand(x[(long)m * k + i]);
        for (int i = k; i < K; i++) out[(long)m * K + i] = to_operand(0);
    }
}

/* From how many rows on it pays to widen a panel of bf16 weights to f32 once, where the machine multiplies
 * only f32: a tile then loads what it would have to shift and mask again for each of its rows. */
#define WIDEN_FROM 12

static const char *widen_panel(const char *w, long ws, int nb, int K) {
    float *wide = thread_scratch(PANEL_SCRATCH, (size_t)PANEL * K * BLOCK * sizeof(float));
    for (int blk = 0; blk < nb; blk++)
        for (long k = 0; k < K; k += 2)
            for (int v = 0; v < VPB; v++) {
                vu pair = load_words(w + blk * ws + k * 32 + v * (long)sizeof(vf));
                float *out = wide + (blk * (long)K + k) * BLOCK + v * LANES;
                *(vf *)out = (vf)(pair << 16);
                *(vf *)(out + BLOCK) = (vf)(pair & 0xffff0000u);
            }
    return (const char *)wide;
}

#include "linear_tiles.h"

static void linear(const op_t *op, int tokens, const batch_t *b) {
    int dtype = op->dtype, k = op->k, K = padded_inputs(dtype, k), groups = K / GROUP;
    linear_t l = {.K = K, .n = op->n, .bias = op->bias, .y = op->y, .x = op->x, .stride = k, .scale = op->scale};
    int tiles = b->tiles && tokens >= TILES_FROM(dtype) && (dtype >= INT8 || (dtype == BF16 && k % 32 == 0));
    if (dtype >= INT8) {
        float *xscale = b->scratch;
        int32_t *xsum = (int32_t *)(xscale + (long)tokens * groups);
        int8_t *xq = (int8_t *)(xsum + (long)tokens * groups);
        quantize_rows(op->x, xq, xscale, xsum, tokens, k, K, tiles, b->threads);
        l.xq = xq; l.xscale = xscale; l.xsum = xsum;
#if HAVE_TILES
    } else if (tiles) {
        narrow_into_tiles(op->x, b->scratch, tokens, k, b->threads);
        l.xb = b->scratch;
#endif
    } else if (dtype == BF16) {
        if (HAVE_BF16_DOT || k != K) {
            operand_rows(op->x, b->scratch, tokens, k, K, b->threads);
            l.xb = b->scratch; l.x = b->scratch; l.stride = K;
        } else l.xb = op->x;
    }
    int widen = dtype == BF16 && !HAVE_BF16_DOT && tokens >= WIDEN_FROM;
    long ws = (long)K / inputs_per_step(dtype) * 64;
    int blocks = (op->n + BLOCK - 1) / BLOCK, panels = (blocks + PANEL - 1) / PANEL;
#pragma omp parallel for num_threads(b->threads) schedule(static) if (b->threads > 1)
    for (int p = 0; p < panels; p++) {
        int first = PANEL * p, nb = blocks - first < PANEL ? blocks - first : PANEL, column = first * BLOCK;
        const char *w = (const char *)op->w + first * ws, *next = w + PANEL * ws;
        /* Each tile of rows fetches one block: a few leave the others of the panel out. */
        int few = !tiles && !widen && tokens <= 2 * ROWS_OF(dtype);
        if (few) next = NULL;
#if HAVE_TILES
        if (tiles) { panel_tiles(dtype, &l, tokens, w, ws, column, nb, next); continue; }
#endif
        if (widen) panel_f32(&l, tokens, widen_panel(w, ws, nb, K), K * 64L, column, nb, next, ws, 32);
        else if (dtype == F32) panel_f32(&l, tokens, w, ws, column, nb, next, ws, 64);
        else if (dtype == BF16) panel_bf16(&l, tokens, w, ws, column, nb, next, ws);
        else if (dtype == INT8) panel_int8(&l, tokens, w, ws, column, nb, next, ws);
        else panel_int4(&l, tokens, w, ws, column, nb, next, ws);
    }
}
#endif
