/* One call runs one forward pass, described as a list of operations ("tape", recorded by backend.py).
 * Activations are f32 throughout. */
#include "attention.h"
#include "linear.h"
#include "ops.h"
#include "rope.h"
#include "rows.h"
#include "vector.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT void toolyard_run(const op_t *ops, int count, const batch_t *b) {
    int tokens = b->tokens;
    for (int i = 0; i < count; i++) {
        const op_t *op = ops + i;
        switch (op->kind) {
        case EMBED: embed(op, b); break;
        case NORM: norm(op, b, 0); break;
        case ADD_NORM: norm(op, b, 1); break;
        case LINEAR: linear(op, tokens, b); break;
        case ROPE_STORE: rope_store(op, b); break;
        case ATTENTION: attention(op, b); break;
        case SILU_MUL: silu_mul(op, b); break;
        case GATHER: gather(op, b); tokens = b->rows; break; /* what follows sees the gathered rows alone */
        }
    }
}

/* Sum of `count` floats of memory: the read bandwidth that a decode step cannot beat. */
EXPORT float toolyard_read(const float *p, long count, int threads) {
    float total = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : total) if (threads > 1)
    for (long c = 0; c < count / 16384; c++) {
        const float *q = p + c * 16384;
        vf a = {0}, d = {0}, e = {0}, f = {0};
        for (int i = 0; i < 16384; i += 4 * LANES) {
            a += load(q + i); d += load(q + i + LANES);
            e += load(q + i + 2 * LANES); f += load(q + i + 3 * LANES);
        }
        total += sum(a + d + e + f);
    }
    return total;
}

EXPORT int toolyard_tiles(void) { return tiles_allowed(); }

EXPORT int toolyard_has_openmp(void) {
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}
