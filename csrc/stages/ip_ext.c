/* IPv6 extension headers. Mirrors net/ipv6/exthdrs.c, exthdrs_core.c and the entry of reassembly.c.
 *
 *      IPv6 header | hop-by-hop | destination options, routing, fragment, in any order and number | transport header
 *                    ip.rx        ip.local
 *
 * As in Linux, hop-by-hop options are looked at before routing, and what follows only by the host that the packet is for.
 * Every walk goes forward by at least 8 bytes a step and ends with the first frame. */
#include "stages/ip.h"

#include "wire/ipv6.h"

/* net.ipv6.max_hbh_opts_number and max_dst_opts_number: options of one header, padding not counted. */
#define OPTIONS_MAX 8u
/* Padding in one place; more than it takes to align anything is abuse. RFC 4942, 2.1.9.5. */
#define PADDING_MAX 7u

/* Bytes that are both there and in the packet. */
static inline uint32_t readable(const struct xs_ip_view *v) {
    return v->head < v->total ? v->head : v->total;
}

/* pskb_may_pull: `bytes` from the IP header on. What is in the packet but not in its first frame is out of our reach. */
static enum xs_reason may_pull(const struct xs_ip_view *v, uint32_t bytes) {
    if (bytes > v->total) return XS_REASON_IPV6_BAD_EXTHDR;
    return bytes > v->head ? XS_REASON_PKT_TOO_SMALL : XS_IP_PASS;
}

/* An extension header with a length, at `off`, whole. */
static enum xs_reason pull_ext(const struct xs_ip_view *v, uint32_t off) {
    enum xs_reason why = may_pull(v, off + XS_IPV6_EXT_BYTES);
    return why != XS_IP_PASS ? why : may_pull(v, off + xs_ipv6_ext_bytes(v->l3 + off));
}

/* ---- options ---- */

/* RFC 2675: the length of a packet whose payload does not fit 16 bits. */
static enum xs_reason jumbo(struct xs_ip_view *v, uint32_t off) {
    const uint8_t *o = v->l3 + off;
    if (o[1] != 4 || (off & 3) != 2) return XS_REASON_IP_INHDR;
    uint32_t payload = xs_get32(o + 2);
    if (payload <= XS_IPV6_PAYLOAD_MAX) return XS_REASON_IP_INHDR;
    if (xs_ipv6_payload(v->l3)) return XS_REASON_IP_INHDR;
    if (payload > v->total - XS_IPV6_BYTES) return XS_REASON_PKT_TOO_SMALL;
    v->total = payload + XS_IPV6_BYTES;
    return XS_IP_PASS;
}

static enum xs_reason hop_option(struct xs_ip_view *v, uint32_t off) {
    const uint8_t *o = v->l3 + off;
    switch (o[0]) {
    case XS_IPV6_OPT_ROUTER_ALERT: return o[1] == 2 ? XS_IP_PASS : XS_REASON_IP_INHDR;
    case XS_IPV6_OPT_IOAM: return off & 3 ? XS_REASON_IP_INHDR : XS_IP_PASS; /* aligned, and else ignored */
    case XS_IPV6_OPT_JUMBO: return jumbo(v, off);
    case XS_IPV6_OPT_CALIPSO: return XS_REASON_IP_INHDR; /* valid only for a domain that is configured */
    default: return o[0] & XS_IPV6_OPT_ACTION ? XS_REASON_UNHANDLED_PROTO : XS_IP_PASS;
    }
}

static enum xs_reason destination_option(const uint8_t *o) {
    return o[0] & XS_IPV6_OPT_ACTION ? XS_REASON_UNHANDLED_PROTO : XS_IP_PASS;
}

static bool zeroes(const uint8_t *p, uint32_t bytes) {
    uint8_t any = 0;
    for (uint32_t i = 0; i < bytes; i++) any |= p[i];
    return !any;
}

/* ip6_parse_tlv: the options of the header at `ext`, which is whole. */
static enum xs_reason options(struct xs_ip_view *v, uint32_t ext, bool hop_by_hop) {
    uint32_t end = ext + xs_ipv6_ext_bytes(v->l3 + ext), padding = 0, count = 0, bytes;
    for (uint32_t off = ext + 2; off < end; off += bytes) {
        const uint8_t *o = v->l3 + off;
        if (o[0] == XS_IPV6_OPT_PAD1) {
            bytes = 1;
            if (++padding > PADDING_MAX) return XS_REASON_IP_INHDR;
            continue;
        }
        if (end - off < 2) return XS_REASON_IP_INHDR;
        bytes = o[1] + 2u;
        if (bytes > end - off) return XS_REASON_IP_INHDR;
        if (o[0] == XS_IPV6_OPT_PADN) {
            padding += bytes;
            if (padding > PADDING_MAX || !zeroes(o + 2, bytes - 2)) return XS_REASON_IP_INHDR;
            continue;
        }
        if (++count > OPTIONS_MAX) return XS_REASON_IP_INHDR;
        enum xs_reason why = hop_by_hop ? hop_option(v, off) : destination_option(o);
        if (why != XS_IP_PASS) return why;
        padding = 0;
    }
    return XS_IP_PASS;
}

enum xs_reason xs_ip_hopopts(struct xs_ip_view *v) {
    enum xs_reason why = pull_ext(v, XS_IPV6_BYTES);
    return why != XS_IP_PASS ? why : options(v, XS_IPV6_BYTES, true);
}

/* ---- where is the transport header? ---- */

uint32_t xs_ip_find_transport(const struct xs_ip_view *v, uint8_t *proto, bool *fragment) {
    uint32_t off = XS_IPV6_BYTES, end = readable(v);
    uint8_t next = xs_ipv6_next(v->l3);
    while (xs_ipv6_is_extension(next) && next != IPPROTO_NONE) {
        *proto = next;
        if (off + XS_IPV6_EXT_BYTES > end) return 0;
        const uint8_t *ext = v->l3 + off;
        if (next == IPPROTO_FRAGMENT) {
            uint16_t frag = xs_ipv6_frag(ext);
            *fragment |= (frag & (XS_IPV6_FRAG_OFFSET | XS_IPV6_FRAG_MORE)) != 0;
            if (frag & XS_IPV6_FRAG_OFFSET) {
                *proto = ext[0];
                return 0;
            }
            off += XS_IPV6_EXT_BYTES;
        } else {
            off += next == IPPROTO_AH ? xs_ipv6_ah_bytes(ext) : xs_ipv6_ext_bytes(ext);
        }
        next = ext[0];
    }
    *proto = next;
    return off <= end ? off : 0;
}

/* ---- what this host does with each ---- */

/* ipv6_rthdr_rcv: only a route that is at its end; segment routing (off by default in Linux) is refused. */
static enum xs_reason routing_header(const struct xs_ip_view *v, uint32_t off, uint8_t pkt_type) {
    enum xs_reason why = pull_ext(v, off);
    if (why != XS_IP_PASS) return why;
    const uint8_t *ext = v->l3 + off;
    uint8_t type = ext[XS_IPV6_ROUTING_TYPE];
    bool refused = xs_addr6_is_multicast(xs_ipv6_dst(v->l3)) || pkt_type != XS_PACKET_HOST ||
                   type == XS_IPV6_ROUTING_SEGMENT || type == XS_IPV6_ROUTING_RPL ||
                   ext[XS_IPV6_ROUTING_LEFT];
    return refused ? XS_REASON_IPV6_BAD_EXTHDR : XS_IP_PASS;
}

/* ipv6_frag_rcv: a fragment that is the whole packet goes on (RFC 6946), once. */
static enum xs_reason fragment_header(const struct xs_ip_view *v, uint32_t off, bool *had_one) {
    if (*had_one || !xs_ipv6_payload(v->l3)) return XS_REASON_IPV6_BAD_EXTHDR;
    enum xs_reason why = may_pull(v, off + XS_IPV6_EXT_BYTES);
    if (why != XS_IP_PASS) return why;
    *had_one = true;
    bool whole = !(xs_ipv6_frag(v->l3 + off) & (XS_IPV6_FRAG_OFFSET | XS_IPV6_FRAG_MORE));
    return whole ? XS_IP_PASS : XS_REASON_FRAGMENT;
}

static enum xs_reason destination_options(const struct xs_ip_view *v, uint32_t off) {
    struct xs_ip_view copy = *v; /* only hop-by-hop options may change it */
    enum xs_reason why = pull_ext(v, off);
    return why != XS_IP_PASS ? why : options(&copy, off, false);
}

enum xs_reason xs_ip_extensions(const struct xs_ip_view *v, uint8_t pkt_type, uint8_t *proto,
                                uint32_t *offset) {
    uint32_t off = XS_IPV6_BYTES;
    uint8_t next = xs_ipv6_next(v->l3);
    bool had_fragment = false;
    if (next == IPPROTO_HOPOPTS) { /* ip.rx has looked at it; anywhere else it is an unknown protocol */
        next = v->l3[off];
        off += xs_ipv6_ext_bytes(v->l3 + off);
    }
    for (;;) {
        enum xs_reason why;
        switch (next) {
        case IPPROTO_ROUTING: why = routing_header(v, off, pkt_type); break;
        case IPPROTO_FRAGMENT: why = fragment_header(v, off, &had_fragment); break;
        case IPPROTO_DSTOPTS: why = destination_options(v, off); break;
        default:
            *proto = next;
            *offset = off;
            return XS_IP_PASS;
        }
        if (why != XS_IP_PASS) return why;
        const uint8_t *ext = v->l3 + off;
        off += next == IPPROTO_FRAGMENT ? XS_IPV6_EXT_BYTES : xs_ipv6_ext_bytes(ext);
        next = ext[0];
    }
}
