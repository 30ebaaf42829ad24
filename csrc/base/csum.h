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

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the last bytes of a sum are shifted into place as little-endian machines have them"
#endif

#define XS_CSUM_LONG 64u /* from here on vectors are worth their set-up */

static inline uint64_t xs_csum_load64(const uint8_t *p) {
    uint64_t w;
    memcpy(&w, p, 8);
    return w;
}

/* To at most 33 bits and the carries, so that the caller may add to it without thinking of more of them. */
static inline uint64_t xs_csum_settle(uint64_t sum, uint64_t carries) {
    return (sum & 0xffffffffu) + (sum >> 32) + carries;
}

/* The sum of `blocks` blocks of 32 bytes. Each 64-bit lane adds up 32-bit words: no carry before 2^32 of them. */
static inline uint64_t xs_csum_blocks(const uint8_t *p, size_t blocks) {
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

/* Adds `len` bytes at `p` to `sum`, which has at most 63 bits. `p` starts at an even offset of what is summed. */
static inline uint64_t xs_csum_add(uint64_t sum, const void *p, size_t len) {
    const uint8_t *b = p, *end = b + len;
    if (len >= 8) {
        if (len >= XS_CSUM_LONG) {
            sum += xs_csum_blocks(b, len / 32);
            b += len & ~(size_t)31;
        }
        uint64_t carries = 0, w;
        for (const uint8_t *last = end - 8; b <= last; b += 8) {
            sum += w = xs_csum_load64(b);
            carries += sum < w;
        }
        if (b < end) { /* the rest: the last 8 bytes, less those that were summed */
            sum += w = xs_csum_load64(end - 8) >> (64 - 8 * (end - b));
            carries += sum < w;
        }
        return xs_csum_settle(sum, carries);
    }
    if (len & 4) {
        uint32_t w;
        memcpy(&w, b, 4);
        sum += w;
        b += 4;
    }
    if (len & 2) {
        uint16_t w;
        memcpy(&w, b, 2);
        sum += w;
        b += 2;
    }
    if (len & 1) sum += *b; /* the odd byte is the first of a word padded with zero */
    return sum;
}

/* Folds to 16 bits, not complemented. */
static inline uint16_t xs_csum_fold(uint64_t sum) {
    /* the two halves are added in the upper one, where the carry of the lower half comes in */
    sum += sum >> 32 | sum << 32;
    uint32_t half = (uint32_t)(sum >> 32);
    half += half >> 16 | half << 16;
    return (uint16_t)(half >> 16);
}

/* The checksum field of what sums to `sum` (stored as it is, no swap). */
static inline uint16_t xs_csum_finish(uint64_t sum) { return (uint16_t)~xs_csum_fold(sum); }

/* RFC 1624, eqn. 3: HC' = ~(~HC + ~m + m'). All three as loaded from the packet. */
static inline uint16_t xs_csum_replace(uint16_t field, uint16_t before, uint16_t after) {
    return xs_csum_finish((uint64_t)(uint16_t)~field + (uint16_t)~before + after);
}

#endif
