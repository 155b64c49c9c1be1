/* y = x w^T + bias for many rows, in AMX tiles (see tiles.h). Included by linear.h. */
#ifndef LINEAR_TILES_H
#define LINEAR_TILES_H
#include "tiles.h"
#if HAVE_TILES

static void narrow_into_tiles(const float *x, operand *out, int tokens, int K, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int m = 0; m < tokens; m++)
        for (int k = 0; k < K; k += 32) narrow(x + (long)m * K + k, out + tile_at(m, k / 32, K / 32) / 2, 32);
}

/* Tiles 0-3 += the products of 16 M rows of x with N blocks of w, over `steps` tiles of inputs. `ahead` is
 * fetched meanwhile, as in the tiles of vectors: for few rows what comes next of w, for many the next panel. */
INLINE void multiply(const int M, const int N, const int dtype, const char *x, long xs, const char *w, long ws,
                     int steps, const char *ahead, long as) {
    for (int t = 0; t < steps; t++, x += TILE_BYTES, w += TILE_BYTES, ahead += TILE_BYTES) {
        _tile_loadd(4, x, 64);
        if (M > 1) _tile_loadd(5, x + xs, 64);
        _tile_loadd(6, w, 64);
        if (N > 1) _tile_loadd(7, w + ws, 64);
        if (ahead != w)
            for (int n = 0; n < N; n++)
                for (int i = 0; i < TILE_BYTES; i += 64) __builtin_prefetch(ahead + n * as + i, 0, 2);
        if (dtype == BF16) {
            _tile_dpbf16ps(0, 4, 6);
            if (N > 1) _tile_dpbf16ps(1, 4, 7);
            if (M > 1) _tile_dpbf16ps(2, 5, 6);
            if (M > 1 && N > 1) _tile_dpbf16ps(3, 5, 7);
        } else {
            _tile_dpbssd(0, 4, 6);
            if (N > 1) _tile_dpbssd(1, 4, 7);
            if (M > 1) _tile_dpbssd(2, 5, 6);
            if (M > 1 && N > 1) _tile_dpbssd(3, 5, 7);
        }
    }
}

INLINE void clear(const int M, const int N) {
    _tile_zero(0);
    if (N > 1) _tile_zero(1);
    if (M > 1) _tile_zero(2);
    if (M > 1 && N > 1) _tile_zero(3);
}

/* Tile 2 m + n to `out` + m * down + n * right, rows `stride` bytes apart. */
INLINE void keep(const int M, const int N, void *to, long stride, long down, long right) {
    char *out = to;
    _tile_stored(0, out, stride);
    if (N > 1) _tile_stored(1, out + right, stride);
    if (M > 1) _tile_stored(2, out + down, stride);
    if (M > 1 && N > 1) _tile_stored(3, out + down + right, stride);
}

/* 16 M rows from `row`, of which `rows` exist, against N blocks from output `column`. */
INLINE void rows_in_tiles(const int M, const int N, const int dtype, const linear_t *l, int row, int rows,
                          const char *w, long ws, int column, const char *ahead, long as) {
    _Alignas(64) float sums[4][TILE][BLOCK];
    int tiles = l->K / (dtype == BF16 ? 32 : GROUP);
    const char *x = (dtype == BF16 ? (const char *)l->xb : (const char *)l->xq) + tile_at(row, 0, tiles);
    long xs = (long)tiles * TILE_BYTES;
    if (dtype == BF16) {
        clear(M, N);
        multiply(M, N, dtype, x, xs, w, ws, tiles, ahead, as);
        if (!l->bias && rows == M * TILE && column + N * BLOCK <= l->n) {
            long stride = l->n * (long)sizeof(float);
            keep(M, N, l->y + (long)row * l->n + column, stride, TILE * stride, 64);
            return;
        }
        keep(M, N, sums, 64, 2 * TILE_BYTES, TILE_BYTES);
    } else {
        _Alignas(64) int32_t exact[4][TILE][BLOCK];
        memset(sums, 0, sizeof sums);
        for (int g = 0; g < tiles; g++) {
            long at = (long)g * TILE_BYTES;
            clear(M, N);
            multiply(M, N, dtype, x + at, xs, w + at, ws, 1, ahead + at, as);
            keep(M, N, exact, 64, 2 * TILE_BYTES, TILE_BYTES);
            for (int n = 0; n < N; n++) {
                vf s = load_bf16(l->scale + ((long)(column / BLOCK + n) * tiles + g) * BLOCK);
                for (int m = 0; m < rows; m++) {
                    float *sum = sums[2 * (m / TILE) + n][m % TILE];
                    vf part = __builtin_convertvector(*(vi *)exact[2 * (m / TILE) + n][m % TILE], vf);
                    *(vf *)sum = load(sum) + part * (s * l->xscale[(long)(row + m) * tiles + g]);
                }
            }
        }
    }
    for (int m = 0; m < rows; m++)
        for (int n = 0; n < N; n++)
            store_row(l, row + m, column + n * BLOCK, load(sums[2 * (m / TILE) + n][m % TILE]));
}

/* All rows against a panel of `nb` blocks that are `ws` bytes apart. */
INLINE void panel_in_tiles(const int dtype, const linear_t *l, int tokens, const char *w, long ws, int column,
                           int nb, const char *next, long next_ws) {
    int last = (tokens - 1) / (2 * TILE); /* of the pairs of row tiles: each fetches a pair of blocks, if it can */
    for (int row = 0; row < tokens; row += 2 * TILE) {
        int left = tokens - row, rows = left < 2 * TILE ? left : 2 * TILE;
        for (int b = 0; b < nb; b += 2) {
            const char *p = w + b * ws;
            const char *ahead = row / (2 * TILE) == (b / 2 < last ? b / 2 : last) ? next + b * next_ws : p;
#define SOME_ROWS(M, N) rows_in_tiles(M, N, dtype, l, row, rows, p, ws, column + b * BLOCK, ahead, next_ws)
            if (rows > TILE && b + 1 < nb) SOME_ROWS(2, 2);
            else if (rows > TILE) SOME_ROWS(2, 1);
            else if (b + 1 < nb) SOME_ROWS(1, 2);
            else SOME_ROWS(1, 1);
#undef SOME_ROWS
        }
    }
}

/* A panel of int4 weights as int8 ones: [K / 4][16][4]. */
static const char *unpack_panel(const char *w, long ws, int nb, int K) {
    char *wide = thread_scratch(PANEL_SCRATCH, (size_t)PANEL * K * BLOCK);
    for (int b = 0; b < nb; b++)
        for (long k = 0; k < K; k += 8) {
            __m512i nibbles = (__m512i)load_words(w + b * ws + k * 8), mask = _mm512_set1_epi8(15);
            __m512i low = _mm512_and_si512(nibbles, mask);
            __m512i high = _mm512_and_si512(_mm512_srli_epi32(nibbles, 4), mask);
            char *out = wide + ((long)b * K + k) * BLOCK;
            _mm512_storeu_si512(out, _mm512_sub_epi8(low, _mm512_set1_epi8(8)));
            _mm512_storeu_si512(out + 64, _mm512_sub_epi8(high, _mm512_set1_epi8(8)));
        }
    return wide;
}

static void panel_tiles(int dtype, const linear_t *l, int tokens, const char *w, long ws, int column, int nb,
                        const char *next) {
    tiles_begin(0);
    if (dtype == INT4) {
        const char *wide = unpack_panel(w, ws, nb, l->K);
        panel_in_tiles(INT8, l, tokens, wide, l->K * (long)BLOCK, column, nb, wide, l->K * (long)BLOCK);
    } else if (dtype == INT8) panel_in_tiles(INT8, l, tokens, w, ws, column, nb, next, ws);
    else panel_in_tiles(BF16, l, tokens, w, ws, column, nb, next, ws);
    tiles_end();
}
#endif
#endif
