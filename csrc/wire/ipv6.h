/* The IPv6 header and what all its extension headers share. RFC 8200.
 *
 *       0               1               2               3
 *      +-------+---------------+---------------------------------------+
 *    0 |version| traffic class |              flow label               |
 *      +-------+---------------+-------+---------------+---------------+
 *    4 |        payload length         |  next header  |   hop limit   |
 *      +-------------------------------+---------------+---------------+
 *    8 |                   source address (16 bytes)                   |
 *   24 |                 destination address (16 bytes)                |
 *      +---------------------------------------------------------------+
 *
 * An extension header begins with the number of the next header and, but for the fragment header, its own length:
 *
 *      hop-by-hop, destination options   | next | len | options ...                              (len + 1) * 8 bytes
 *      routing                           | next | len | type | segments left | ...               (len + 1) * 8 bytes
 *      fragment                          | next |  0  | offset, 2 bits, M | identification       8 bytes
 *      authentication                    | next | len | ...                                      (len + 2) * 4 bytes
 */
#ifndef XS_WIRE_IPV6_H
#define XS_WIRE_IPV6_H

#include <netinet/in.h>
#include <stddef.h>

#include "wire/addr.h"

/* ---- layout ---- */

#define XS_IPV6_BYTES 40u
#define XS_IPV6_PAYLOAD 4u
#define XS_IPV6_NEXT 6u
#define XS_IPV6_HOP_LIMIT 7u
#define XS_IPV6_SRC 8u
#define XS_IPV6_DST 24u

#define XS_IPV6_PAYLOAD_MAX 65535u
#define XS_IPV6_FLOW_LABEL 0x000fffffu /* bits of the first word */

#define XS_IPV6_EXT_BYTES \
    8u /* the shortest extension header; all are multiples of it, but for authentication */
#define XS_IPV6_ROUTING_TYPE 2u
#define XS_IPV6_ROUTING_LEFT 3u
#define XS_IPV6_FRAG 2u /* in the fragment header */

/* the 16 bits at XS_IPV6_FRAG */
#define XS_IPV6_FRAG_MORE 0x0001u
#define XS_IPV6_FRAG_OFFSET 0xfff8u /* in bytes */

#define XS_IPV6_ROUTING_RPL 3u     /* RFC 6554 */
#define XS_IPV6_ROUTING_SEGMENT 4u /* RFC 8754 */

/* options: type, length (of the data), data; PAD1 has no length. The two high bits of a type say what to do with it if
 * unknown: 00 skip it, else drop the packet (and tell the sender, for 10 and 11). RFC 8200, 4.2. */
#define XS_IPV6_OPT_PAD1 0x00u
#define XS_IPV6_OPT_PADN 0x01u
#define XS_IPV6_OPT_ROUTER_ALERT 0x05u
#define XS_IPV6_OPT_CALIPSO 0x07u
#define XS_IPV6_OPT_IOAM 0x31u
#define XS_IPV6_OPT_JUMBO 0xc2u
#define XS_IPV6_OPT_ACTION 0xc0u

/* ---- check ---- */

static inline bool xs_ipv6_fits(size_t bytes) { return bytes >= XS_IPV6_BYTES; }

/* One of those that can stand between the IPv6 header and the transport header (the kernel's ipv6_ext_hdr). */
static inline bool xs_ipv6_is_extension(uint8_t next) {
    return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_FRAGMENT ||
           next == IPPROTO_AH || next == IPPROTO_NONE || next == IPPROTO_DSTOPTS;
}

/* ---- read ---- */

static inline uint32_t xs_ipv6_version(const uint8_t *p) { return p[0] >> 4; }
static inline uint8_t xs_ipv6_traffic_class(const uint8_t *p) { return (uint8_t)(xs_get16(p) >> 4); }
static inline uint32_t xs_ipv6_flow_label(const uint8_t *p) { return xs_get32(p) & XS_IPV6_FLOW_LABEL; }
static inline uint16_t xs_ipv6_payload(const uint8_t *p) { return xs_get16(p + XS_IPV6_PAYLOAD); }
static inline uint8_t xs_ipv6_next(const uint8_t *p) { return p[XS_IPV6_NEXT]; }
static inline uint8_t xs_ipv6_hop_limit(const uint8_t *p) { return p[XS_IPV6_HOP_LIMIT]; }
static inline const uint8_t *xs_ipv6_src(const uint8_t *p) { return p + XS_IPV6_SRC; }
static inline const uint8_t *xs_ipv6_dst(const uint8_t *p) { return p + XS_IPV6_DST; }

/* Of an extension header that is not a fragment or authentication header. */
static inline uint32_t xs_ipv6_ext_bytes(const uint8_t *ext) { return (ext[1] + 1u) * 8u; }
static inline uint32_t xs_ipv6_ah_bytes(const uint8_t *ext) { return (ext[1] + 2u) * 4u; }
static inline uint16_t xs_ipv6_frag(const uint8_t *ext) { return xs_get16(ext + XS_IPV6_FRAG); }

/* ---- write ---- */

struct xs_ipv6_values {
    uint32_t flow_label; /* 20 bits */
    uint16_t payload;    /* bytes behind this header */
    uint8_t traffic_class;
    uint8_t hop_limit;
    uint8_t next;
    const uint8_t *src, *dst;
};

static inline void xs_ipv6_write(uint8_t *p, const struct xs_ipv6_values *v) {
    xs_put32(p, 6u << 28 | (uint32_t)v->traffic_class << 20 | (v->flow_label & XS_IPV6_FLOW_LABEL));
    xs_put16(p + XS_IPV6_PAYLOAD, v->payload);
    p[XS_IPV6_NEXT] = v->next;
    p[XS_IPV6_HOP_LIMIT] = v->hop_limit;
    memcpy(p + XS_IPV6_SRC, v->src, 16);
    memcpy(p + XS_IPV6_DST, v->dst, 16);
}

/* ---- print ---- */

static inline int xs_ipv6_print(char *out, size_t cap, const uint8_t *p) {
    char src[XS_ADDR_TEXT_BYTES], dst[XS_ADDR_TEXT_BYTES];
    inet_ntop(AF_INET6, xs_ipv6_src(p), src, sizeof src);
    inet_ntop(AF_INET6, xs_ipv6_dst(p), dst, sizeof dst);
    return snprintf(out, cap, "%s > %s class %02x label %05x hops %u len %u next %u", src, dst,
                    xs_ipv6_traffic_class(p), xs_ipv6_flow_label(p), xs_ipv6_hop_limit(p), xs_ipv6_payload(p),
                    xs_ipv6_next(p));
}

#endif
