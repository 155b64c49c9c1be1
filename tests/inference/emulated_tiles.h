/* AMX tiles in plain C, for CPUs without them: what the kernels say to a tile happens, only slowly.
 * Intel, "Architecture Instruction Set Extensions", chapter 3. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static __thread struct {
    uint16_t bytes[16];
    uint8_t rows[16];
    unsigned char tile[8][16][64];
} amx;

static inline void emulated_config(const void *config) {
    memcpy(amx.bytes, (const char *)config + 16, sizeof amx.bytes);
    memcpy(amx.rows, (const char *)config + 48, sizeof amx.rows);
    memset(amx.tile, 0, sizeof amx.tile);
}
static inline void emulated_zero(int t) { memset(amx.tile[t], 0, sizeof amx.tile[t]); }
static inline void emulated_load(int t, const void *from, long stride) {
    emulated_zero(t);
    for (int r = 0; r < amx.rows[t]; r++) memcpy(amx.tile[t][r], (const char *)from + r * stride, amx.bytes[t]);
}
static inline void emulated_store(int t, void *to, long stride) {
    for (int r = 0; r < amx.rows[t]; r++) memcpy((char *)to + r * stride, amx.tile[t][r], amx.bytes[t]);
}
static inline float widened(const unsigned char *bf16) {
    uint32_t bits = (uint32_t)bf16[1] << 24 | (uint32_t)bf16[0] << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
/* Tile c += a b, whose rows hold groups of four bytes: two bf16 or four int8. */
static inline void emulated_product(int c, int a, int b, int integers) {
    int depth = amx.bytes[a] / 4;
    if (depth != amx.rows[b] || amx.rows[c] != amx.rows[a] || amx.bytes[c] != amx.bytes[b]) __builtin_trap();
    for (int m = 0; m < amx.rows[c]; m++)
        for (int n = 0; n < amx.bytes[c] / 4; n++) {
            unsigned char *at = amx.tile[c][m] + 4 * n;
            float sum;
            int32_t exact;
            memcpy(&sum, at, 4);
            memcpy(&exact, at, 4);
            for (int k = 0; k < depth; k++) {
                const unsigned char *x = amx.tile[a][m] + 4 * k, *y = amx.tile[b][k] + 4 * n;
                for (int i = 0; i < 2; i++) sum += widened(x + 2 * i) * widened(y + 2 * i);
                for (int i = 0; i < 4; i++) exact += (int8_t)x[i] * (int8_t)y[i];
            }
            memcpy(at, integers ? (void *)&exact : (void *)&sum, 4);
        }
}

#undef _tile_loadconfig
#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#undef _tile_dpbssd
#undef _tile_release
#define _tile_loadconfig emulated_config
#define _tile_loadd emulated_load
#define _tile_stored emulated_store
#define _tile_zero emulated_zero
#define _tile_dpbf16ps(c, a, b) emulated_product(c, a, b, 0)
#define _tile_dpbssd(c, a, b) emulated_product(c, a, b, 1)
#define _tile_release() (void)0
#define syscall(...) 0L /* Linux grants them */
