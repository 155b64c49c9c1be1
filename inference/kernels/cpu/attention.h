/* Attention over pages of 16 tokens, laid out as rope.h says: a block of pages at a time, whose keys, values
 * and scores stay in the first cache while the next block is fetched. What a row has summed so far is scaled
 * whenever a larger score comes (Dao et al., "FlashAttention", 2022). Blocks begin at the same positions for
 * every row, so that its result does not depend on the rows beside it.
 */
#ifndef ATTENTION_H
#define ATTENTION_H
#include "attention_tiles.h"
#include "attention_vectors.h"
#include "ops.h"
#include "pass.h"
#include "vector.h"

#define SPAN_ROWS 32 /* query rows of a pass: those of a few tokens */

/* All query rows of `span` tokens of one sequence, from `first` of the batch on, against one kv head. */
INLINE void attend(const int dtype, const int tiles, const op_t *op, const batch_t *b, int s, int g,
                   int first, int span) {
    int H = op->heads, G = op->kv_heads, D = op->head_dim, share = H / G, R = span * share;
    int full = (R + TILE - 1) / TILE * TILE; /* a tile is written whole */
    const int32_t *table = b->table + (long)s * b->table_stride;
    int pages = b->positions[first + span - 1] / PAGE + 1;
    long page_bytes = (long)G * PAGE * D * (dtype == F32 ? 4 : 2), head = page_bytes / G * g;
    pass_t p = {.R = R, .D = D, .page_bytes = page_bytes};
    p.keys = (const char *)op->k_cache + head;
    p.values = (const char *)op->v_cache + head;
    p.S = thread_scratch(SCORE_SCRATCH, full * (sizeof(float) * (BLOCK_WIDTH + D + 1) + sizeof(softmax_t)));
    p.O = p.S + full * BLOCK_WIDTH;
    p.scale = p.O + full * D;
    p.rows = (softmax_t *)(p.scale + full);
    p.q = thread_scratch(QUERY_SCRATCH, (size_t)full * D * sizeof(float));
    for (int r = 0; r < R; r++) {
        long row = (long)(first + r / share) * (H + 2 * G) + g * share + r % share;
        const float *x = (const float *)op->x + row * D;
        float scale = LOG2E / sqrtf((float)D);
        if (tiles) store_query_row(p.q, D, r, x, scale);
        else store_query(dtype, p.q, D, R, r, x, scale);
        p.rows[r] = (softmax_t){-INFINITY, {0}};
    }
    memset(p.O, 0, sizeof(float) * full * D);
    for (int from = 0; from < pages; from += BLOCK_PAGES) {
        int left = pages - from;
        p.pages = table + from;
        p.count = left < BLOCK_PAGES ? left : BLOCK_PAGES;
        for (int j = 0; j < p.count; j++) p.next[j] = p.pages[BLOCK_PAGES + j < left ? BLOCK_PAGES + j : 0];
        if (tiles) block_scores_in_tiles(&p);
        else block_scores(dtype, &p);
        for (int r = 0; r < R; r++) {
            const int narrow = dtype != F32 && HAVE_BF16_DOT; /* else probabilities stay f32, where they are */
            long limit = b->positions[first + r / share] + 1 - (long)from * PAGE;
            float *s_r = p.S + r * BLOCK_WIDTH;
            p.scale[r] = p.count == BLOCK_PAGES ? soften(narrow, s_r, limit, BLOCK_WIDTH, p.rows + r)
                                                : soften(narrow, s_r, limit, p.count * PAGE, p.rows + r);
        }
        if (tiles) block_values_in_tiles(&p);
        else block_values(dtype, &p);
    }
    for (int r = 0; r < R; r++) {
        float *y = (float *)op->y + ((long)(first + r / share) * H + g * share + r % share) * D;
        float inverse = 1.0f / sum(p.rows[r].total);
        for (int d = 0; d < D; d += LANES) *(vf *)(y + d) = load(p.O + r * D + d) * inverse;
    }
}

/* A copy for each form of the cache and of the products: inner loops then branch on nothing. */
#define ATTEND(NAME, DTYPE, TILES)                                                                           \
    static void NAME(const op_t *op, const batch_t *b, int s, int g, int first, int span) {                  \
        attend(DTYPE, TILES, op, b, s, g, first, span);                                                      \
    }
ATTEND(attend_f32, F32, 0)
ATTEND(attend_bf16, BF16, 0)
ATTEND(attend_bf16_in_tiles, BF16, HAVE_TILES)

static void attention(const op_t *op, const batch_t *b) {
    int G = op->kv_heads, share = op->heads / G, span = share >= SPAN_ROWS ? 1 : SPAN_ROWS / share;
    /* kv head outermost: sequences with a common prefix then find its pages still in the cache */
#pragma omp parallel for num_threads(b->threads) collapse(2) schedule(dynamic) if (b->threads > 1)
    for (int g = 0; g < G; g++)
        for (int s = 0; s < b->seqs; s++) {
            int end = b->starts[s + 1], rows = (end - b->starts[s]) * share;
            int tiles = b->tiles && op->dtype == BF16 && op->head_dim % 32 == 0 && rows >= TILE;
            if (tiles) tiles_begin(1);
            for (int t = b->starts[s]; t < end; t += span) {
                int count = end - t < span ? end - t : span;
                if (tiles) attend_bf16_in_tiles(op, b, s, g, t, count);
                else if (op->dtype == BF16) attend_bf16(op, b, s, g, t, count);
                else attend_f32(op, b, s, g, t, count);
            }
            if (tiles) tiles_end();
        }
}
#endif
