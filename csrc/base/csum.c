/* Sums of any length. See csum.h.
 *
 * A function of its own: put where it is used, its few registers push out everything else.
 */
#include "base/csum.h"

#define LONG 64u /* from here on vectors are worth their set-up */

/* The sum of `blocks` blocks of 32 bytes. Each 64-bit lane adds up 32-bit words: no carry before 2^32 of them. */
static uint64_t add_blocks(const uint8_t *p, size_t blocks) {
    typedef uint64_t lanes __attribute__((vector_size(16)));
    lanes low = {0, 0}, high = {0, 0};
    for (; blocks; blocks--, p += 32) {
        lanes v, w;
        memcpy(&v, p, 16);
        memcpy(&w, p + 16, 16);
        low += (v & 0xffffffffu) + (w & 0xffffffffu);
        high += (v >> 32) + (w >> 32);
    }
    low = (low & 0xffffffffu) + (low >> 32) + (high & 0xffffffffu) + (high >> 32);
    return low[0] + low[1];
}

/* A sum of 64-bit words: the carries are counted apart, as they count for as much as the lowest bit. */
struct carried {
    uint64_t sum, carries;
};

static inline __attribute__((always_inline)) void add64(struct carried *c, uint64_t w) {
    c->carries += __builtin_add_overflow(c->sum, w, &c->sum);
}

uint64_t xs_csum_add_bytes(uint64_t sum, const void *bytes_at, size_t bytes) {
    const uint8_t *p = bytes_at;
    if (bytes >= LONG) {
        sum += add_blocks(p, bytes / 32);
        p += bytes & ~(size_t)31;
    }
    struct carried c = {sum, 0};
    if (bytes & 32 && bytes < LONG) {
        for (int at = 0; at < 32; at += 8) add64(&c, xs_csum_load64(p + at));
        p += 32;
    }
    if (bytes & 16) {
        add64(&c, xs_csum_load64(p));
        add64(&c, xs_csum_load64(p + 8));
        p += 16;
    }
    if (bytes & 8) {
        add64(&c, xs_csum_load64(p));
        p += 8;
    }
    if (bytes & 4) {
        uint32_t w;
        memcpy(&w, p, 4);
        add64(&c, w);
        p += 4;
    }
    if (bytes & 2) {
        uint16_t w;
        memcpy(&w, p, 2);
        add64(&c, w);
        p += 2;
    }
    if (bytes & 1) add64(&c, *p); /* the odd byte is the first of a word padded with zero */
    return (c.sum & 0xffffffffu) + (c.sum >> 32) + c.carries;
}
