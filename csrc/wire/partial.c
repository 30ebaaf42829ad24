/* Telling and finishing partial checksums. See partial.h. */
#include "wire/partial.h"

#include <netinet/in.h>

#include "base/csum_frames.h"
#include "wire/eth.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/udp.h"

#define TCP_BYTES 20u
#define TCP_CSUM 16u
#define TAGS_MAX 2u

/* Where the checksum of a segment is, and what it is over. */
struct segment {
    uint64_t pseudo; /* sum of the pseudo-header */
    uint32_t at;     /* of the transport header, from the start of the frame */
    uint32_t bytes;  /* of header and payload */
    uint8_t *field;
    uint8_t protocol;
};

static bool is_tag(uint16_t ethertype) {
    return ethertype == XS_ETHERTYPE_VLAN || ethertype == XS_ETHERTYPE_QINQ;
}

/* Behind the extension headers that leave the pseudo-header as it is; 0 for others. RFC 8200, 4. */
static uint32_t behind_ipv6(const uint8_t *ip, uint32_t room, uint8_t *protocol) {
    uint32_t off = XS_IPV6_BYTES;
    *protocol = xs_ipv6_next(ip);
    while (*protocol == IPPROTO_HOPOPTS || *protocol == IPPROTO_DSTOPTS) {
        if (off + 8 > room) return 0;
        *protocol = ip[off];
        off += 8u + 8u * ip[off + 1];
    }
    return off;
}

static bool find(const struct xs_mem *mem, uint32_t frame, struct segment *out) {
    const struct xs_pkt *p = &mem->pkt[frame];
    uint8_t *eth = xs_frame_data(mem, frame) + p->data_off;
    uint32_t l3 = XS_ETH_BYTES, total, off;
    if (p->len < XS_ETH_BYTES) return false;
    uint16_t type = xs_eth_type(eth);
    for (uint32_t n = 0; is_tag(type); n++, l3 += XS_VLAN_BYTES) {
        if (n == TAGS_MAX || p->len < l3 + XS_VLAN_BYTES) return false;
        type = xs_get16(eth + l3 + 2);
    }
    const uint8_t *ip = eth + l3;
    uint32_t room = p->len - l3, addr_bytes;
    const uint8_t *addresses;
    if (type == XS_ETHERTYPE_IPV4 && room >= XS_IPV4_BYTES) {
        if (xs_get16(ip + XS_IPV4_FRAG) & 0x3fff) return false; /* a fragment's is never partial */
        out->protocol = ip[XS_IPV4_PROTOCOL];
        off = (ip[0] & 15u) * 4u;
        total = xs_ipv4_total(ip);
        addresses = ip + XS_IPV4_SRC;
        addr_bytes = 4;
        if (off < XS_IPV4_BYTES) return false;
    } else if (type == XS_ETHERTYPE_IPV6 && room >= XS_IPV6_BYTES) {
        off = behind_ipv6(ip, room, &out->protocol);
        total = XS_IPV6_BYTES + xs_ipv6_payload(ip);
        addresses = xs_ipv6_src(ip);
        addr_bytes = 16;
    } else {
        return false;
    }
    uint32_t header = out->protocol == IPPROTO_UDP ? XS_UDP_BYTES : TCP_BYTES;
    if ((out->protocol != IPPROTO_UDP && out->protocol != IPPROTO_TCP) || !off || off + header > room ||
        off + header > total || l3 + total > p->pkt_len)
        return false;
    out->at = p->data_off + l3 + off;
    out->bytes = total - off;
    out->field = eth + l3 + off + (out->protocol == IPPROTO_UDP ? XS_UDP_CSUM : TCP_CSUM);
    out->pseudo = xs_pseudo_sum(addresses, addr_bytes, out->protocol, out->bytes);
    return true;
}

static uint64_t sum_of(const struct xs_mem *mem, uint32_t frame, const struct segment *s) {
    return xs_csum_add_frames(s->pseudo, mem, frame, s->at, s->bytes);
}

/* The field is compared first: few are equal, and only these are summed, to tell a sum that is right as it is. */
static bool is_partial(const struct xs_mem *mem, uint32_t frame, struct segment *s) {
    uint16_t field;
    if (!find(mem, frame, s)) return false;
    memcpy(&field, s->field, sizeof field);
    return field && field == xs_csum_fold(s->pseudo) && !xs_csum_is_right(sum_of(mem, frame, s));
}

bool xs_partial(const struct xs_mem *mem, uint32_t frame) {
    struct segment s;
    return is_partial(mem, frame, &s);
}

bool xs_partial_complete(const struct xs_mem *mem, uint32_t frame) {
    struct segment s;
    if (!is_partial(mem, frame, &s)) return false;
    uint16_t field = 0;
    memcpy(s.field, &field, sizeof field);
    field = xs_csum_finish(sum_of(mem, frame, &s));
    if (!field && s.protocol == IPPROTO_UDP)
        field = 0xffff; /* zero would mean that there is none (RFC 768) */
    memcpy(s.field, &field, sizeof field);
    return true;
}
