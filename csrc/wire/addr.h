/* IP addresses as they are in packets and as the tables hold them: always 16 bytes, IPv4 mapped (::ffff:a.b.c.d), so that
 * one code path serves both families. RFC 4291.
 *
 * Every header of this folder has the same five parts in the same order: layout, check, read, write, print. */
#ifndef XS_WIRE_ADDR_H
#define XS_WIRE_ADDR_H

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "wire/wire.h"

/* ---- layout ---- */

#define XS_ADDR_BYTES 16u
#define XS_ADDR4_BYTES 4u
#define XS_ADDR_TEXT_BYTES INET6_ADDRSTRLEN

/* Scopes of multicast addresses: the low half of the second byte. RFC 7346. */
#define XS_SCOPE_RESERVED 0u
#define XS_SCOPE_INTERFACE 1u
#define XS_SCOPE_LINK 2u

/* ---- check: an address of 16 bytes is always whole ---- */

/* ---- read ---- */

static inline bool xs_addr_is_mapped(const uint8_t *a) {
    uint64_t high;
    memcpy(&high, a, 8);
    return !high && xs_get32(a + 8) == 0xffffu;
}

static inline bool xs_addr_is_unspecified(const uint8_t *a) {
    uint64_t half[2];
    memcpy(half, a, 16);
    return !(half[0] | half[1]);
}

/* ::1 */
static inline bool xs_addr6_is_loopback(const uint8_t *a) {
    uint64_t high;
    memcpy(&high, a, 8);
    return !high && xs_get32(a + 8) == 0 && xs_get32(a + 12) == 1;
}

static inline bool xs_addr6_is_multicast(const uint8_t *a) { return a[0] == 0xff; }
static inline uint32_t xs_addr6_scope(const uint8_t *multicast) { return multicast[1] & 0xfu; }

/* IPv4, host order. */
static inline bool xs_addr4_is_multicast(uint32_t a) { return (a & 0xf0000000u) == 0xe0000000u; }
static inline bool xs_addr4_is_loopback(uint32_t a) { return (a & 0xff000000u) == 0x7f000000u; }
static inline bool xs_addr4_is_broadcast(uint32_t a) { return a == 0xffffffffu; }

/* The IPv4 address inside a mapped one, host order. */
static inline uint32_t xs_addr_get4(const uint8_t *mapped) { return xs_get32(mapped + 12); }

/* ---- write ---- */

/* The four bytes at `p`, as in an IPv4 header, mapped. */
static inline void xs_addr_map(uint8_t *out, const uint8_t *p) {
    memset(out, 0, 10);
    out[10] = out[11] = 0xff;
    memcpy(out + 12, p, 4);
}

/* ---- print ---- */

static inline const char *xs_addr_print(char out[XS_ADDR_TEXT_BYTES], const uint8_t *a) {
    bool mapped = xs_addr_is_mapped(a);
    return inet_ntop(mapped ? AF_INET : AF_INET6, mapped ? a + 12 : a, out, XS_ADDR_TEXT_BYTES);
}

#endif
