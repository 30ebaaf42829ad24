/* The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
 *
 * Sums are kept as 64-bit one's complement sums of 16-bit words in network order *as loaded*, that is without swapping:
 * byte order does not matter to the sum (RFC 1071, 2 B), only to where the result is stored.
 */
#ifndef XS_BASE_CSUM_H
#define XS_BASE_CSUM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Adds `len` bytes at `p` to `sum`. `p` starts at an even offset of what is summed. */
static inline uint64_t xs_csum_add(uint64_t sum, const void *p, size_t len) {
    const uint8_t *b = p;
    /* 32-bit words into a 64-bit sum: no carry is lost before 2^32 words; the compiler vectorises the loop */
    while (len >= 32) {
        uint32_t w[8];
        memcpy(w, b, 32);
        sum += (uint64_t)w[0] + w[1] + w[2] + w[3] + ((uint64_t)w[4] + w[5] + w[6] + w[7]);
        b += 32;
        len -= 32;
    }
    while (len >= 4) {
        uint32_t w;
        memcpy(&w, b, 4);
        sum += w;
        b += 4;
        len -= 4;
    }
    if (len >= 2) {
        uint16_t w;
        memcpy(&w, b, 2);
        sum += w;
        b += 2;
        len -= 2;
    }
    if (len) {
        uint16_t w = 0;
        memcpy(&w, b, 1); /* the odd byte is the first of a word padded with zero */
        sum += w;
    }
    return sum;
}

/* Folds to 16 bits, not complemented. */
static inline uint16_t xs_csum_fold(uint64_t sum) {
    sum = (sum & 0xffffffffu) + (sum >> 32);
    sum = (sum & 0xffffffffu) + (sum >> 32);
    sum = (sum & 0xffffu) + (sum >> 16);
    sum = (sum & 0xffffu) + (sum >> 16);
    return (uint16_t)sum;
}

/* The checksum field of what sums to `sum` (stored as it is, no swap). */
static inline uint16_t xs_csum_finish(uint64_t sum) { return (uint16_t)~xs_csum_fold(sum); }

/* RFC 1624, eqn. 3: HC' = ~(~HC + ~m + m'). All three as loaded from the packet. */
static inline uint16_t xs_csum_replace(uint16_t field, uint16_t before, uint16_t after) {
    return xs_csum_finish((uint64_t)(uint16_t)~field + (uint16_t)~before + after);
}

#endif
