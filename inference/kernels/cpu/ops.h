/* What Python hands over (see backend.py): the tape's operations, and one batch. */
#ifndef OPS_H
#define OPS_H
#include <stdint.h>

enum { F32 = 0, BF16 = 1, INT8 = 2, INT4 = 3 };
enum { EMBED, NORM, ADD_NORM, LINEAR, ROPE_STORE, ATTENTION, SILU_MUL, GATHER };
#define PAGE 16
#define GROUP 64 /* inputs that share one quantisation scale */

typedef struct {
    int32_t kind, dtype, n, k;
    int32_t heads, kv_heads, head_dim, unused;
    const void *x; /* input */
    void *y;       /* output, or updated in place */
    void *r;       /* residual, updated in place */
    const void *w, *scale, *bias;
    const float *q_norm, *k_norm;
    void *k_cache, *v_cache;
    float eps;
} op_t;

typedef struct {
    int32_t tokens, seqs, rows, table_stride, threads, tiles;
    const int32_t *ids, *positions, *slots, *starts, *table, *row_index;
    void *scratch; /* the widest linear input in another form: capacity * K * 4 bytes */
} batch_t;

/* Inputs of a row of weights, padded as its layout wants. */
static inline int padded_inputs(int dtype, int k) {
    return dtype == F32 ? k : dtype == BF16 ? (k + 1) / 2 * 2 : (k + GROUP - 1) / GROUP * GROUP;
}
/* Inputs that one 64-byte step of a block of 16 outputs holds. */
static inline int inputs_per_step(int dtype) { return 1 << dtype; }
#endif
