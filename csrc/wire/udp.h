/* The UDP header. RFC 768.
 *
 *       0               2               4               6
 *      +---------------+---------------+---------------+---------------+
 *      |  source port  |   dest. port  |     length    |    checksum   |
 *      +---------------+---------------+---------------+---------------+
 */
#ifndef XS_WIRE_UDP_H
#define XS_WIRE_UDP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/csum.h"
#include "include/xdpstack_stage.h"
#include "wire/wire.h"

/* ---- layout ---- */

#define XS_UDP_BYTES 8u
#define XS_UDP_SPORT 0u
#define XS_UDP_DPORT 2u
#define XS_UDP_LENGTH 4u
#define XS_UDP_CSUM 6u

/* ---- check ---- */

static inline bool xs_udp_fits(size_t bytes) { return bytes >= XS_UDP_BYTES; }

/* ---- read ---- */

static inline uint16_t xs_udp_sport(const uint8_t *p) { return xs_get16(p + XS_UDP_SPORT); }
static inline uint16_t xs_udp_dport(const uint8_t *p) { return xs_get16(p + XS_UDP_DPORT); }
static inline uint16_t xs_udp_length(const uint8_t *p) { return xs_get16(p + XS_UDP_LENGTH); }

/* As loaded: 0 is "the sender computed none". Sums of base/csum.h are of values as loaded. */
static inline uint16_t xs_udp_csum(const uint8_t *p) {
    uint16_t csum;
    memcpy(&csum, p + XS_UDP_CSUM, 2);
    return csum;
}

/* The pseudo header's part of the sum (RFC 768; RFC 8200, 8.1): addresses of `addr_bytes` each, one after the other as in
 * either IP header, protocol, and length of the transport header and what is behind it. */
static inline uint64_t xs_pseudo_sum(const uint8_t *src_dst, uint32_t addr_bytes, uint8_t protocol,
                                     uint32_t length) {
    uint64_t sum = xs_csum_add(0, src_dst, 2 * (size_t)addr_bytes);
    return sum + __builtin_bswap32(length) + __builtin_bswap16(protocol);
}

/* ---- check the sum ---- */

/* The state of a checksum: asked by napi of plain packets, as a NIC's receive offload says it, and by udp.rx of others.
 * Of a datagram of `ulen` bytes in one frame, whose checksum field is not 0. `pseudo` is the pseudo header's sum; `partial`: a
 * local sender may have left the sum to the device. Then the field is the folded pseudo-header sum, the payload was never
 * summed. */
static inline uint8_t xs_udp_verify(const uint8_t *uh, uint32_t ulen, uint64_t pseudo, bool partial) {
    if (partial && xs_udp_csum(uh) == xs_csum_fold(pseudo)) return XS_CSUM_PARTIAL;
    return xs_csum_is_right(xs_csum_add(pseudo, uh, ulen)) ? XS_CSUM_VERIFIED : XS_CSUM_BAD;
}

/* ---- write ---- */

/* The checksum field is left 0. */
static inline void xs_udp_write(uint8_t *p, uint16_t sport, uint16_t dport, uint16_t length) {
    xs_put16(p + XS_UDP_SPORT, sport);
    xs_put16(p + XS_UDP_DPORT, dport);
    xs_put16(p + XS_UDP_LENGTH, length);
    xs_put16(p + XS_UDP_CSUM, 0);
}

static inline void xs_udp_put_csum(uint8_t *p, uint16_t csum_as_loaded) {
    memcpy(p + XS_UDP_CSUM, &csum_as_loaded, 2);
}

/* ---- print ---- */

static inline int xs_udp_print(char *out, size_t cap, const uint8_t *p) {
    return snprintf(out, cap, "udp %u > %u len %u csum %04x", xs_udp_sport(p), xs_udp_dport(p),
                    xs_udp_length(p), xs_get16(p + XS_UDP_CSUM));
}

#endif
