/* The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
 *
 * Sums are kept as 64-bit one's complement sums of 16-bit words in network order *as loaded*, that is without swapping:
 * byte order does not matter to the sum (RFC 1071, 2 B), only to where the result is stored.
 */
#ifndef XS_BASE_CSUM_H
#define XS_BASE_CSUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the last bytes of a sum are shifted into place as little-endian machines have them"
#endif

static inline uint64_t xs_csum_load64(const uint8_t *p) {
    uint64_t w;
    memcpy(&w, p, 8);
    return w;
}

/* Adds `bytes` bytes at `p` to `sum`, which has at most 62 bits; so has what is returned. `p` starts at an even offset of what is
 * summed. Source: RFC 1071, 2 (A): any order, any grouping. */
uint64_t xs_csum_add_bytes(uint64_t sum, const void *p, size_t bytes);

/* The same, put where it is used when `bytes` is a constant multiple of 4. */
static inline __attribute__((always_inline)) uint64_t xs_csum_add(uint64_t sum, const void *p, size_t bytes) {
    if (!__builtin_constant_p(bytes) || bytes % 4 || bytes > 32) return xs_csum_add_bytes(sum, p, bytes);
    for (size_t at = 0; at < bytes; at += 4) {
        uint32_t w;
        memcpy(&w, (const uint8_t *)p + at, 4);
        sum += w;
    }
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

/* What includes its checksum field is right: its sum folds to 0xffff. As 2^16 = 1 modulo 0xffff, the folded sum is the sum modulo
 * 0xffff, with 0xffff for 0; and no sum here is 0. So it must be a multiple of 0xffff, which compiles to one
 * multiplication. */
static inline bool xs_csum_is_right(uint64_t sum) { return sum % 0xffffu == 0; }

/* The checksum field of what sums to `sum` (stored as it is, no swap). */
static inline uint16_t xs_csum_finish(uint64_t sum) { return (uint16_t)~xs_csum_fold(sum); }

/* RFC 1624, eqn. 3: HC' = ~(~HC + ~m + m'). All three as loaded from the packet. */
static inline uint16_t xs_csum_replace(uint16_t field, uint16_t before, uint16_t after) {
    return xs_csum_finish((uint64_t)(uint16_t)~field + (uint16_t)~before + after);
}

#endif
