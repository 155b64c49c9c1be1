/* Products of a pass of attention.h, in AMX tiles of 16 query rows (see tiles.h). */
#ifndef ATTENTION_TILES_H
#define ATTENTION_TILES_H
#include "pass.h"
#include "tiles.h"
#if HAVE_TILES

INLINE void store_query_row(char *q, int D, int r, const float *x, float scale) {
    bf16 *to = (bf16 *)q + (long)r * D;
    for (int d = 0; d < D; d += LANES) narrow_vector(load(x + d) * scale, to + d);
}

/* s[16][16 n) = q . K for n pages, q [16][D]: as many at once as hide the latency of a product. */
INLINE void scores_in_tiles(const int n, const pass_t *p, const bf16 *q, int j, float *s, int fetch) {
    const char *k[4], *ahead[4];
    for (int i = 0; i < n; i++) {
        k[i] = p->keys + p->pages[j + i] * p->page_bytes;
        ahead[i] = p->keys + p->next[j + i] * p->page_bytes;
    }
    _tile_zero(0);
    if (n > 1) { _tile_zero(1); _tile_zero(2); _tile_zero(3); }
    for (int d = 0; d < p->D; d += 32) {
        long at = d * 32L;
        if (fetch)
            for (int i = 0; i < n; i++)
                for (int line = 0; line < TILE_BYTES; line += 64) __builtin_prefetch(ahead[i] + at + line);
        _tile_loadd(4, q + d, p->D * (long)sizeof(bf16));
        _tile_loadd(5, k[0] + at, 64); _tile_dpbf16ps(0, 4, 5);
        if (n > 1) {
            _tile_loadd(5, k[1] + at, 64); _tile_dpbf16ps(1, 4, 5);
            _tile_loadd(5, k[2] + at, 64); _tile_dpbf16ps(2, 4, 5);
            _tile_loadd(5, k[3] + at, 64); _tile_dpbf16ps(3, 4, 5);
        }
    }
    const long stride = BLOCK_WIDTH * sizeof(float);
    _tile_stored(0, s, stride);
    if (n > 1) {
        _tile_stored(1, s + PAGE, stride);
        _tile_stored(2, s + 2 * PAGE, stride); _tile_stored(3, s + 3 * PAGE, stride);
    }
}

INLINE void block_scores_in_tiles(const pass_t *p) {
    for (int r = 0; r < p->R; r += TILE) {
        const bf16 *q = (const bf16 *)p->q + (long)r * p->D;
        float *s = p->S + r * BLOCK_WIDTH;
        int j = 0;
        for (; j + 4 <= p->count; j += 4) scores_in_tiles(4, p, q, j, s + j * PAGE, r == 0);
        for (; j < p->count; j++) scores_in_tiles(1, p, q, j, s + j * PAGE, r == 0);
    }
}

/* o[16][16 n) += p . V for n blocks of 16 columns from `column`, o at the first of them. */
INLINE void values_in_tiles(const int n, const pass_t *p, const float *probabilities, int column, float *o,
                            int fetch) {
    const long stride = p->D * (long)sizeof(float);
    _tile_loadd(0, o, stride);
    if (n > 1) _tile_loadd(1, o + BLOCK, stride);
    if (n > 2) { _tile_loadd(2, o + 2 * BLOCK, stride); _tile_loadd(3, o + 3 * BLOCK, stride); }
    for (int j = 0; j < p->count; j++) {
        const char *v = p->values + p->pages[j] * p->page_bytes + column * 4L;
        const char *ahead = p->values + p->next[j] * p->page_bytes + column * 4L;
        if (fetch)
            for (int i = 0; i < PAGE / 2; i++)
                for (int line = 0; line < n; line++) __builtin_prefetch(ahead + i * stride + line * 64);
        _tile_loadd(6, (const bf16 *)probabilities + j * PAGE, BLOCK_WIDTH * sizeof(float));
        _tile_loadd(7, v, stride); _tile_dpbf16ps(0, 6, 7);
        if (n > 1) { _tile_loadd(7, v + 64, stride); _tile_dpbf16ps(1, 6, 7); }
        if (n > 2) {
            _tile_loadd(7, v + 128, stride); _tile_dpbf16ps(2, 6, 7);
            _tile_loadd(7, v + 192, stride); _tile_dpbf16ps(3, 6, 7);
        }
    }
    _tile_stored(0, o, stride);
    if (n > 1) _tile_stored(1, o + BLOCK, stride);
    if (n > 2) { _tile_stored(2, o + 2 * BLOCK, stride); _tile_stored(3, o + 3 * BLOCK, stride); }
}

INLINE void block_values_in_tiles(const pass_t *p) {
    for (int r = 0; r < p->R; r++)
        if (p->scale[r] != 1.0f)
            for (int d = 0; d < p->D; d += LANES) {
                float *o = p->O + r * p->D + d;
                *(vf *)o = load(o) * p->scale[r];
            }
    for (int r = 0; r < p->R; r += TILE)
        for (int c = 0; c < p->D;) {
            const float *s = p->S + r * BLOCK_WIDTH;
            float *o = p->O + r * p->D + c;
            int n = p->D - c >= 4 * BLOCK ? 4 : p->D - c >= 2 * BLOCK ? 2 : 1;
            if (n == 4) values_in_tiles(4, p, s, c, o, r == 0);
            else if (n == 2) values_in_tiles(2, p, s, c, o, r == 0);
            else values_in_tiles(1, p, s, c, o, r == 0);
            c += n * BLOCK;
        }
}
#else /* never called: nobody asks for tiles */
INLINE void store_query_row(char *q, int D, int r, const float *x, float scale) {}
INLINE void block_scores_in_tiles(const pass_t *p) {}
INLINE void block_values_in_tiles(const pass_t *p) {}
INLINE void tiles_begin(int pages) {}
INLINE void tiles_end(void) {}
#endif
#endif
