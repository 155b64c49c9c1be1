/* Products of a pass of attention.h, in vectors. */
#ifndef ATTENTION_VECTORS_H
#define ATTENTION_VECTORS_H
#include "pass.h"

/* Query rows of a tile of `scores`, given those left; its pages; and the vectors of columns of one of `values`:
 * what keeps the accumulators in registers, and as many of them as hide the latency of an addition. */
#define SCORE_ROWS (LANES == 16 ? 8 : LANES == 8 ? 4 : 2)
#define SCORE_SUMS (LANES == 16 ? 16 : SCORE_ROWS)
#define SCORE_PAGES(R) (SCORE_SUMS / (R) < BLOCK_PAGES ? SCORE_SUMS / (R) : BLOCK_PAGES)
#define VALUE_COLUMNS(R) (LANES == 16 || (R) < 4 ? 4 : 2)
INLINE int score_rows(int left) {
    if (left >= SCORE_ROWS) return SCORE_ROWS;
    return SCORE_ROWS > 4 && left >= 4 ? 4 : SCORE_ROWS > 2 && left >= 2 ? 2 : 1;
}

#define VECTOR ((long)sizeof(vf))
/* Operands that stand together in a lane. */
#define EACH(dtype) ((dtype) == F32 ? 1 : 2)

/* Where operand d of row r stands in a tile of so many query rows: what meets the same key stands together. */
INLINE long query_at(int dtype, int rows, int r, int d) {
    int each = EACH(dtype);
    return ((long)d / each * rows + r) * each + d % each;
}

/* s[r][16 * p ...) = q[r] . K(page p), for R query rows and P pages at once. With `fetch`, the `next` pages are
 * fetched meanwhile: pages lie scattered. */
INLINE void scores(const int R, const int P, const int dtype, const int fetch, const char *q, int D,
                   const char *const *keys, const char *const *next, float *s) {
    vf acc[8][8][VPB];
    UNROLL for (int p = 0; p < P; p++)
        UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < VPB; v++) acc[p][r][v] = (vf){0};
    long at = 0;
    for (int d = 0; d < D; d += EACH(dtype)) {
        vu kv[8][VPB];
        UNROLL for (int p = 0; p < P; p++) {
            UNROLL for (int v = 0; v < VPB; v++) kv[p][v] = held(load_words(keys[p] + at + v * VECTOR));
            if (fetch) __builtin_prefetch(next[p] + at);
        }
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int p = 0; p < P; p++)
                UNROLL for (int v = 0; v < VPB; v++)
                    if (dtype == F32) acc[p][r][v] += (vf)kv[p][v] * ((const float *)q)[r];
                    else acc[p][r][v] = dot2(acc[p][r][v], (const operand *)q + 2 * r, kv[p][v]);
        at += 64;
        q += (long)R * EACH(dtype) * OPERAND_BYTES(dtype);
    }
    UNROLL for (int p = 0; p < P; p++)
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int v = 0; v < VPB; v++)
                *(vf *)(s + r * BLOCK_WIDTH + p * PAGE + v * LANES) = acc[p][r][v];
}

/* o[r][0 .. NV * LANES) = scale[r] * o[r] + p[r] . V, over some pages; `v` and `o` are at the first column. The
 * rows of p are as far apart as those of `scores`. */
INLINE void values(const int R, const int NV, const int dtype, const int fetch, const void *p, int D,
                   const char *v, const int32_t *pages, int count, const int32_t *next, long page_bytes,
                   float *o, const float *scale) {
    const long apart = BLOCK_WIDTH * (long)sizeof(float) / OPERAND_BYTES(dtype);
    vf acc[4][4];
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int c = 0; c < NV; c++) acc[r][c] = load(o + r * D + LANES * c) * scale[r];
    for (int j = 0; j < count; j++) {
        const char *page = v + pages[j] * page_bytes, *ahead = v + next[j] * page_bytes;
        for (int i = 0; i < PAGE; i += EACH(dtype), page += 4L * D, ahead += 4L * D) {
            vu columns[4];
            UNROLL for (int c = 0; c < NV; c++) columns[c] = held(load_words(page + c * VECTOR));
            if (fetch) UNROLL for (int c = 0; c < NV; c += VPB) __builtin_prefetch(ahead + c * VECTOR);
            UNROLL for (int r = 0; r < R; r++)
                UNROLL for (int c = 0; c < NV; c++) {
                    long at = r * apart + j * PAGE + i;
                    if (dtype == F32) acc[r][c] += (vf)columns[c] * ((const float *)p)[at];
                    else acc[r][c] = dot2(acc[r][c], (const operand *)p + at, columns[c]);
                }
        }
    }
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int c = 0; c < NV; c++) *(vf *)(o + r * D + LANES * c) = acc[r][c];
}

/* Row r of R, times `scale`, to its place in the tile of rows that it belongs to. */
INLINE void store_query(const int dtype, char *q, int D, int R, int r, const float *x, float scale) {
    int n = 0, tile = 0;
    for (;; tile += n) if (r < tile + (n = score_rows(R - tile))) break;
    void *to = q + (size_t)tile * D * OPERAND_BYTES(dtype);
    for (int d = 0; d < D; d++)
        if (dtype == F32) ((float *)to)[query_at(F32, n, r - tile, d)] = x[d] * scale;
        else ((operand *)to)[query_at(BF16, n, r - tile, d)] = to_operand(x[d] * scale);
}

/* S = Q K^T over the block's pages. */
INLINE void block_scores(const int dtype, const pass_t *p) {
#define SOME(N_, P_, FETCH_)                                                                                 \
    {                                                                                                        \
        const char *keys[P_], *ahead[P_];                                                                    \
        for (int i = 0; i < P_; i++) {                                                                       \
            keys[i] = p->keys + p->pages[j + i] * p->page_bytes;                                             \
            ahead[i] = p->keys + p->next[j + i] * p->page_bytes;                                             \
        }                                                                                                    \
        const char *q = p->q + (size_t)r * p->D * OPERAND_BYTES(dtype);                                      \
        scores(N_, P_, dtype, FETCH_, q, p->D, keys, ahead, p->S + r * BLOCK_WIDTH + j * PAGE);              \
    }
#define SCORES(N_, FETCH_)                                                                                   \
    {                                                                                                        \
        int j = 0;                                                                                           \
        for (; j + SCORE_PAGES(N_) <= p->count; j += SCORE_PAGES(N_)) SOME(N_, SCORE_PAGES(N_), FETCH_);     \
        for (; j < p->count; j++) SOME(N_, 1, FETCH_);                                                       \
    }
    for (int r = 0, n; r < p->R; r += n) {
        n = score_rows(p->R - r);
        if (n == SCORE_ROWS) { if (r) SCORES(SCORE_ROWS, 0) else SCORES(SCORE_ROWS, 1) }
        else if (SCORE_ROWS > 4 && n == 4) SCORES(4, 1)
        else if (SCORE_ROWS > 2 && n == 2) SCORES(2, 1)
        else SCORES(1, 1)
    }
#undef SCORES
#undef SOME
}

/* O = scale O + P V over the block's pages. */
INLINE void block_values(const int dtype, const pass_t *p) {
#define VALUES(N_, C_, FETCH_)                                                                               \
    {                                                                                                        \
        values(N_, C_, dtype, FETCH_, p->S + r * BLOCK_WIDTH, p->D, p->values + c * 4L, p->pages, p->count,  \
               p->next, p->page_bytes, p->O + r * p->D + c, p->scale + r);                                   \
        c += (C_) * LANES;                                                                                   \
    }
#define COLUMNS(N_, FETCH_)                                                                                  \
    for (int c = 0; c < p->D;) {                                                                             \
        int left = (p->D - c) / LANES;                                                                       \
        if (left >= VALUE_COLUMNS(N_)) VALUES(N_, VALUE_COLUMNS(N_), FETCH_)                                 \
        else if (left >= 2) VALUES(N_, 2, FETCH_)                                                            \
        else VALUES(N_, 1, FETCH_)                                                                           \
    }
    for (int r = 0, n; r < p->R; r += n) {
        n = p->R - r >= 4 ? 4 : p->R - r >= 2 ? 2 : 1;
        if (n == 4) { if (r) COLUMNS(4, 0) else COLUMNS(4, 1) }
        else if (n == 2) COLUMNS(2, 1)
        else COLUMNS(1, 1)
    }
#undef COLUMNS
#undef VALUES
}
#endif
