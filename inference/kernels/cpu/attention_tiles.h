/* Attention of prompts in AMX tiles (see tiles.h): what `attend` does, for 16 query rows at once. */
#ifndef ATTENTION_TILES_H
#define ATTENTION_TILES_H
#include "tiles.h"
#if HAVE_TILES

/* s[16][16 n) = q . K for n pages, q [16][D] bf16: as many at once as hide the latency of a product. */
INLINE void scores_in_tiles(const int n, const bf16 *q, int D, const char *keys, long page_bytes,
                            const int32_t *table, float *s, long ss) {
    const char *k0 = keys + table[0] * page_bytes, *k1 = keys + table[n > 1 ? 1 : 0] * page_bytes;
    const char *k2 = keys + table[n > 1 ? 2 : 0] * page_bytes, *k3 = keys + table[n > 1 ? 3 : 0] * page_bytes;
    _tile_zero(0);
    if (n > 1) { _tile_zero(1); _tile_zero(2); _tile_zero(3); }
    for (int d = 0; d < D; d += 32) {
        _tile_loadd(4, q + d, D * (long)sizeof(bf16));
        _tile_loadd(5, k0 + d * 32, 64); _tile_dpbf16ps(0, 4, 5);
        if (n > 1) {
            _tile_loadd(5, k1 + d * 32, 64); _tile_dpbf16ps(1, 4, 5);
            _tile_loadd(5, k2 + d * 32, 64); _tile_dpbf16ps(2, 4, 5);
            _tile_loadd(5, k3 + d * 32, 64); _tile_dpbf16ps(3, 4, 5);
        }
    }
    long stride = ss * (long)sizeof(float);
    _tile_stored(0, s, stride);
    if (n > 1) {
        _tile_stored(1, s + PAGE, stride); _tile_stored(2, s + 2 * PAGE, stride); _tile_stored(3, s + 3 * PAGE, stride);
    }
}

/* o[n][16][16] = p . V for n blocks of 16 columns, `values` at the first of them. */
INLINE void values_in_tiles(const int n, const bf16 *p, long ps, int D, const char *values, long page_bytes,
                            const int32_t *table, int pages, float *o) {
    _tile_zero(0);
    if (n > 1) _tile_zero(1);
    if (n > 2) { _tile_zero(2); _tile_zero(3); }
    for (int j = 0; j < pages; j++) {
        const char *v = values + table[j] * page_bytes;
        _tile_loadd(6, p + j * PAGE, ps * (long)sizeof(bf16));
        _tile_loadd(7, v, D * 4L);
        _tile_dpbf16ps(0, 6, 7);
        if (n > 1) { _tile_loadd(7, v + 64, D * 4L); _tile_dpbf16ps(1, 6, 7); }
        if (n > 2) {
            _tile_loadd(7, v + 128, D * 4L); _tile_dpbf16ps(2, 6, 7);
            _tile_loadd(7, v + 192, D * 4L); _tile_dpbf16ps(3, 6, 7);
        }
    }
    _tile_stored(0, o, 64);
    if (n > 1) _tile_stored(1, o + 256, 64);
    if (n > 2) { _tile_stored(2, o + 512, 64); _tile_stored(3, o + 768, 64); }
}

/* 16 query rows: `row` of the chunk's (token, head) pairs and those after it, up to R. */
static void attend_rows(const op_t *op, const batch_t *b, int s, int g, int first, int row, int R) {
    int H = op->heads, G = op->kv_heads, D = op->head_dim, share = H / G, rows = R - row < TILE ? R - row : TILE;
    const int32_t *table = b->table + (long)s * b->table_stride;
    const int32_t *positions = b->positions + first;
    int pages = positions[(row + rows - 1) / share] / PAGE + 1;
    long width = (long)pages * PAGE, page_bytes = (long)G * PAGE * D * 2, head = (long)g * PAGE * D * 2;
    float *S = thread_scratch(SCORE_SCRATCH, TILE * width * (sizeof(float) + sizeof(bf16)));
    bf16 *P = (bf16 *)(S + TILE * width), *q = thread_scratch(QUERY_SCRATCH, sizeof(bf16) * TILE * D);
    float scale = 1.0f / sqrtf((float)D), inv[TILE], tile[4 * TILE * BLOCK];
    for (int i = 0; i < rows; i++) {
        int t = first + (row + i) / share, h = g * share + (row + i) % share;
        const float *in = (const float *)op->x + ((long)t * (H + 2 * G) + h) * D;
        for (int d = 0; d < D; d += LANES) narrow_vector(load(in + d) * scale, q + i * D + d);
    }
    const char *keys = (const char *)op->k_cache + head;
    int j = 0;
    for (; j + 4 <= pages; j += 4) scores_in_tiles(4, q, D, keys, page_bytes, table + j, S + j * PAGE, width);
    for (; j < pages; j++) scores_in_tiles(1, q, D, keys, page_bytes, table + j, S + j * PAGE, width);
    for (int i = 0; i < rows; i++) {
        inv[i] = soften(S + i * width, positions[(row + i) / share] + 1, width);
        narrow(S + i * width, P + i * width, width);
    }
    for (int c = 0; c < D;) {
        const char *v = (const char *)op->v_cache + head + c * 4L;
        int n = D - c >= 4 * BLOCK ? 4 : D - c >= 2 * BLOCK ? 2 : 1;
        if (n == 4) values_in_tiles(4, P, width, D, v, page_bytes, table, pages, tile);
        else if (n == 2) values_in_tiles(2, P, width, D, v, page_bytes, table, pages, tile);
        else values_in_tiles(1, P, width, D, v, page_bytes, table, pages, tile);
        for (int i = 0; i < rows; i++) {
            int t = first + (row + i) / share, h = g * share + (row + i) % share;
            for (int k = 0; k < n; k++)
                *(vf *)((float *)op->y + ((long)t * H + h) * D + c + k * BLOCK) =
                    load(tile + (k * TILE + i) * BLOCK) * inv[i];
        }
        c += n * BLOCK;
    }
}
#endif
#endif
