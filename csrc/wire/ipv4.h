/* The IPv4 header. RFC 791.
 *
 *       0               1               2               3
 *      +-------+-------+---------------+-------------------------------+
 *    0 |version|  ihl  |      tos      |         total length          |
 *      +-------+-------+---------------+-----+-------------------------+
 *    4 |               id              |flags|     fragment offset     |
 *      +---------------+---------------+-----+-------------------------+
 *    8 |      ttl      |    protocol   |        header checksum        |
 *      +---------------+---------------+-------------------------------+
 *   12 |                        source address                         |
 *   16 |                      destination address                      |
 *   20 |                    options, (ihl - 5) * 4 bytes               |
 *      +---------------------------------------------------------------+
 */
#ifndef XS_WIRE_IPV4_H
#define XS_WIRE_IPV4_H

#include <stddef.h>

#include "base/csum.h"
#include "wire/addr.h"

/* ---- layout ---- */

#define XS_IPV4_BYTES 20u /* without options */
#define XS_IPV4_TOS 1u
#define XS_IPV4_TOTAL 2u
#define XS_IPV4_ID 4u
#define XS_IPV4_FRAG 6u
#define XS_IPV4_TTL 8u
#define XS_IPV4_PROTOCOL 9u
#define XS_IPV4_CSUM 10u
#define XS_IPV4_SRC 12u
#define XS_IPV4_DST 16u

#define XS_IPV4_PLAIN 0x45u /* first byte: version 4, no options */

/* the 16 bits at XS_IPV4_FRAG */
#define XS_IPV4_DF 0x4000u
#define XS_IPV4_MF 0x2000u
#define XS_IPV4_OFFSET 0x1fffu /* in units of 8 bytes */

/* options: type, length (of all of it), data; the first two have no length. RFC 791, 2113; CIPSO: FIPS 188. */
#define XS_IPV4_OPT_END 0u
#define XS_IPV4_OPT_NOOP 1u
#define XS_IPV4_OPT_RECORD_ROUTE 7u
#define XS_IPV4_OPT_TIMESTAMP 68u
#define XS_IPV4_OPT_LOOSE_ROUTE 131u
#define XS_IPV4_OPT_CIPSO 134u
#define XS_IPV4_OPT_STRICT_ROUTE 137u
#define XS_IPV4_OPT_ROUTER_ALERT 148u

#define XS_IPV4_TS_ONLY 0u /* flags of the timestamp option */
#define XS_IPV4_TS_AND_ADDRESS 1u
#define XS_IPV4_TS_PRESPECIFIED 3u

/* ---- check ---- */

/* The fixed part is there; options are not looked at. */
static inline bool xs_ipv4_fits(size_t bytes) { return bytes >= XS_IPV4_BYTES; }

/* The checksum over the whole header, whose bytes must be there, is right. */
static inline bool xs_ipv4_csum_ok(const uint8_t *p, size_t header_bytes) {
    return xs_csum_is_right(xs_csum_add(0, p, header_bytes));
}

/* ---- read ---- */

static inline uint32_t xs_ipv4_version(const uint8_t *p) { return p[0] >> 4; }
static inline uint32_t xs_ipv4_header_bytes(const uint8_t *p) { return (p[0] & 0xfu) * 4u; }
static inline uint8_t xs_ipv4_tos(const uint8_t *p) { return p[XS_IPV4_TOS]; }
static inline uint16_t xs_ipv4_total(const uint8_t *p) { return xs_get16(p + XS_IPV4_TOTAL); }
static inline uint16_t xs_ipv4_id(const uint8_t *p) { return xs_get16(p + XS_IPV4_ID); }
static inline uint16_t xs_ipv4_frag(const uint8_t *p) { return xs_get16(p + XS_IPV4_FRAG); }
static inline bool xs_ipv4_is_fragment(const uint8_t *p) {
    return xs_ipv4_frag(p) & (XS_IPV4_MF | XS_IPV4_OFFSET);
}
static inline uint8_t xs_ipv4_ttl(const uint8_t *p) { return p[XS_IPV4_TTL]; }
static inline uint8_t xs_ipv4_protocol(const uint8_t *p) { return p[XS_IPV4_PROTOCOL]; }
static inline uint32_t xs_ipv4_src(const uint8_t *p) { return xs_get32(p + XS_IPV4_SRC); }
static inline uint32_t xs_ipv4_dst(const uint8_t *p) { return xs_get32(p + XS_IPV4_DST); }

/* ---- write ---- */

/* What a header without options says. Addresses are 16 bytes, mapped. */
struct xs_ipv4_values {
    uint16_t total; /* bytes, header included */
    uint16_t id;
    uint16_t frag; /* XS_IPV4_DF, or 0 */
    uint8_t tos;
    uint8_t ttl;
    uint8_t protocol;
    const uint8_t *src, *dst;
};

/* The header with its checksum, which is computed from the values: reading back what was just written would wait for it. */
static inline void xs_ipv4_write(uint8_t *p, const struct xs_ipv4_values *v) {
    uint32_t word[3] = {
        XS_IPV4_PLAIN << 24 | (uint32_t)v->tos << 16 | v->total,
        (uint32_t)v->id << 16 | v->frag,
        (uint32_t)v->ttl << 24 | (uint32_t)v->protocol << 16,
    };
    uint32_t src = xs_addr_get4(v->src), dst = xs_addr_get4(v->dst);
    word[2] |= xs_csum_finish((uint64_t)word[0] + word[1] + word[2] + src + dst);
    for (uint32_t i = 0; i < 3; i++) xs_put32(p + 4 * i, word[i]);
    xs_put32(p + XS_IPV4_SRC, src);
    xs_put32(p + XS_IPV4_DST, dst);
}

/* ---- print ---- */

static inline int xs_ipv4_print(char *out, size_t cap, const uint8_t *p) {
    const uint8_t *s = p + XS_IPV4_SRC, *d = p + XS_IPV4_DST;
    uint16_t frag = xs_ipv4_frag(p);
    return snprintf(out, cap, "%u.%u.%u.%u > %u.%u.%u.%u tos %02x ttl %u id %u len %u proto %u%s%s%s", s[0],
                    s[1], s[2], s[3], d[0], d[1], d[2], d[3], xs_ipv4_tos(p), xs_ipv4_ttl(p), xs_ipv4_id(p),
                    xs_ipv4_total(p), xs_ipv4_protocol(p), frag & XS_IPV4_DF ? " DF" : "",
                    frag & XS_IPV4_MF ? " MF" : "", frag & XS_IPV4_OFFSET ? " later fragment" : "");
}

#endif
