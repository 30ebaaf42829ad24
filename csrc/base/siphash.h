/* SipHash-1-3 (Aumasson, Bernstein) of whole words: keyed, so that nobody outside can tell, or choose, what comes out. */
#ifndef XS_BASE_SIPHASH_H
#define XS_BASE_SIPHASH_H

#include <stdint.h>

static inline uint64_t xs_rotl(uint64_t x, int by) { return x << by | x >> (64 - by); }

static inline void xs_sip_round(uint64_t v[4]) {
    v[0] += v[1], v[1] = xs_rotl(v[1], 13) ^ v[0], v[0] = xs_rotl(v[0], 32);
    v[2] += v[3], v[3] = xs_rotl(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = xs_rotl(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = xs_rotl(v[1], 17) ^ v[2], v[2] = xs_rotl(v[2], 32);
}

static inline uint64_t xs_siphash(const uint64_t key[2], const uint64_t *word, uint32_t n) {
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du, key[0] ^ 0x6c7967656e657261u,
                     key[1] ^ 0x7465646279746573u};
    for (uint32_t i = 0; i <= n; i++) {
        uint64_t m =
            i < n ? word[i] : (uint64_t)n << 59; /* the last block: length in bytes, in its top byte */
        v[3] ^= m;
        xs_sip_round(v);
        v[0] ^= m;
    }
    v[2] ^= 0xff;
    for (uint32_t i = 0; i < 3; i++) xs_sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif
