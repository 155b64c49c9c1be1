/* CPU kernels: one call runs one forward pass, described as a list of ops ("tape", see cpu.py).
 *
 * Layouts (chosen so that no inner loop shuffles or reduces across lanes):
 *   weights  blocks of 16 output rows. f32: [N/16][K][16]. bf16: [N/16][K/2][16][2], the operand order of
 *            VDPBF16PS. int8: [N/16][K/4][16] words of four bytes (k0 k2 k1 k3). int4: [N/16][K/8][16] words
 *            of eight nibbles (k0 k2 k4 k6, k1 k3 k5 k7). Quantised weights carry a bf16 scale for each 64
 *            inputs: [N/16][K/64][16].
 *   cache    pages of 16 tokens. K for a page and head: f32 [D][16], bf16 [D/2][16][2].
 *            V: f32 [16][D], bf16 [8][D][2] (two tokens interleaved).
 * Activations are f32 throughout. Vector code is GCC/Clang vector extensions, so it compiles for any ISA;
 * x86 with AVX512-BF16 gets the two instructions that matter (VDPBF16PS, VPERMW) by name.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__AVX512BF16__) && defined(__AVX512BW__)
#include <immintrin.h>
#define HAVE_BF16_DOT 1
#else
#define HAVE_BF16_DOT 0
#endif

#define INLINE static inline __attribute__((always_inline))
/* Constant trip counts must be unrolled early, or the accumulator arrays never become registers. */
#define UNROLL _Pragma("GCC unroll 16")
#define PAGE 16
#define GROUP 64 /* inputs that share one quantisation scale */

typedef float vf __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t vu __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t bf16;

enum { F32 = 0, BF16 = 1, INT8 = 2, INT4 = 3 };
enum { EMBED, NORM, ADD_NORM, LINEAR, ROPE_STORE, ATTENTION, SILU_MUL, GATHER };

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
    int32_t tokens, seqs, rows, table_stride, threads, unused;
    const int32_t *ids, *positions, *slots, *starts, *table, *row_index;
    void *scratch; /* bf16 copy of the widest linear input: capacity * K * 2 bytes */
} batch_t;

INLINE float from_bf16(bf16 h) { uint32_t u = (uint32_t)h << 16; float f; memcpy(&f, &u, 4); return f; }
INLINE bf16 to_bf16(float f) { /* round to nearest even; NaN stays NaN */
    uint32_t u; memcpy(&u, &f, 4);
    if ((u & 0x7fffffff) > 0x7f800000) return 0x7fc0;
    return (bf16)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
INLINE vf splat(float f) { return (vf){0} + f; }
INLINE vf load(const float *p) { return *(const vf *)p; }
INLINE float sum(vf a) { float s = 0; for (int i = 0; i < 16; i++) s += a[i]; return s; }

/* acc[i] += x0 * w[i].even + x1 * w[i].odd, where `pair` holds bf16 x0 (low) and x1 (high). */
INLINE vf dot2(vf acc, uint32_t pair, vu w) {
#if HAVE_BF16_DOT
    return (vf)_mm512_dpbf16_ps((__m512)acc, (__m512bh)_mm512_set1_epi32((int)pair), (__m512bh)w);
#else
    vf even = (vf)(w << 16), odd = (vf)(w & 0xffff0000u);
    float x0, x1; uint32_t a = pair << 16, b = pair & 0xffff0000u;
    memcpy(&x0, &a, 4); memcpy(&x1, &b, 4);
    return acc + even * x0 + odd * x1;
#endif
}
INLINE uint32_t pair_at(const bf16 *x) { uint32_t u; memcpy(&u, x, 4); return u; }

/* exp to about 2e-7 relative: Cephes' polynomial on [-ln2/2, ln2/2]. NaN in, NaN out. */
INLINE vf vexp(vf x) {
    vf low = splat(-87.0f);
    vi under = x < low;
    x = (vf)(((vi)x & ~under) | ((vi)low & under));
    vf t = x * 1.44269504088896341f;
    vf shifted = t + 12582912.0f; /* 1.5 * 2^23: rounds to the nearest integer */
    vf n = shifted - 12582912.0f;
    vf r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vf p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f; p = p * r + 8.3334519073e-3f; p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f; p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    vi e = ((vi)shifted - 0x4b400000 + 127) << 23;
    vf y = p * (vf)e;
    vi nan = x != x;
    return (vf)(((vi)y & ~(under | nan)) | ((vi)x & nan));
}

/* ---------------------------------------------------------------- linear */

#if HAVE_BF16_DOT
/* Nibble tables for VPERMW, which reads five index bits: each table is doubled, so that the fifth bit (the
 * neighbour's lowest) does not matter and no masking is needed. */
INLINE __m512i table16(const float *v) {
    bf16 t[32];
    for (int i = 0; i < 32; i++) t[i] = to_bf16(v[i & 15]);
    return _mm512_loadu_si512(t);
}
#endif

typedef struct { /* what unpacking needs; built once a call, lives in registers */
#if HAVE_BF16_DOT
    __m512i int4, low, high;
#endif
    int unused;
} tables_t;

INLINE tables_t make_tables(void) {
    tables_t t = {0};
#if HAVE_BF16_DOT
    float a[16], b[16], c[16];
    for (int i = 0; i < 16; i++) { a[i] = i - 8; b[i] = i; c[i] = 16 * (i < 8 ? i : i - 16); }
    t.int4 = table16(a); t.low = table16(b); t.high = table16(c);
#endif
    return t;
}

INLINE vu pack_pair(vf even, vf odd) { return ((vu)even >> 16) | ((vu)odd & 0xffff0000u); }

/* Eight int4 inputs of 16 rows -> four vectors of bf16 pairs (exact small integers). */
INLINE void unpack4(vu w, const tables_t *t, vu out[4]) {
#if HAVE_BF16_DOT
    __m512i v = (__m512i)w;
    out[0] = (vu)_mm512_permutexvar_epi16(v, t->int4);
    out[1] = (vu)_mm512_permutexvar_epi16(_mm512_srli_epi16(v, 4), t->int4);
    out[2] = (vu)_mm512_permutexvar_epi16(_mm512_srli_epi16(v, 8), t->int4);
    out[3] = (vu)_mm512_permutexvar_epi16(_mm512_srli_epi16(v, 12), t->int4);
#else
    for (int q = 0; q < 4; q++) {
        vi e = (vi)((w >> (4 * q)) & 15u) - 8, o = (vi)((w >> (16 + 4 * q)) & 15u) - 8;
        out[q] = pack_pair(__builtin_convertvector(e, vf), __builtin_convertvector(o, vf));
    }
#endif
}

/* Four int8 inputs of 16 rows -> two vectors of bf16 pairs. */
INLINE void unpack8(vu w, vu out[2]) {
    vi k0 = ((vi)w << 24) >> 24, k2 = ((vi)w << 16) >> 24, k1 = ((vi)w << 8) >> 24, k3 = (vi)w >> 24;
    out[0] = pack_pair(__builtin_convertvector(k0, vf), __builtin_convertvector(k1, vf));
    out[1] = pack_pair(__builtin_convertvector(k2, vf), __builtin_convertvector(k3, vf));
}

INLINE vf load_scale(const bf16 *s) {
    typedef uint16_t vh __attribute__((vector_size(32), aligned(2), may_alias));
    vh h = *(const vh *)s;
    return (vf)(__builtin_convertvector(h, vu) << 16);
}

INLINE void store_block(float *y, vf acc, const float *bias, int column, int n) {
    if (bias) acc += load(bias + column);
    if (column + 16 <= n) *(vf *)(y + column) = acc;
    else for (int i = 0; i < n - column; i++) y[column + i] = acc[i];
}

/* M rows of x times NB blocks of 16 outputs; one accumulator register each. */
INLINE void micro(const int M, const int NB, int dtype, const void *x, long xs, const char *w, long ws,
                  const bf16 *scale, long ss, int K, float *y, long ys, const float *bias, int column, int n,
                  const tables_t *t, const char *ahead) {
    vf acc[6][4];
    UNROLL for (int m = 0; m < M; m++) UNROLL for (int b = 0; b < NB; b++) acc[m][b] = (vf){0};
    if (dtype == F32) {
        const float *xf = x;
        for (int k = 0; k < K; k++) {
            vf wv[4];
            UNROLL for (int b = 0; b < NB; b++) wv[b] = load((const float *)(w + b * ws) + (long)k * 16);
            UNROLL for (int m = 0; m < M; m++) {
                float xv = xf[m * xs + k];
                UNROLL for (int b = 0; b < NB; b++) acc[m][b] += wv[b] * xv;
            }
        }
    } else if (dtype == BF16 && !scale) {
        const bf16 *xh = x;
        for (int k = 0; k < K; k += 2) {
            vu wv[4];
            if (M > 2) __builtin_prefetch(ahead + (long)k * 32, 0, 2);
            UNROLL for (int b = 0; b < NB; b++) {
                const char *p = w + b * ws + (long)k * 32;
                wv[b] = *(const vu *)p;
                if (M <= 2) __builtin_prefetch(p + 1024);
            }
            UNROLL for (int m = 0; m < M; m++) {
                uint32_t xv = pair_at(xh + m * xs + k);
                UNROLL for (int b = 0; b < NB; b++) acc[m][b] = dot2(acc[m][b], xv, wv[b]);
            }
        }
    } else {
        const bf16 *xh = x;
        for (int g = 0; g < K / GROUP; g++) {
            vf part[6][4];
            UNROLL for (int m = 0; m < M; m++) UNROLL for (int b = 0; b < NB; b++) part[m][b] = (vf){0};
            if (dtype == BF16) { /* a panel that was unpacked before: exact integers, scale still to apply */
                for (int k = g * GROUP; k < (g + 1) * GROUP; k += 2)
                    UNROLL for (int b = 0; b < NB; b++) {
                        vu wv = *(const vu *)(w + b * ws + (long)k * 32);
                        UNROLL for (int m = 0; m < M; m++)
                            part[m][b] = dot2(part[m][b], pair_at(xh + m * xs + k), wv);
                    }
            } else if (dtype == INT4) {
                for (int j = 0; j < GROUP / 8; j++)
                    UNROLL for (int b = 0; b < NB; b++) {
                        const char *p = w + b * ws + ((long)g * (GROUP / 8) + j) * 64;
                        vu u[4];
                        unpack4(*(const vu *)p, t, u);
                        __builtin_prefetch(p + 1024);
                        UNROLL for (int q = 0; q < 4; q++)
                            UNROLL for (int m = 0; m < M; m++)
                                part[m][b] = dot2(part[m][b], pair_at(xh + m * xs + g * GROUP + j * 8 + 2 * q), u[q]);
                    }
            } else {
                for (int j = 0; j < GROUP / 4; j++)
                    UNROLL for (int b = 0; b < NB; b++) {
                        const char *p = w + b * ws + ((long)g * (GROUP / 4) + j) * 64;
                        vu v = *(const vu *)p;
                        __builtin_prefetch(p + 1024);
#if HAVE_BF16_DOT
                        vu u[4] = {(vu)_mm512_permutexvar_epi16((__m512i)v, t->low),
                                   (vu)_mm512_permutexvar_epi16(_mm512_srli_epi16((__m512i)v, 4), t->high),
                                   (vu)_mm512_permutexvar_epi16(_mm512_srli_epi16((__m512i)v, 8), t->low),
                                   (vu)_mm512_permutexvar_epi16(_mm512_srli_epi16((__m512i)v, 12), t->high)};
                        UNROLL for (int q = 0; q < 4; q++)
                            UNROLL for (int m = 0; m < M; m++)
                                part[m][b] = dot2(part[m][b],
                                                  pair_at(xh + m * xs + g * GROUP + j * 4 + 2 * (q >> 1)), u[q]);
#else
                        vu u[2];
                        unpack8(v, u);
                        UNROLL for (int q = 0; q < 2; q++)
                            UNROLL for (int m = 0; m < M; m++)
                                part[m][b] = dot2(part[m][b], pair_at(xh + m * xs + g * GROUP + j * 4 + 2 * q), u[q]);
#endif
                    }
            }
            UNROLL for (int b = 0; b < NB; b++) {
                vf s = load_scale(scale + b * ss + (long)g * 16);
                UNROLL for (int m = 0; m < M; m++) acc[m][b] += part[m][b] * s;
            }
        }
    }
    UNROLL for (int m = 0; m < M; m++)
        UNROLL for (int b = 0; b < NB; b++) store_block(y + m * ys, acc[m][b], bias, column + 16 * b, n);
}

#define MICRO(M_, NB_) micro(M_, NB_, dtype, xp, xs, w, ws, scale, ss, K, yp, ys, bias, column, n, &t, ahead)

/* All rows against NB (4, or 1 at the edge) blocks of outputs. Quantised tiles hold two accumulators for
 * each output, so their tile is smaller: 32 vector registers are what there is. */
#define PANEL(NAME, DTYPE, GROUPED, BIG)                                                                      \
    static void NAME(const void *x, long xs, int xsize, const char *w, long ws, const bf16 *scale, long ss,   \
                     int K, int tokens, float *y, long ys, const float *bias, int column, int n, int nb) {    \
        const int dtype = DTYPE;                                                                              \
        tables_t t = make_tables();                                                                           \
        if (!(GROUPED)) scale = 0;                                                                            \
        int m = 0;                                                                                            \
        while (m < tokens) {                                                                                  \
            const char *xp = (const char *)x + (long)m * xs * xsize;                                          \
            float *yp = y + (long)m * ys;                                                                     \
            /* While a tile computes, it fetches a block of the next panel: memory and arithmetic overlap. */ \
            const char *ahead = w + (4 + (m / BIG & 3)) * ws;                                                 \
            int left = tokens - m;                                                                            \
            if (nb == 4) {                                                                                    \
                if (left >= BIG) { MICRO(BIG, 4); m += BIG; }                                                 \
                else if (BIG > 4 && left >= 4) { MICRO(4, 4); m += 4; }                                       \
                else if (left >= 2) { MICRO(2, 4); m += 2; }                                                  \
                else { MICRO(1, 4); m += 1; }                                                                 \
            } else if (left >= 4) { MICRO(4, 1); m += 4; }                                                    \
            else { MICRO(1, 1); m += 1; }                                                                     \
        }                                                                                                     \
    }
PANEL(panel_f32, F32, 0, 6)
PANEL(panel_bf16, BF16, 0, 6)
PANEL(panel_unpacked, BF16, 1, 4)
PANEL(panel_int8, INT8, 1, 3)
PANEL(panel_int4, INT4, 1, 3)

static __thread struct { void *p; size_t size; } local[3];
static void *thread_scratch(int which, size_t size) { /* grows, never shrinks: one per thread and use */
    if (local[which].size < size) {
        free(local[which].p);
        if (posix_memalign(&local[which].p, 64, size)) abort();
        local[which].size = size;
    }
    return local[which].p;
}

static void to_bf16_rows(const float *x, bf16 *out, int tokens, int k, int K, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int m = 0; m < tokens; m++) {
        const float *xi = x + (long)m * k;
        bf16 *o = out + (long)m * K;
        for (int i = 0; i < k; i++) o[i] = to_bf16(xi[i]);
        for (int i = k; i < K; i++) o[i] = 0;
    }
}

static void linear(const op_t *op, int tokens, const batch_t *b) {
    int dtype = op->dtype, n = op->n, k = op->k;
    int K = dtype == F32 ? k : dtype == BF16 ? (k + 1) / 2 * 2 : (k + GROUP - 1) / GROUP * GROUP;
    const void *x = op->x;
    int xsize = 4;
    if (dtype != F32) {
        to_bf16_rows(op->x, b->scratch, tokens, k, K, b->threads);
        x = b->scratch;
        xsize = 2;
    }
    long ws = dtype == F32 ? K * 64L : dtype == BF16 ? K * 32L : dtype == INT8 ? K * 16L : K * 8L;
    long ss = K / GROUP * 16L;
    int blocks = (n + 15) / 16, panels = (blocks + 3) / 4;
#pragma omp parallel for num_threads(b->threads) schedule(static) if (b->threads > 1)
    for (int p = 0; p < panels; p++) {
        int first = 4 * p, count = blocks - first < 4 ? blocks - first : 4;
        const char *w = (const char *)op->w + first * ws;
        const bf16 *scale = (const bf16 *)op->scale + first * ss;
        int dt = dtype;
        long stride = ws;
        if (dtype >= INT8 && tokens > 8) { /* many rows: unpack the panel once, not once for each tile */
            tables_t t = make_tables();
            char *u = thread_scratch(0, 4 * (size_t)K * 32);
            for (int blk = 0; blk < count; blk++) {
                const vu *src = (const vu *)(w + blk * ws);
                vu *dst = (vu *)(u + blk * K * 32L);
                if (dtype == INT4) for (int j = 0; j < K / 8; j++) unpack4(src[j], &t, dst + 4 * j);
                else for (int j = 0; j < K / 4; j++) unpack8(src[j], dst + 2 * j);
            }
            w = u; dt = BF16; stride = K * 32L;
        }
        for (int blk = 0; blk < count; blk += (count == 4 ? 4 : 1)) {
            int nb = count == 4 ? 4 : 1, column = (first + blk) * 16;
            const char *wb = w + blk * stride;
            const bf16 *sb = scale + blk * ss;
#define CALL(F) F(x, K, xsize, wb, stride, sb, ss, K, tokens, op->y, n, op->bias, column, n, nb)
            if (dtype == F32) CALL(panel_f32);
            else if (dtype == BF16) CALL(panel_bf16);
            else if (dt == BF16) CALL(panel_unpacked);
            else if (dtype == INT8) CALL(panel_int8);
            else CALL(panel_int4);
        }
    }
}

/* ---------------------------------------------------------------- embedding, norms, activation */

static void embed(const op_t *op, const batch_t *b) { /* gathers columns of the packed matrix */
    int n = op->n;
    long K = op->dtype == F32 ? n : op->dtype == BF16 ? (n + 1) / 2 * 2 : (n + GROUP - 1) / GROUP * GROUP;
#pragma omp parallel for num_threads(b->threads) if (b->threads > 1)
    for (int t = 0; t < b->tokens; t++) {
        long id = b->ids[t], blk = id / 16, lane = id % 16;
        float *y = (float *)op->y + (long)t * n;
        if (op->dtype == F32) {
            const float *w = (const float *)op->w + blk * K * 16 + lane;
            for (int i = 0; i < n; i++) y[i] = w[i * 16L];
        } else if (op->dtype == BF16) {
            const bf16 *w = (const bf16 *)op->w + blk * K * 16 + lane * 2;
            for (int i = 0; i < n; i++) y[i] = from_bf16(w[(i / 2) * 32L + (i & 1)]);
        } else {
            const bf16 *s = (const bf16 *)op->scale + blk * (K / GROUP) * 16 + lane;
            const uint32_t *w = (const uint32_t *)op->w + blk * (op->dtype == INT8 ? K * 4 : K * 2) + lane;
            for (int i = 0; i < n; i++) {
                int q;
                if (op->dtype == INT8) {
                    int j = i & 3, shift = (j & 1) * 16 + (j >> 1) * 8;
                    q = (int8_t)(w[(i / 4) * 16L] >> shift);
                } else {
                    int j = i & 7, shift = (j & 1) * 16 + (j >> 1) * 4;
                    q = (int)((w[(i / 8) * 16L] >> shift) & 15) - 8;
                }
                y[i] = q * from_bf16(s[(i / GROUP) * 16L]);
            }
        }
    }
}

INLINE void rms(const float *x, const float *w, float *y, int n, float eps) {
    vf acc = {0};
    int i = 0;
    float total = 0;
    for (; i + 16 <= n; i += 16) acc += load(x + i) * load(x + i);
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
        for (; i + 16 <= n; i += 16) {
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

/* ---------------------------------------------------------------- attention */

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

/* s[r][0..16) = q[r] . K(page), for R query rows. */
INLINE void scores(const int R, int dtype, const void *q, int D, const void *kpage, float *s, long ss) {
    vf acc[8];
    UNROLL for (int r = 0; r < R; r++) acc[r] = (vf){0};
    if (dtype == F32) {
        for (int d = 0; d < D; d++) {
            vf kv = load((const float *)kpage + d * PAGE);
            UNROLL for (int r = 0; r < R; r++) acc[r] += kv * ((const float *)q)[r * D + d];
        }
    } else {
        for (int d = 0; d < D; d += 2) {
            vu kv = *(const vu *)((const bf16 *)kpage + d * PAGE);
            UNROLL for (int r = 0; r < R; r++) acc[r] = dot2(acc[r], pair_at((const bf16 *)q + r * D + d), kv);
        }
    }
    UNROLL for (int r = 0; r < R; r++) *(vf *)(s + r * ss) = acc[r];
}

/* o[r][0..16*NV) = sum over pages of p[r] . V(page) */
INLINE void values(const int R, const int NV, int dtype, const void *p, long ps, int D, const char *v,
                   long page_bytes, const int32_t *table, int pages, float *o, long os, const float *inv) {
    vf acc[4][4];
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int c = 0; c < NV; c++) acc[r][c] = (vf){0};
    for (int j = 0; j < pages; j++) {
        const char *vp = v + table[j] * page_bytes;
        if (dtype == F32) {
            for (int i = 0; i < PAGE; i++)
                UNROLL for (int r = 0; r < R; r++) {
                    float pv = ((const float *)p)[r * ps + j * PAGE + i];
                    UNROLL for (int c = 0; c < NV; c++) acc[r][c] += load((const float *)vp + i * D + 16 * c) * pv;
                }
        } else {
            for (int i = 0; i < PAGE; i += 2)
                UNROLL for (int r = 0; r < R; r++) {
                    uint32_t pv = pair_at((const bf16 *)p + r * ps + j * PAGE + i);
                    UNROLL for (int c = 0; c < NV; c++)
                        acc[r][c] = dot2(acc[r][c], pv, *(const vu *)((const bf16 *)vp + i * D + 32 * c));
                }
        }
    }
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int c = 0; c < NV; c++) *(vf *)(o + r * os + 16 * c) = acc[r][c] * inv[r];
}

/* All query rows of up to `span` tokens of one sequence against one kv head. */
static void attend(const op_t *op, const batch_t *b, int s, int g, int first, int span) {
    int H = op->heads, G = op->kv_heads, D = op->head_dim, share = H / G, dtype = op->dtype;
    int size = dtype == F32 ? 4 : 2, R = span * share;
    const int32_t *table = b->table + (long)s * b->table_stride;
    int pages = b->positions[first + span - 1] / PAGE + 1;
    long width = (long)pages * PAGE, page_bytes = (long)G * PAGE * D * size, head = (long)g * PAGE * D * size;
    const char *K = (const char *)op->k_cache + head, *V = (const char *)op->v_cache + head;
    float *S = thread_scratch(1, sizeof(float) * R * width * 2);
    char *q = thread_scratch(2, (size_t)R * D * 4 + R * 4);
    float *inv = (float *)(q + (size_t)R * D * 4);
    float scale = 1.0f / sqrtf((float)D);
    for (int i = 0; i < span; i++)
        for (int h = 0; h < share; h++) {
            const float *src = (const float *)op->x + (long)(first + i) * (H + 2 * G) * D + (g * share + h) * D;
            int r = i * share + h;
            if (dtype == F32) for (int d = 0; d < D; d++) ((float *)q)[r * D + d] = src[d] * scale;
            else for (int d = 0; d < D; d++) ((bf16 *)q)[r * D + d] = to_bf16(src[d] * scale);
        }
    for (int r = 0; r < R;) {
        int left = R - r;
        const char *qr = q + (size_t)r * D * size;
        float *sr = S + r * width;
#define SCORES(N_) for (int j = 0; j < pages; j++) scores(N_, dtype, qr, D, K + table[j] * page_bytes, sr + j * PAGE, width); r += N_
        if (left >= 8) { SCORES(8); } else if (left >= 4) { SCORES(4); }
        else if (left >= 2) { SCORES(2); } else { SCORES(1); }
    }
    bf16 *P = (bf16 *)(S + R * width);
    for (int r = 0; r < R; r++) {
        float *sr = S + r * width;
        int limit = b->positions[first + r / share] + 1;
        for (long i = limit; i < width; i++) sr[i] = -INFINITY; /* the future, and what an older page left */
        vf top = splat(-INFINITY);
        for (long i = 0; i < width; i += 16) { vf v = load(sr + i); vi m = v > top; top = (vf)(((vi)v & m) | ((vi)top & ~m)); }
        float best = top[0];
        for (int i = 1; i < 16; i++) best = top[i] > best ? top[i] : best;
        vf total = {0};
        for (long i = 0; i < width; i += 16) { vf e = vexp(load(sr + i) - best); total += e; *(vf *)(sr + i) = e; }
        inv[r] = 1.0f / sum(total);
        if (dtype != F32) for (long i = 0; i < width; i++) P[r * width + i] = to_bf16(sr[i]);
    }
    for (int r = 0; r < R;) {
        int left = R - r, n = left >= 4 ? 4 : left >= 2 ? 2 : 1;
        const char *p = dtype == F32 ? (const char *)(S + r * width) : (const char *)(P + r * width);
        for (int c = 0; c < D;) {
            int nv = D - c >= 64 ? 4 : D - c >= 32 ? 2 : 1;
            float tile[4 * 64];
            const char *v = V + c * 4L; /* one f32 column, or one bf16 pair */
#define VALUES(N_, C_) values(N_, C_, dtype, p, width, D, v, page_bytes, table, pages, tile, 64, inv + r)
            if (n == 4) { if (nv == 4) VALUES(4, 4); else if (nv == 2) VALUES(4, 2); else VALUES(4, 1); }
            else if (n == 2) { if (nv == 4) VALUES(2, 4); else if (nv == 2) VALUES(2, 2); else VALUES(2, 1); }
            else { if (nv == 4) VALUES(1, 4); else if (nv == 2) VALUES(1, 2); else VALUES(1, 1); }
            for (int i = 0; i < n; i++) {
                int t = first + (r + i) / share, h = g * share + (r + i) % share;
                memcpy((float *)op->y + ((long)t * H + h) * D + c, tile + i * 64, sizeof(float) * 16 * nv);
            }
            c += 16 * nv;
        }
        r += n;
    }
}

static void attention(const op_t *op, const batch_t *b) {
    int G = op->kv_heads, share = op->heads / G, span = share >= 8 ? 1 : 8 / share;
    /* kv head outermost: sequences with a common prefix then find its pages still in the cache */
#pragma omp parallel for num_threads(b->threads) collapse(2) schedule(dynamic) if (b->threads > 1)
    for (int g = 0; g < G; g++)
        for (int s = 0; s < b->seqs; s++)
            for (int t = b->starts[s]; t < b->starts[s + 1]; t += span) {
                int left = b->starts[s + 1] - t;
                attend(op, b, s, g, t, left < span ? left : span);
            }
}

/* ---------------------------------------------------------------- entry */

__attribute__((visibility("default"))) void toolyard_run(const op_t *ops, int count, const batch_t *b) {
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

/* Sum of `bytes` of memory: the read bandwidth that a decode step cannot beat. */
__attribute__((visibility("default"))) float toolyard_read(const float *p, long count, int threads) {
    float total = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : total) if (threads > 1)
    for (long c = 0; c < count / 16384; c++) {
        const float *q = p + c * 16384;
        vf a = {0}, d = {0}, e = {0}, f = {0};
        for (int i = 0; i < 16384; i += 64) {
            a += load(q + i); d += load(q + i + 16); e += load(q + i + 32); f += load(q + i + 48);
        }
        total += sum(a + d + e + f);
    }
    return total;
}

__attribute__((visibility("default"))) int toolyard_has_openmp(void) {
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}
