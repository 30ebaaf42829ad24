/* ip.rx: validates the IP header. Contract: xdpstack/stages/ip.py. Mirrors net/ipv4/ip_input.c, net/ipv6/ip6_input.c.
 * Path: napi.rx > ip.rx > routing.rx. */
#include "stages/ip.h"

#include "base/likely.h"
#include "wire/eth.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

/* Bytes of the packet before its IP header. */
static inline uint32_t l2_bytes(const struct xs_pkt *p) { return (uint32_t)p->l3_off - p->data_off; }

/* ---- the long way: every check, in the kernel's order ---- */

/* pskb_trim_rcsum: cuts the packet to `total` bytes from its IP header on. Whole frames behind the cut go home. */
static void trim(struct xs_ip *self, const struct xs_mem *mem, struct xs_pkt *p, uint32_t total) {
    uint32_t pkt_len = l2_bytes(p) + total, left = pkt_len;
    if (pkt_len >= p->pkt_len) return;
    struct xs_pkt *last = p;
    while (left > last->len) {
        left -= last->len;
        last = &mem->pkt[last->frag];
    }
    last->len = (uint16_t)left;
    xs_pool_put_packet(self->pool, mem, last->frag);
    last->frag = XS_NO_FRAME;
    if (p->frag == XS_NO_FRAME) p->flags &= (uint16_t)~XS_PKT_MULTI;
    p->pkt_len = pkt_len;
}

/* ip_rcv_core, and the options of ip_rcv_finish_core. */
static enum xs_reason receive4(struct xs_ip *self, const struct xs_mem *mem, struct xs_pkt *p,
                               struct xs_ip_view *v, const struct xs_device_config *device) {
    const uint8_t *l3 = v->l3;
    if (p->pkt_type == XS_PACKET_OTHERHOST) return XS_REASON_OTHERHOST;
    if (!xs_ipv4_fits(v->total)) return XS_REASON_IP_INHDR;
    if (!xs_ipv4_fits(v->head)) return XS_REASON_PKT_TOO_SMALL;
    uint32_t header = xs_ipv4_header_bytes(l3);
    if (header < XS_IPV4_BYTES || xs_ipv4_version(l3) != 4) return XS_REASON_IP_INHDR;
    if (header > v->total) return XS_REASON_IP_INHDR;
    if (header > v->head) return XS_REASON_PKT_TOO_SMALL;
    if (!xs_ipv4_csum_ok(l3, header)) return XS_REASON_IP_CSUM;
    uint32_t total = xs_ipv4_total(l3);
    if (total > v->total) return XS_REASON_PKT_TOO_SMALL;
    if (total < header) return XS_REASON_IP_INHDR;
    trim(self, mem, p, total);
    if (header > XS_IPV4_BYTES) {
        enum xs_reason why =
            xs_ip_options(l3, header, p->pkt_type, (device->flags & XS_DEV_SOURCE_ROUTE) != 0);
        if (why != XS_IP_PASS) return why;
    }
    p->l4_off = (uint16_t)(p->l3_off + header);
    p->l4_proto = xs_ipv4_protocol(l3);
    p->tos = xs_ipv4_tos(l3);
    if (xs_ipv4_is_fragment(l3)) p->flags |= XS_PKT_FRAGMENT;
    return XS_IP_PASS;
}

/* What ip6_rcv_core holds against the addresses. RFC 4291. */
static enum xs_reason addresses6(const uint8_t *l3, uint8_t pkt_type, uint32_t device_flags) {
    const uint8_t *src = xs_ipv6_src(l3), *dst = xs_ipv6_dst(l3);
    bool loopback = device_flags & XS_DEV_LOOPBACK, multicast = xs_addr6_is_multicast(dst);
    bool l2_group = pkt_type == XS_PACKET_BROADCAST || pkt_type == XS_PACKET_MULTICAST;
    if (!loopback && (xs_addr6_is_loopback(src) || xs_addr6_is_loopback(dst))) return XS_REASON_IP_INHDR;
    if (!loopback && multicast && xs_addr6_scope(dst) == XS_SCOPE_INTERFACE) return XS_REASON_IP_INHDR;
    if (!multicast && l2_group && (device_flags & XS_DEV_DROP_UNICAST_IN_MULTICAST6))
        return XS_REASON_UNICAST_IN_L2_MULTICAST;
    if (multicast && xs_addr6_scope(dst) == XS_SCOPE_RESERVED) return XS_REASON_IP_INHDR;
    if (xs_addr6_is_multicast(src)) return XS_REASON_IP_INHDR;
    return XS_IP_PASS;
}

/* ip6_rcv_core. */
static enum xs_reason receive6(struct xs_ip *self, const struct xs_mem *mem, struct xs_pkt *p,
                               struct xs_ip_view *v, const struct xs_device_config *device) {
    const uint8_t *l3 = v->l3;
    if (p->pkt_type == XS_PACKET_OTHERHOST) return XS_REASON_OTHERHOST;
    if (device->flags & XS_DEV_IPV6_DISABLED) return XS_REASON_IPV6DISABLED;
    if (!xs_ipv6_fits(v->total)) return XS_REASON_IP_INHDR;
    if (!xs_ipv6_fits(v->head)) return XS_REASON_PKT_TOO_SMALL;
    if (xs_ipv6_version(l3) != 6) return XS_REASON_UNHANDLED_PROTO;
    enum xs_reason why = addresses6(l3, p->pkt_type, device->flags);
    if (why != XS_IP_PASS) return why;
    uint32_t total = XS_IPV6_BYTES + xs_ipv6_payload(l3);
    bool hop_by_hop = xs_ipv6_next(l3) == IPPROTO_HOPOPTS;
    if (total > XS_IPV6_BYTES || !hop_by_hop) { /* 0 may mean that a jumbo payload option has the length */
        if (total > v->total) return XS_REASON_PKT_TOO_SMALL;
        v->total = total;
    }
    if (hop_by_hop) {
        why = xs_ip_hopopts(v);
        if (why != XS_IP_PASS) return why;
    }
    if (v->total > XS_IPV6_BYTES + XS_IPV6_PAYLOAD_MAX)
        return XS_REASON_PKT_TOO_BIG; /* payload_len has 16 bits */
    trim(self, mem, p, v->total);
    /* On the wire such an address is nobody's; behind this stage it would be taken for an IPv4 address. */
    if (xs_addr_is_mapped(xs_ipv6_dst(l3))) return XS_REASON_IP_INADDRERRORS;
    bool fragment = false;
    uint8_t proto = xs_ipv6_next(l3);
    uint32_t off = xs_ip_find_transport(v, &proto, &fragment);
    p->l4_off = (uint16_t)(off ? p->l3_off + off : 0);
    p->l4_proto = proto;
    p->tos = xs_ipv6_traffic_class(l3);
    p->flags |= (uint16_t)(XS_PKT_IPV6 | (fragment ? XS_PKT_FRAGMENT : 0));
    return XS_IP_PASS;
}

static __attribute__((noinline)) void receive(struct xs_ip *self, struct xs_batch *b, uint32_t i,
                                              const struct xs_config *config) {
    struct xs_pkt *p = xs_pkt(b, i);
    struct xs_ip_view v = {.l3 = xs_data(b, i) + p->l3_off,
                           .head = (uint32_t)p->data_off + p->len - p->l3_off,
                           .total = p->pkt_len - l2_bytes(p)};
    enum xs_reason why = XS_REASON_UNHANDLED_PROTO;
    if (p->flags & XS_PKT_TRUNC)
        why = XS_REASON_HDR_TRUNC;
    else if (p->l3_proto == XS_ETHERTYPE_IPV4)
        why = receive4(self, b->mem, p, &v, &config->device[p->device]);
    else if (p->l3_proto == XS_ETHERTYPE_IPV6)
        why = receive6(self, b->mem, p, &v, &config->device[p->device]);
    b->count[XS_IP_RX_SLOW]++;
    if (why == XS_IP_PASS)
        b->next[i] = XS_IP_RX_PREROUTING;
    else
        xs_drop(b, i, why);
}

/* ---- the short way ---- */

/* All of the above at once, for IPv4 without options and fragments in one frame. `head` is at least an IPv4 header. */
static inline bool plain4(const struct xs_pkt *p, const uint8_t *l3, uint32_t head, uint32_t total) {
    return l3[0] == XS_IPV4_PLAIN && p->pkt_type != XS_PACKET_OTHERHOST &&
           total - XS_IPV4_BYTES <= head - XS_IPV4_BYTES && !xs_ipv4_is_fragment(l3) &&
           xs_ipv4_csum_ok(l3, XS_IPV4_BYTES);
}

/* The same for IPv6 from one host to another, without extension headers. `head` is at least an IPv6 header. */
static inline bool plain6(const struct xs_pkt *p, const uint8_t *l3, uint32_t head, uint32_t total,
                          uint32_t device_flags) {
    uint64_t src_high, dst_high;
    memcpy(&src_high, xs_ipv6_src(l3), 8);
    memcpy(&dst_high, xs_ipv6_dst(l3), 8);
    return xs_ipv6_version(l3) == 6 && p->pkt_type == XS_PACKET_HOST && total <= head &&
           !xs_ipv6_is_extension(xs_ipv6_next(l3)) && !(device_flags & XS_DEV_IPV6_DISABLED) && src_high &&
           dst_high && /* neither loopback nor mapped */
           !xs_addr6_is_multicast(xs_ipv6_src(l3)) && !xs_addr6_is_multicast(xs_ipv6_dst(l3));
}

/* True when the packet is done with. */
static inline bool receive_plain(struct xs_pkt *p, const uint8_t *l3, const struct xs_config *config) {
    uint32_t l2 = l2_bytes(p), head = p->len - l2, total;
    if (p->frag != XS_NO_FRAME) return false;
    if (likely(p->l3_proto == XS_ETHERTYPE_IPV4)) {
        if (head < XS_IPV4_BYTES || !plain4(p, l3, head, total = xs_ipv4_total(l3))) return false;
        p->l4_off = (uint16_t)(p->l3_off + XS_IPV4_BYTES);
        p->l4_proto = xs_ipv4_protocol(l3);
        p->tos = xs_ipv4_tos(l3);
    } else if (p->l3_proto == XS_ETHERTYPE_IPV6) {
        if (head < XS_IPV6_BYTES) return false;
        total = XS_IPV6_BYTES + xs_ipv6_payload(l3);
        if (!plain6(p, l3, head, total, config->device[p->device].flags)) return false;
        p->l4_off = (uint16_t)(p->l3_off + XS_IPV6_BYTES);
        p->l4_proto = xs_ipv6_next(l3);
        p->tos = xs_ipv6_traffic_class(l3);
        p->flags |= XS_PKT_IPV6;
    } else {
        return false;
    }
    p->pkt_len = l2 += total;
    p->len = (uint16_t)l2;
    return true;
}

/* Plain packets need nothing but to end where their IP packet ends. */
static void receive_all(struct xs_batch *b) {
    xs_next_all(b, XS_IP_RX_PREROUTING);
    if (likely(b->facts & XS_ALL_TRIMMED)) return;
    for (uint32_t i = 0; i < b->n; i++) {
        struct xs_pkt *p = xs_pkt(b, i);
        p->pkt_len = p->len = (uint16_t)(p->payload_off + p->payload_len - p->data_off);
    }
    b->facts |= XS_ALL_TRIMMED;
}

void xs_ip_rx(struct xs_ip *self, struct xs_batch *b) {
    if (likely(b->facts & XS_ALL_PLAIN)) return receive_all(b);
    const struct xs_config *config = xs_table(self->tables, config);
    const struct xs_mem mem = *b->mem; /* a copy: no store through `p` can change it, it stays in registers */
    uint32_t n = b->n;
    for (uint32_t i = 0; i < n; i++) {
        struct xs_pkt *p = &mem.pkt[b->frame[i]];
        if (likely(receive_plain(p, xs_frame_data(&mem, b->frame[i]) + p->l3_off, config)))
            b->next[i] = XS_IP_RX_PREROUTING;
        else
            receive(self, b, i, config);
    }
}

const struct xs_stage_def xs_ip_rx_def = {
    .name = "ip.rx",
    .fn = (xs_stage_fn *)xs_ip_rx,
    .edges = {"prerouting"},
    .counters = {"slow"},
};
