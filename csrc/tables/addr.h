/* Addresses as the tables keep them: two halves in host order, so that a prefix is a mask and a comparison is two words.
 *
 *      2001:db8::1      hi 0x20010db800000000   lo 0x0000000000000001
 *      10.0.0.1         hi 0                    lo 0x0000ffff0a000001      (mapped: ::ffff:10.0.0.1)
 *
 * An IPv4 prefix of n bits is a mapped prefix of 96 + n bits, so one code serves both families. RFC 4291, 2.5.5.2.
 */
#ifndef XS_TABLES_ADDR_H
#define XS_TABLES_ADDR_H

#include "wire/addr.h"

#define XS_MAPPED 0x0000ffff00000000ull /* the low half of a mapped address, without the IPv4 address */
#define XS_MAPPED_BITS 96u              /* prefix length of ::ffff:0.0.0.0/96 */

#include "ffi/40_addr.cdef.h" /* struct xs_addr */

/* ---- to and from 16 bytes in network order, and IPv4 in host order ---- */

static inline struct xs_addr xs_addr_load(const void *bytes) {
    struct xs_addr a;
    memcpy(&a, bytes, 16);
    return (struct xs_addr){__builtin_bswap64(a.hi), __builtin_bswap64(a.lo)};
}
static inline void xs_addr_store(void *bytes, struct xs_addr a) {
    a = (struct xs_addr){__builtin_bswap64(a.hi), __builtin_bswap64(a.lo)};
    memcpy(bytes, &a, 16);
}
static inline struct xs_addr xs_addr_of4(uint32_t address) {
    return (struct xs_addr){0, XS_MAPPED | address};
}
static inline uint32_t xs_addr_to4(struct xs_addr mapped) { return (uint32_t)mapped.lo; }

/* ---- what they are ---- */

static inline bool xs_addr_equal(struct xs_addr a, struct xs_addr b) {
    return !((a.hi ^ b.hi) | (a.lo ^ b.lo));
}
/* 0.0.0.0 or :: */
static inline bool xs_addr_is_any(struct xs_addr a) { return !a.hi && (!a.lo || a.lo == XS_MAPPED); }

static inline bool xs_addr4_is_local_multicast(uint32_t a) { return a >> 8 == 0xe00000; } /* 224.0.0.0/24 */
static inline bool xs_ip6_is_multicast(struct xs_addr a) { return a.hi >> 56 == 0xff; }
static inline bool xs_ip6_is_link_local(struct xs_addr a) { return a.hi >> 54 == 0xfe80 >> 6; }
static inline bool xs_ip6_is_loopback(struct xs_addr a) { return !a.hi && a.lo == 1; }

/* ---- prefixes ---- */

/* The mask of `length` leading ones, 0 to 128. */
static inline struct xs_addr xs_addr_mask(uint32_t length) {
    uint64_t hi = length >= 64 ? UINT64_MAX : length ? UINT64_MAX << (64 - length) : 0;
    uint64_t lo = length >= 128 ? UINT64_MAX : length > 64 ? UINT64_MAX << (128 - length) : 0;
    return (struct xs_addr){hi, lo};
}
static inline struct xs_addr xs_addr_and(struct xs_addr a, struct xs_addr mask) {
    return (struct xs_addr){a.hi & mask.hi, a.lo & mask.lo};
}
/* `a` agrees with `b` in the bits of `mask`. */
static inline bool xs_addr_match(struct xs_addr a, struct xs_addr b, struct xs_addr mask) {
    return !(((a.hi ^ b.hi) & mask.hi) | ((a.lo ^ b.lo) & mask.lo));
}
/* How many leading bits two addresses have in common, 0 to 128. */
static inline uint32_t xs_addr_common(struct xs_addr a, struct xs_addr b) {
    uint64_t hi = a.hi ^ b.hi, lo = a.lo ^ b.lo;
    if (hi) return (uint32_t)__builtin_clzll(hi);
    return lo ? 64u + (uint32_t)__builtin_clzll(lo) : 128u;
}

/* ---- hash tables ---- */

/* Mixes an address and a small number into 64 good bits; take the high ones. Constants: the fractional parts of the golden
 * ratio and of pi; one multiplication each, then the halves are folded. */
static inline uint32_t xs_addr_hash(struct xs_addr a, uint32_t with) {
    uint64_t h = (a.lo + with) * 0x9e3779b97f4a7c15ull ^ a.hi * 0x243f6a8885a308d3ull;
    h ^= h >> 32;
    h *= 0x9e3779b97f4a7c15ull;
    return (uint32_t)(h >> 32);
}

#endif
