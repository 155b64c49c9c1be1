/* What works on one token at a time: embedding, norms, activation, gathering. */
#ifndef ROWS_H
#define ROWS_H
#include "ops.h"
#include "vector.h"

static void embed(const op_t *op, const batch_t *b) { /* gathers lanes of the matrix in linear.h's layout */
    int n = op->n, dtype = op->dtype, each = inputs_per_step(dtype);
    long steps = padded_inputs(dtype, n) / each;
#pragma omp parallel for num_threads(b->threads) if (b->threads > 1)
    for (int t = 0; t < b->tokens; t++) {
        long id = b->ids[t], blk = id / BLOCK, lane = id % BLOCK;
        float *y = (float *)op->y + (long)t * n;
        const uint32_t *w = (const uint32_t *)op->w + blk * steps * BLOCK + lane;
        const bf16 *scale = (const bf16 *)op->scale + blk * (steps * each / GROUP) * BLOCK + lane;
        for (int i = 0; i < n; i++) {
            uint32_t word = w[(long)(i / each) * BLOCK];
            int j = i % each;
            if (dtype == F32) memcpy(y + i, &word, 4);
            else if (dtype == BF16) y[i] = from_bf16((bf16)(word >> 16 * j));
            else {
                int q = dtype == INT8 ? (int8_t)(word >> 8 * j) : (int)(word >> (j % 4 * 8 + j / 4 * 4) & 15) - 8;
                y[i] = q * from_bf16(scale[(long)(i / GROUP) * BLOCK]);
            }
        }
    }
}

INLINE void rms(const float *x, const float *w, float *y, int n, float eps) {
    vf acc = {0};
    int i = 0;
    float total = 0;
    for (; i + LANES <= n; i += LANES) acc += load(x + i) * load(x + i);
    for (; i < n; i++) total += x[i] * x[i];
    float scale = 1.0f / sqrtf((total + sum(acc)) / n + eps);
    for (i = 0; i < n; i++) y[i] = x[i] * scale * w[i];
}

static void norm(const op_t *op, const batch_t *b, int add) {
    int n = op->n;
#pragma omp parallel for num_threads(b->threads) if (b->threads > 1)
    for (int t = 0; t < b->tokens; t++) {
        const float *x = (const float *)op->x + (long)t * n;
        if (add) {
            float *r = (float *)op->r + (long)t * n;
            for (int i = 0; i < n; i++) r[i] += x[i];
            x = r;
        }
        rms(x, op->w, (float *)op->y + (long)t * n, n, op->eps);
    }
}

static void silu_mul(const op_t *op, const batch_t *b) {
    int n = op->n;
#pragma omp parallel for num_threads(b->threads) if (b->threads > 1)
    for (int t = 0; t < b->tokens; t++) {
        const float *g = (const float *)op->x + (long)t * 2 * n, *u = g + n;
        float *y = (float *)op->y + (long)t * n;
        int i = 0;
        for (; i + LANES <= n; i += LANES) {
            vf a = load(g + i), e = vexp(-a);
            *(vf *)(y + i) = a / (1.0f + e) * load(u + i);
        }
        for (; i < n; i++) y[i] = g[i] / (1.0f + expf(-g[i])) * u[i];
    }
}

static void gather(const op_t *op, const batch_t *b) {
    for (int i = 0; i < b->rows; i++)
        memcpy((float *)op->y + (long)i * op->n, (const float *)op->x + (long)b->row_index[i] * op->n,
               sizeof(float) * op->n);
}
#endif
