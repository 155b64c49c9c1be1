/* What one pass over a sequence's pages works on: query rows that meet them together. */
#ifndef PASS_H
#define PASS_H
#include "ops.h"
#include "vector.h"

#define BLOCK_PAGES 8
#define BLOCK_WIDTH (BLOCK_PAGES * PAGE)
#define OPERAND_BYTES(dtype) ((dtype) == F32 ? (long)sizeof(float) : (long)sizeof(operand))

/* A row's softmax so far (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018): the
 * largest score, and sums of exp2(score - largest), one for each lane. */
typedef struct { float most; vf total; } softmax_t;

/* Scores become exp2(score - most), with `row` brought up to date; returns what the sums made so far are to be
 * multiplied with. Positions from `limit` on are the future, or an older page's. With `narrow` what is written
 * is bf16, in the first half of the scores' place. */
INLINE float soften(const int narrow, float *s, long limit, long width, softmax_t *row) {
    for (long i = limit > 0 ? limit : 0; i < width; i++) s[i] = -INFINITY;
    vf top = splat(row->most), total = {0};
    for (long i = 0; i < width; i += LANES) top = larger(load(s + i), top);
    float most = largest(top);
    for (long i = 0; i < width; i += LANES) {
        vf e = vexp2(load(s + i) - most);
        total += e;
#if HAVE_BF16_DOT
        if (narrow) narrow_vector(e, (bf16 *)s + i);
        else
#endif
        *(vf *)(s + i) = e;
    }
    float scale = most > row->most ? vexp2(splat(row->most - most))[0] : 1.0f;
    row->most = most;
    row->total = row->total * scale + total;
    return scale;
}

typedef struct {
    int R, D;                       /* query rows, columns of a head */
    const char *keys, *values;      /* of the kv head, in page 0 */
    long page_bytes;
    char *q;                        /* [R][D], in the order its reader wants */
    float *S;                       /* [R][BLOCK_WIDTH]: scores, then probabilities */
    float *O, *scale;               /* [R][D]: what is summed so far; [R]: what that is multiplied with next */
    softmax_t *rows;                /* [R] */
    const int32_t *pages;           /* of the block */
    int count;
    int32_t next[BLOCK_PAGES];      /* pages to fetch meanwhile, one for each */
} pass_t;
#endif
