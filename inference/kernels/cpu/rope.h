/* Rotary positions, and what goes into the cache: pages of 16 tokens.
 *
 * Layout for a page and key head. Keys: f32 [D][16], bf16 [D/2][16][2]. Values: f32 [16][D], bf16 [8][D][2]
 * (two tokens interleaved). So scores have a token in each lane, outputs a column.
 */
#ifndef ROPE_H
#define ROPE_H
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
#endif
