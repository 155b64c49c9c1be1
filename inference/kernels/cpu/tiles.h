/* AMX: products of 16 rows with 16 outputs, eight to sixteen times as dense as vectors are.
 *
 * The layouts of linear.h and rope.h are its own: sixteen 64-byte steps of a block are one tile of weights
 * (32 bf16 inputs, or 64 int8 ones), and a page of cached keys or values is one or more. Inputs are stored in
 * tiles too: [rows / 16][K / inputs of a tile][16][64 bytes]; what stands in the rows after the last token
 * meets nothing but itself.
 *
 * Intel, "Architecture Instruction Set Extensions", chapter 3.
 */
#ifndef TILES_H
#define TILES_H
#include "ops.h"
#include "vector.h"

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AMX_INT8__) && defined(__AVX512BF16__) && \
    defined(__linux__)
#define HAVE_TILES 1
#include <sys/syscall.h>
#include <unistd.h>
#else
#define HAVE_TILES 0
#endif
#define TILE 16         /* rows of a tile */
#define TILE_BYTES 1024 /* of a full one */
/* Tokens from which tiles pay although they are not full. Integer ones must take scales in after each group. */
#define TILES_FROM(dtype) ((dtype) == BF16 ? 4 : 16)

/* Where row m of inputs begins its 64 bytes of column tile t, of `tiles`. */
INLINE long tile_at(int m, int t, int tiles) {
    return ((long)(m / TILE) * tiles + t) * TILE_BYTES + m % TILE * 64L;
}

/* Linux lets a process have tiles once it asked (Documentation/arch/x86/xstate.rst). */
static int tiles_allowed(void) {
#if HAVE_TILES
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return 0;
#endif
}

#if HAVE_TILES
typedef struct { /* operand of LDTILECFG */
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} tile_config_t;

/* Tiles 0-5: 16 rows of 64 bytes. With `pages` 6 has 16 rows of 32 bytes and 7 eight of 64, for half as deep a
 * product: the sixteen tokens of a page. */
static void tiles_begin(int pages) {
    tile_config_t c = {.palette = 1};
    for (int i = 0; i < 8; i++) { c.bytes[i] = 64; c.rows[i] = TILE; }
    if (pages) { c.bytes[6] = 32; c.rows[7] = TILE / 2; }
    _tile_loadconfig(&c);
}
INLINE void tiles_end(void) { _tile_release(); }
#endif
#endif
