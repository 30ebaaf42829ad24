/* ip.local: finds the transport protocol of a packet for this host. Contract: xdpstack/stages/ip.py.
 * Mirrors ip_local_deliver, ip_protocol_deliver_rcu, ip6_input, ip6_protocol_deliver_rcu.
 * Path: routing.rx > ip.local > udp.rx. */
#include "stages/ip.h"

#include "base/likely.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

#define ROUTED_TO_MANY (XS_PKT_ROUTED_BROADCAST | XS_PKT_ROUTED_MULTICAST)

/* UDP to this host alone, and nothing between it and the IP header that has to be looked at. */
static inline bool plain_udp(const struct xs_pkt *p) {
    uint32_t kind = p->flags & (XS_PKT_IPV6 | XS_PKT_FRAGMENT | ROUTED_TO_MANY);
    if (p->l4_proto != IPPROTO_UDP || p->pkt_type != XS_PACKET_HOST) return false;
    return !kind || (kind == XS_PKT_IPV6 && p->l4_off - p->l3_off == (int)XS_IPV6_BYTES);
}

/* ip_rcv_finish_core, RFC 1122, 3.3.6: for IPv4 it is routing that knows broadcast addresses; IPv6 was judged by ip.rx. */
static inline bool unicast_in_l2_group(const struct xs_pkt *p, const struct xs_config *config) {
    return (p->pkt_type == XS_PACKET_BROADCAST || p->pkt_type == XS_PACKET_MULTICAST) &&
           !(p->flags & (XS_PKT_IPV6 | ROUTED_TO_MANY)) &&
           (config->device[p->device].flags & XS_DEV_DROP_UNICAST_IN_MULTICAST);
}

/* ip_options_rcv_srr: a source route leads to one host. ip.rx lets one pass that is at its end, wherever that is. */
static inline bool source_route_to_many(const struct xs_pkt *p, const uint8_t *l3) {
    return p->flags & ROUTED_TO_MANY && xs_ip_source_route(l3, (uint32_t)p->l4_off - p->l3_off);
}

static enum xs_reason deliver(const struct xs_batch *b, uint32_t i, const struct xs_config *config) {
    struct xs_pkt *p = xs_pkt(b, i);
    if (unicast_in_l2_group(p, config)) return XS_REASON_UNICAST_IN_L2_MULTICAST;
    if (p->flags & XS_PKT_IPV6) {
        struct xs_ip_view v = {.l3 = xs_data(b, i) + p->l3_off,
                               .head = (uint32_t)p->data_off + p->len - p->l3_off,
                               .total = p->pkt_len - ((uint32_t)p->l3_off - p->data_off)};
        uint8_t proto;
        uint32_t off;
        enum xs_reason why = xs_ip_extensions(&v, p->pkt_type, &proto, &off);
        if (why != XS_IP_PASS) return why;
        p->l4_proto = proto;
        p->l4_off = (uint16_t)(p->l3_off + off);
    } else {
        if (source_route_to_many(p, xs_data(b, i) + p->l3_off)) return XS_REASON_IP_SOURCE_ROUTE;
        if (p->flags & XS_PKT_FRAGMENT) return XS_REASON_FRAGMENT;
    }
    return p->l4_proto == IPPROTO_UDP ? XS_IP_PASS : XS_REASON_IP_NOPROTO;
}

static __attribute__((noinline)) void deliver_slowly(struct xs_batch *b, uint32_t i,
                                                     const struct xs_config *config) {
    enum xs_reason why = deliver(b, i, config);
    b->count[XS_IP_LOCAL_SLOW]++;
    if (why == XS_IP_PASS)
        b->next[i] = XS_IP_LOCAL_INPUT;
    else
        xs_drop(b, i, why);
}

void xs_ip_local(struct xs_ip *self, struct xs_batch *b) {
    if (likely(b->facts & XS_ALL_PLAIN)) return xs_next_all(b, XS_IP_LOCAL_INPUT);
    const struct xs_config *config = xs_table(self->tables, config);
    const struct xs_pkt *pkt = b->mem->pkt;
    uint32_t n = b->n;
    for (uint32_t i = 0; i < n; i++) {
        if (likely(plain_udp(&pkt[b->frame[i]])))
            b->next[i] = XS_IP_LOCAL_INPUT;
        else
            deliver_slowly(b, i, config);
    }
}

const struct xs_stage_def xs_ip_local_def = {
    .name = "ip.local",
    .fn = (xs_stage_fn *)xs_ip_local,
    .edges = {"input"},
    .counters = {"slow"},
};
