/* Rotation and cache write, and attention over pages of 16 tokens.
 *
 * Cache layout for a page and key head. Keys: f32 [D][16], bf16 [D/2][16][2]. Values: f32 [16][D], bf16
 * [8][D][2] (two tokens interleaved). So scores have a token in each lane, outputs a column.
 */
#ifndef ATTENTION_H
#define ATTENTION_H
#include "ops.h"
#include "rows.h"
#include "vector.h"

INLINE void rotate(float *x, const float *cs, int D) { /* cs: D/2 cosines, then D/2 sines */
    int h = D / 2;
    for (int i = 0; i < h; i++) {
        float a = x[i], c = x[i + h];
        x[i] = a * cs[i] - c * cs[h + i];
        x[i + h] = c * cs[i] + a * cs[h + i];
    }
}

static void rope_store(const op_t *op, const batch_t *b) {
    int H = op->heads, G = op->kv_heads, D = op->head_dim;
#pragma omp parallel for num_threads(b->threads) if (b->threads > 1)
    for (int t = 0; t < b->tokens; t++) {
        float *qkv = (float *)op->y + (long)t * (H + 2 * G) * D;
        const float *cs = (const float *)op->w + (long)b->positions[t] * D;
        for (int h = 0; h < H + G; h++) {
            const float *w = h < H ? op->q_norm : op->k_norm;
            if (w) rms(qkv + h * D, w, qkv + h * D, D, op->eps);
            rotate(qkv + h * D, cs, D);
        }
        long page = b->slots[t] / PAGE, off = b->slots[t] % PAGE;
        for (int g = 0; g < G; g++) {
            const float *k = qkv + (H + g) * D, *v = qkv + (H + G + g) * D;
            long base = (page * G + g) * PAGE * D;
            if (op->dtype == F32) {
                float *kc = (float *)op->k_cache + base, *vc = (float *)op->v_cache + base;
                for (int d = 0; d < D; d++) { kc[d * PAGE + off] = k[d]; vc[off * D + d] = v[d]; }
            } else {
                bf16 *kc = (bf16 *)op->k_cache + base, *vc = (bf16 *)op->v_cache + base;
                for (int d = 0; d < D; d++) {
                    kc[(d / 2) * 2 * PAGE + off * 2 + (d & 1)] = to_bf16(k[d]);
                    vc[(off / 2) * 2 * D + d * 2 + (off & 1)] = to_bf16(v[d]);
                }
            }
        }
    }
}

/* s[r][16 * p ...) = q[r] . K(page p), for R query rows and P pages at once: as many sums as hide the latency of
 * an addition, however few rows there are. `next` are fetched meanwhile: pages lie scattered. */
INLINE void scores(const int R, const int P, int dtype, const void *q, int D, const char *const *keys,
                   const char *const *next, float *s, long ss) {
    vf acc[4][8][VPB];
    UNROLL for (int p = 0; p < P; p++)
        UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < VPB; v++) acc[p][r][v] = (vf){0};
    const int each = dtype == F32 ? 1 : 2;
    for (int d = 0; d < D; d += each)
        UNROLL for (int p = 0; p < P; p++) {
            long at = d / each * 64L;
            vu kv[VPB];
            UNROLL for (int v = 0; v < VPB; v++) kv[v] = load_words(keys[p] + at + v * (long)sizeof(vf));
            __builtin_prefetch(next[p] + at);
            UNROLL for (int r = 0; r < R; r++)
                UNROLL for (int v = 0; v < VPB; v++)
                    if (dtype == F32) acc[p][r][v] += (vf)kv[v] * ((const float *)q)[r * D + d];
                    else acc[p][r][v] = dot2(acc[p][r][v], (const operand *)q + r * D + d, kv[v]);
        }
    UNROLL for (int p = 0; p < P; p++)
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int v = 0; v < VPB; v++) *(vf *)(s + r * ss + p * PAGE + v * LANES) = acc[p][r][v];
}

/* o[r][0 .. NV * LANES) = sum over pages of p[r] . V(page), times inv[r]; `v` is at the first column. */
INLINE void values(const int R, const int NV, int dtype, const void *p, long ps, int D, const char *v,
                   long page_bytes, const int32_t *table, int pages, float *o, long os, const float *inv) {
    vf acc[4][4];
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int c = 0; c < NV; c++) acc[r][c] = (vf){0};
    for (int j = 0; j < pages; j++) {
        const char *vp = v + table[j] * page_bytes, *next = v + table[j + 1 < pages ? j + 1 : 0] * page_bytes;
        if (dtype == F32) {
            for (int i = 0; i < PAGE; i++) {
                vf columns[4];
                UNROLL for (int c = 0; c < NV; c++) columns[c] = load((const float *)vp + i * D + LANES * c);
                UNROLL for (int c = 0; c < NV; c += VPB) __builtin_prefetch((const float *)next + i * D + LANES * c);
                UNROLL for (int r = 0; r < R; r++)
                    UNROLL for (int c = 0; c < NV; c++)
                        acc[r][c] += columns[c] * ((const float *)p)[r * ps + j * PAGE + i];
            }
        } else {
            for (int i = 0; i < PAGE; i += 2) {
                vu columns[4];
                UNROLL for (int c = 0; c < NV; c++) columns[c] = load_words((const bf16 *)vp + i * D + 2 * LANES * c);
                UNROLL for (int c = 0; c < NV; c += VPB) __builtin_prefetch((const bf16 *)next + i * D + 2 * LANES * c);
                UNROLL for (int r = 0; r < R; r++)
                    UNROLL for (int c = 0; c < NV; c++)
                        acc[r][c] = dot2(acc[r][c], (const operand *)p + r * ps + j * PAGE + i, columns[c]);
            }
        }
    }
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int c = 0; c < NV; c++) *(vf *)(o + r * os + LANES * c) = acc[r][c] * inv[r];
}

/* exp(s - max) in place; returns 1 / its sum. Positions from `limit` on are the future, or an older page's. */
INLINE float soften(float *s, long limit, long width) {
    for (long i = limit; i < width; i++) s[i] = -INFINITY;
    vf top = splat(-INFINITY), total = {0};
    for (long i = 0; i < width; i += LANES) {
        vf v = load(s + i);
        vi more = v > top;
        top = (vf)(((vi)v & more) | ((vi)top & ~more));
    }
    float best = top[0];
    for (int i = 1; i < LANES; i++) best = top[i] > best ? top[i] : best;
    for (long i = 0; i < width; i += LANES) {
        vf e = vexp(load(s + i) - best);
        total += e;
        *(vf *)(s + i) = e;
    }
    return 1.0f / sum(total);
}

/* Query rows and pages that a tile of `scores` takes, and vectors of columns that one of `values` does: what
 * keeps the accumulators in registers, and those busy. */
#define SCORE_ROWS (LANES == 16 ? 8 : LANES == 8 ? 4 : 2)
#define SCORE_PAGES(R) ((R) >= SCORE_ROWS ? 1 : SCORE_ROWS / (R) < 4 ? SCORE_ROWS / (R) : 4)
#define VALUE_COLUMNS(R) (LANES == 16 || (R) < 4 ? 4 : 2)

/* All query rows of up to `span` tokens of one sequence against one kv head. */
static void attend(const op_t *op, const batch_t *b, int s, int g, int first, int span) {
    int H = op->heads, G = op->kv_heads, D = op->head_dim, share = H / G, dtype = op->dtype;
    int size = dtype == F32 ? 4 : 2, wide = dtype == F32 ? 4 : (int)sizeof(operand), R = span * share;
    const int32_t *table = b->table + (long)s * b->table_stride;
    int pages = b->positions[first + span - 1] / PAGE + 1;
    long width = (long)pages * PAGE, page_bytes = (long)G * PAGE * D * size, head = (long)g * PAGE * D * size;
    const char *K = (const char *)op->k_cache + head, *V = (const char *)op->v_cache + head;
    int convert = dtype != F32 && HAVE_BF16_DOT; /* else probabilities stay in f32, where they are */
    float *S = thread_scratch(SCORE_SCRATCH, sizeof(float) * R * width * (convert ? 2 : 1));
    char *q = thread_scratch(QUERY_SCRATCH, (size_t)R * (D + 1) * sizeof(float));
    float *inv = (float *)(q + (size_t)R * D * sizeof(float));
    float scale = 1.0f / sqrtf((float)D);
    for (int i = 0; i < span; i++)
        for (int h = 0; h < share; h++) {
            const float *src = (const float *)op->x + (long)(first + i) * (H + 2 * G) * D + (g * share + h) * D;
            int r = i * share + h;
            if (dtype == F32) for (int d = 0; d < D; d++) ((float *)q)[r * D + d] = src[d] * scale;
            else for (int d = 0; d < D; d++) ((operand *)q)[r * D + d] = to_operand(src[d] * scale);
        }
    for (int r = 0; r < R;) {
        int left = R - r;
        const char *qr = q + (size_t)r * D * wide;
        float *sr = S + r * width;
#define SCORES(N_)                                                                                           \
    {                                                                                                        \
        int j = 0;                                                                                           \
        for (; j + SCORE_PAGES(N_) <= pages; j += SCORE_PAGES(N_)) SOME(N_, SCORE_PAGES(N_));                \
        for (; j < pages; j++) SOME(N_, 1);                                                                  \
        r += N_;                                                                                             \
    }
#define SOME(N_, P_)                                                                                         \
    {                                                                                                        \
        const char *keys[P_], *next[P_];                                                                     \
        for (int p = 0; p < P_; p++) {                                                                       \
            keys[p] = K + table[j + p] * page_bytes;                                                         \
            next[p] = K + table[j + p + P_ < pages ? j + p + P_ : 0] * page_bytes;                           \
        }                                                                                                    \
        scores(N_, P_, dtype, qr, D, keys, next, sr + j * PAGE, width);                                      \
    }
        if (left >= SCORE_ROWS) SCORES(SCORE_ROWS)
        else if (SCORE_ROWS > 4 && left >= 4) SCORES(4)
        else if (SCORE_ROWS > 2 && left >= 2) SCORES(2)
        else SCORES(1)
    }
    operand *P = (operand *)(S + (convert ? R * width : 0));
    for (int r = 0; r < R; r++) {
        float *sr = S + r * width;
        inv[r] = soften(sr, b->positions[first + r / share] + 1, width);
        if (convert) for (long i = 0; i < width; i++) P[r * width + i] = to_operand(sr[i]);
    }
    for (int r = 0; r < R;) {
        int left = R - r, n = left >= 4 ? 4 : left >= 2 ? 2 : 1;
        const char *p = dtype == F32 ? (const char *)(S + r * width) : (const char *)(P + r * width);
        for (int c = 0; c < D;) {
            int vectors = (D - c) / LANES;
            int nv = vectors >= VALUE_COLUMNS(n) ? VALUE_COLUMNS(n) : vectors >= 2 ? 2 : 1;
            float tile[4 * 4 * LANES];
            const char *v = V + c * 4L; /* one f32 column, or one bf16 pair */
#define VALUES(N_, C_) values(N_, C_, dtype, p, width, D, v, page_bytes, table, pages, tile, 4 * LANES, inv + r)
            if (n == 4) { if (nv == 4) VALUES(4, 4); else if (nv == 2) VALUES(4, 2); else VALUES(4, 1); }
            else if (n == 2) { if (nv == 4) VALUES(2, 4); else if (nv == 2) VALUES(2, 2); else VALUES(2, 1); }
            else { if (nv == 4) VALUES(1, 4); else if (nv == 2) VALUES(1, 2); else VALUES(1, 1); }
            for (int i = 0; i < n; i++) {
                int t = first + (r + i) / share, h = g * share + (r + i) % share;
                memcpy((float *)op->y + ((long)t * H + h) * D + c, tile + i * 4 * LANES, sizeof(vf) * nv);
            }
            c += LANES * nv;
        }
        r += n;
    }
}

#include "attention_tiles.h"

static void attention(const op_t *op, const batch_t *b) {
    int G = op->kv_heads, share = op->heads / G, span = share >= 8 ? 1 : 8 / share;
    /* kv head outermost: sequences with a common prefix then find its pages still in the cache */
#pragma omp parallel for num_threads(b->threads) collapse(2) schedule(dynamic) if (b->threads > 1)
    for (int g = 0; g < G; g++)
        for (int s = 0; s < b->seqs; s++) {
#if HAVE_TILES
            int rows = (b->starts[s + 1] - b->starts[s]) * share;
            if (b->tiles && op->dtype == BF16 && op->head_dim % 32 == 0 && rows >= TILE) {
                tiles_begin(1);
                for (int r = 0; r < rows; r += TILE) attend_rows(op, b, s, g, b->starts[s], r, rows);
                tiles_end();
                continue;
            }
#endif
            for (int t = b->starts[s]; t < b->starts[s + 1]; t += span) {
                int left = b->starts[s + 1] - t;
                attend(op, b, s, g, t, left < span ? left : span);
            }
        }
}
#endif
