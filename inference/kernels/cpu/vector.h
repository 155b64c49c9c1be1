/* Vectors as wide as the machine's registers, conversions, exp, and the two products that matter.
 *
 * Code is GCC/Clang vector extensions, so it compiles for any ISA. LANES follows the register width: a wider
 * generic vector would be kept in memory, which costs an order of magnitude. By name are used only
 * VDPBF16PS (two bf16 products a lane) and the byte dot products (VPDPBUSD, VPMADDUBSW).
 */
#ifndef VECTOR_H
#define VECTOR_H
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__AVX__)
#include <immintrin.h>
#endif
#if defined(__AVX512BF16__) && defined(__AVX512BW__)
#define HAVE_BF16_DOT 1
#else
#define HAVE_BF16_DOT 0
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define BLOCK 16             /* outputs in a block of weights; tokens in a page */
#define VPB (BLOCK / LANES)  /* vectors in a block */

#define INLINE static inline __attribute__((always_inline))
/* Constant trip counts must be unrolled early, or the accumulator arrays never become registers. */
#define UNROLL _Pragma("GCC unroll 16")

typedef float vf __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t vu __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t bf16;

INLINE float from_bf16(bf16 h) { uint32_t u = (uint32_t)h << 16; float f; memcpy(&f, &u, 4); return f; }
INLINE bf16 to_bf16(float f) { /* round to nearest even; NaN stays NaN */
    uint32_t u; memcpy(&u, &f, 4);
    if ((u & 0x7fffffff) > 0x7f800000) return 0x7fc0;
    return (bf16)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
INLINE vf splat(float f) { return (vf){0} + f; }
INLINE vf load(const float *p) { return *(const vf *)p; }
INLINE vu load_words(const void *p) { return *(const vu *)p; }
INLINE vf load_bf16(const bf16 *p) { /* LANES of them, widened */
    typedef uint16_t vh __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
    return (vf)(__builtin_convertvector(*(const vh *)p, vu) << 16);
}
/* In a register, however often it is used: compilers like to load again instead. */
INLINE vu held(vu w) {
#if defined(__AVX512F__)
    __asm__("" : "+v"(w));
#elif defined(__AVX__)
    __asm__("" : "+x"(w));
#endif
    return w;
}
INLINE float sum(vf a) { float s = 0; for (int i = 0; i < LANES; i++) s += a[i]; return s; }

/* bf16 products. Weights (and cached keys and values) come as pairs in 32-bit lanes; what they are multiplied
 * with is kept as VDPBF16PS wants it, or in f32 where there is no such instruction. */
#if HAVE_BF16_DOT
typedef bf16 operand;
INLINE operand to_operand(float f) { return to_bf16(f); }
#else
typedef float operand;
INLINE operand to_operand(float f) { return f; }
#endif

#if HAVE_BF16_DOT
INLINE void narrow_vector(vf x, bf16 *out) { /* round to nearest even; subnormal numbers become zero */
    _mm256_storeu_si256((__m256i *)out, (__m256i)_mm512_cvtneps_pbh((__m512)x));
}
INLINE void narrow(const float *x, bf16 *out, long count) { /* a multiple of LANES */
    for (long i = 0; i < count; i += LANES) narrow_vector(load(x + i), out + i);
}
#endif

/* acc[i] += x[0] * w[i].low + x[1] * w[i].high */
INLINE vf dot2(vf acc, const operand *x, vu w) {
#if HAVE_BF16_DOT
    uint32_t pair; memcpy(&pair, x, 4);
    return (vf)_mm512_dpbf16_ps((__m512)acc, (__m512bh)_mm512_set1_epi32((int)pair), (__m512bh)w);
#else
    acc += (vf)(w << 16) * x[0];
    return acc + (vf)(w & 0xffff0000u) * x[1];
#endif
}

/* Byte products: acc[i] += sum of four w.byte * x.byte, exact in int32. `x` holds four signed bytes.
 * dot4u: bytes of w are 0..15. dot4s: signed, -127..127; with VPDPBUSD they are taken as w + 128, and the
 * caller subtracts OFFSET times the sum of x. */
#if defined(__AVX512VNNI__)
#define OFFSET 128
INLINE vi dot4u(vi acc, vu w, uint32_t x) {
    return (vi)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)w, _mm512_set1_epi32((int)x));
}
INLINE vu bytes(vu w) { return w ^ 0x80808080u; }
INLINE vi dot4s(vi acc, vu w, uint32_t x) { return dot4u(acc, w, x); }
#elif defined(__AVX2__) && !defined(__AVX512F__)
#define OFFSET 0
INLINE vi dot4u(vi acc, vu w, uint32_t x) {
#if defined(__AVXVNNI__)
    return (vi)_mm256_dpbusd_avx_epi32((__m256i)acc, (__m256i)w, _mm256_set1_epi32((int)x));
#else
    __m256i pairs = _mm256_maddubs_epi16((__m256i)w, _mm256_set1_epi32((int)x));
    return acc + (vi)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#endif
}
INLINE vu bytes(vu w) { return w; }
INLINE vi dot4s(vi acc, vu w, uint32_t x) { /* |w| * (x with the sign of w): VPMADDUBSW takes unsigned first */
    __m256i signed_x = _mm256_sign_epi8(_mm256_set1_epi32((int)x), (__m256i)w);
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8((__m256i)w), signed_x);
    return acc + (vi)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
#else
#define OFFSET 0
INLINE vi dot4s(vi acc, vu w, uint32_t x) {
    UNROLL for (int b = 0; b < 4; b++)
        acc += ((vi)(w << (24 - 8 * b)) >> 24) * (int32_t)(int8_t)(x >> (8 * b));
    return acc;
}
INLINE vu bytes(vu w) { return w; }
INLINE vi dot4u(vi acc, vu w, uint32_t x) { return dot4s(acc, w, x); }
#endif

/* The larger of each two; b where one is NaN. */
INLINE vf larger(vf a, vf b) {
#if LANES == 16
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif LANES == 8
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    vi more = a > b;
    return (vf)(((vi)a & more) | ((vi)b & ~more));
#endif
}
INLINE float largest(vf a) {
#if LANES == 16
    return _mm512_reduce_max_ps((__m512)a);
#else
    float top = a[0];
    for (int i = 1; i < LANES; i++) top = a[i] > top ? a[i] : top;
    return top;
#endif
}

/* 2^x to about 2e-7 relative, for x <= 128, where it becomes infinite; 0 below -126.5. NaN in, NaN out.
 * 2^x = 2^n 2^r with n the nearest integer; the Taylor polynomial of 2^r on [-1/2, 1/2] is good to 1e-7. */
INLINE vf vexp2(vf x) {
    x = larger(splat(-127.0f), x);
    vf shifted = x + 12582912.0f; /* 1.5 * 2^23: rounds to the nearest integer, which its low bits then are */
    vf r = x - (shifted - 12582912.0f);
    vf p = splat(1.54035304e-4f);
    p = p * r + 1.33335581e-3f; p = p * r + 9.61812911e-3f; p = p * r + 5.55041087e-2f;
    p = p * r + 2.40226507e-1f; p = p * r + 6.93147181e-1f; p = p * r + 1.0f;
    return p * (vf)(((vi)shifted + 127) << 23);
}

#define LOG2E 1.44269504088896341f
/* e^x; infinite from 88.7 on. */
INLINE vf vexp(vf x) {
    return vexp2(-larger(splat(-128.0f), x * -LOG2E));
}

static __thread struct { void *p; size_t size; } local[3];
enum { PANEL_SCRATCH, SCORE_SCRATCH, QUERY_SCRATCH };
static void *thread_scratch(int which, size_t size) { /* grows, never shrinks: one per thread and use */
    if (local[which].size < size) {
        free(local[which].p);
        if (posix_memalign(&local[which].p, 64, size)) abort();
        local[which].size = size;
    }
    return local[which].p;
}
#endif
