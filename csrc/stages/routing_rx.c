/* routing.rx: where a received packet goes. See routing.h; the order of checks is the kernel's.
 * Path: ip.rx > routing.rx > ip.local, neigh.tx. */
#include "stages/routing.h"

#include "base/likely.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

static const struct xs_addr any4 = {0, XS_MAPPED};

static inline void deliver(struct xs_routed *out, uint16_t flag) {
    out->next = XS_ROUTING_RX_LOCAL;
    out->flags = flag;
}

static void forward(const struct xs_fib *fib, const struct xs_fib_hop *hop, struct xs_routed *out) {
    const struct xs_nexthop *nexthop = xs_fib_nexthop(fib, hop->nexthop);
    /* control and claims may be a moment apart: what leaves by none of our devices should not have been lifted */
    if (!nexthop || nexthop->device == XS_NO_DEVICE) return xs_routed_drop(out, XS_REASON_NOT_CLAIMED);
    out->next = XS_ROUTING_RX_FORWARD;
    out->nexthop = hop->nexthop;
}

/* ---- IPv4: ip_route_input_slow(), net/ipv4/route.c ---- */

/* ip_route_input_mc(), ip_mc_validate_source(). */
static enum xs_reason multicast4(const struct xs_fib *fib, const struct xs_device_config *device,
                                 const struct xs_fib_key *key) {
    uint32_t src = xs_addr_to4(key->src);
    if (!xs_fib_joined(fib, key->dst, device->ifindex)) return XS_REASON_NOT_MEMBER;
    if (xs_addr4_is_multicast(src) || xs_addr4_is_broadcast(src)) return XS_REASON_IP_INVALID_SOURCE;
    if (xs_addr4_is_loopback(src) && !(device->flags & XS_DEV_ROUTE_LOCALNET)) return XS_REASON_IP_LOCALNET;
    if (src) return xs_routing_validate(fib, device, key, any4, 0);
    bool link_local = xs_addr4_is_local_multicast(xs_addr_to4(key->dst));
    return link_local || key->proto == IPPROTO_IGMP ? XS_ROUTING_PASS : XS_REASON_IP_INVALID_SOURCE;
}

/* Why there is no way on, of a device that forwards (ip_error); one that does not was not asked. */
static enum xs_reason refused4(const struct xs_device_config *device, uint32_t verdict) {
    if (!(device->flags & XS_DEV_FORWARDING)) return XS_REASON_IP_INADDRERRORS;
    switch (verdict) {
    case XS_FIB_UNREACHABLE: return XS_REASON_ROUTE_UNREACHABLE;
    case XS_FIB_PROHIBITED: return XS_REASON_ROUTE_PROHIBIT;
    case XS_FIB_BLACKHOLE: return XS_REASON_ROUTE_BLACKHOLE;
    default: return XS_REASON_IP_INNOROUTES;
    }
}

/* What can be said of the addresses alone. */
static inline enum xs_reason martian4(const struct xs_device_config *device, uint32_t src, uint32_t dst) {
    if (!src) return XS_REASON_IP_INVALID_SOURCE;
    if (!dst) return XS_REASON_IP_INVALID_DEST;
    if ((xs_addr4_is_loopback(dst) || xs_addr4_is_loopback(src)) && !(device->flags & XS_DEV_ROUTE_LOCALNET))
        return XS_REASON_IP_LOCALNET;
    return XS_ROUTING_PASS;
}

static void broadcast4(const struct xs_fib *fib, const struct xs_device_config *device,
                       const struct xs_fib_key *key, struct xs_routed *out) {
    enum xs_reason why = XS_ROUTING_PASS;
    if (xs_addr_to4(key->src)) why = xs_routing_validate(fib, device, key, any4, 0);
    if (why != XS_ROUTING_PASS) return xs_routed_drop(out, why);
    deliver(out, XS_PKT_ROUTED_BROADCAST);
}

/* ip_mkroute_input(). */
static void forward4(const struct xs_fib *fib, const struct xs_device_config *device,
                     const struct xs_fib_key *key, struct xs_fib_result *found, struct xs_routed *out) {
    if (found->route->nhops > 1) xs_fib_select4(fib, key, found);
    enum xs_reason why = xs_routing_validate(fib, device, key, key->dst, found->hop->ifindex);
    if (why != XS_ROUTING_PASS) return xs_routed_drop(out, why);
    forward(fib, found->hop, out);
}

static void input4(const struct xs_fib *fib, const struct xs_device_config *device,
                   const struct xs_fib_key *key, struct xs_routed *out) {
    uint32_t src = xs_addr_to4(key->src), dst = xs_addr_to4(key->dst);
    enum xs_reason why;
    if (unlikely(xs_addr4_is_multicast(dst))) {
        why = multicast4(fib, device, key);
        if (why != XS_ROUTING_PASS) return xs_routed_drop(out, why);
        return deliver(out, XS_PKT_ROUTED_MULTICAST);
    }
    if (unlikely(xs_addr4_is_multicast(src) || xs_addr4_is_broadcast(src)))
        return xs_routed_drop(out, XS_REASON_IP_INVALID_SOURCE);
    if (unlikely(xs_addr4_is_broadcast(dst) || !(src | dst))) return broadcast4(fib, device, key, out);
    why = martian4(device, src, dst);
    if (unlikely(why != XS_ROUTING_PASS)) return xs_routed_drop(out, why);

    struct xs_fib_result found;
    uint32_t verdict = xs_fib_lookup(fib, key, &found);
    if (unlikely(verdict != XS_FIB_FOUND)) return xs_routed_drop(out, refused4(device, verdict));
    uint8_t type = found.route->type;
    if (likely(type == XS_ROUTE_LOCAL)) {
        why = xs_routing_validate(fib, device, key, key->dst, 0);
        if (unlikely(why != XS_ROUTING_PASS)) return xs_routed_drop(out, why);
        return deliver(out, XS_PKT_ROUTED_LOCAL);
    }
    if (type == XS_ROUTE_BROADCAST && !(device->flags & XS_DEV_BC_FORWARDING))
        return broadcast4(fib, device, key, out);
    if (type != XS_ROUTE_BROADCAST) {
        if (!(device->flags & XS_DEV_FORWARDING)) return xs_routed_drop(out, XS_REASON_IP_INADDRERRORS);
        if (type != XS_ROUTE_UNICAST) return xs_routed_drop(out, XS_REASON_IP_INVALID_DEST);
    }
    forward4(fib, device, key, &found, out);
}

/* ---- IPv6: ip6_route_input(), net/ipv6/route.c ---- */

/* rt6_need_strict(): an address that means something on one link only. */
static inline bool strict6(struct xs_addr a) {
    return xs_ip6_is_multicast(a) || xs_ip6_is_link_local(a) || xs_ip6_is_loopback(a);
}

/* ip6_forward(), as far as it is about addresses. */
static void forward6(const struct xs_fib *fib, const struct xs_device_config *device,
                     const struct xs_fib_key *key, struct xs_fib_result *found, struct xs_routed *out) {
    bool back = found->hop->ifindex == device->ifindex; /* it deserves a redirect, whoever sent it */
    if (!(device->flags & XS_DEV_FORWARDING6) || (!back && (xs_addr_is_any(key->src) || strict6(key->src))))
        return xs_routed_drop(out, XS_REASON_IP_INADDRERRORS);
    forward(fib, found->hop, out);
}

/* ip6_pkt_discard(). */
static enum xs_reason refused6(const struct xs_fib_key *key, uint32_t verdict) {
    if (verdict == XS_FIB_BLACKHOLE) return XS_REASON_ROUTE_BLACKHOLE;
    return xs_addr_is_any(key->dst) ? XS_REASON_IP_INADDRERRORS : XS_REASON_IP_INNOROUTES;
}

/* fib6_is_reject(): a route through loopback to what is not this host. */
static inline bool leads_nowhere6(const struct xs_fib_result *found) {
    const struct xs_fib_route *r = found->route;
    return !r->looped && !r->grouped && found->hop->ifindex == XS_FIB_LOOPBACK;
}

static void input6(const struct xs_fib *fib, const struct xs_device_config *device, struct xs_fib_key *key,
                   struct xs_routed *out) {
    key->flags |= XS_FIB_HAS_SOURCE | (strict6(key->dst) ? XS_FIB_STRICT : 0);
    key->prefer = device->ifindex;
    struct xs_fib_result found;
    uint32_t verdict = xs_fib_lookup(fib, key, &found);
    if (unlikely(verdict != XS_FIB_FOUND || leads_nowhere6(&found)))
        return xs_routed_drop(out, refused6(key, verdict));
    if (likely(found.route->type == XS_ROUTE_LOCAL || found.route->type == XS_ROUTE_ANYCAST)) {
        /* a group that is one of the host's addresses, too (autojoin): ip6_protocol_deliver_rcu asks who joined */
        if (likely(!xs_ip6_is_multicast(key->dst))) return deliver(out, XS_PKT_ROUTED_LOCAL);
        if (!xs_fib_joined(fib, key->dst, device->ifindex))
            return xs_routed_drop(out, XS_REASON_IP_INADDRERRORS);
        return deliver(out, XS_PKT_ROUTED_MULTICAST);
    }
    if (found.route->multicast) { /* ip6_mc_input */
        if (!xs_fib_joined(fib, key->dst, device->ifindex)) return xs_routed_drop(out, XS_REASON_NOT_MEMBER);
        return deliver(out, XS_PKT_ROUTED_MULTICAST);
    }
    forward6(fib, device, key, &found, out);
}

/* ---- the stage ---- */

void xs_routing_input(const struct xs_fib *fib, const struct xs_device_config *device, struct xs_fib_key *key,
                      struct xs_routed *out) {
    key->iif = device->ifindex;
    if (key->flags & XS_FIB_IPV6)
        input6(fib, device, key, out);
    else
        input4(fib, device, key, out);
}

/* Rules may select by ports, multipath may hash them: where no fragment hides them and the frame has them. */
static __attribute__((noinline)) void load_ports(const struct xs_pkt *p, const uint8_t *frame,
                                                 struct xs_fib_key *key) {
    bool has = p->l4_proto == IPPROTO_UDP || p->l4_proto == IPPROTO_TCP || p->l4_proto == IPPROTO_SCTP ||
               p->l4_proto == IPPROTO_UDPLITE || p->l4_proto == IPPROTO_DCCP;
    if (!has || !p->l4_off || p->flags & XS_PKT_FRAGMENT || p->l4_off + 4u > (uint32_t)p->data_off + p->len)
        return;
    key->sport = xs_get16(frame + p->l4_off);
    key->dport = xs_get16(frame + p->l4_off + 2);
}

static inline void load_key(const struct xs_fib *fib, const struct xs_pkt *p, const uint8_t *frame,
                            struct xs_fib_key *key) {
    const uint8_t *l3 = frame + p->l3_off;
    bool ipv6 = p->flags & XS_PKT_IPV6;
    *key = (struct xs_fib_key){.mark = p->mark, .proto = p->l4_proto, .tos = p->tos};
    if (ipv6) {
        key->src = xs_addr_load(xs_ipv6_src(l3));
        key->dst = xs_addr_load(xs_ipv6_dst(l3));
        key->flow_label = xs_ipv6_flow_label(l3);
        key->flags = XS_FIB_IPV6;
    } else {
        key->src = xs_addr_of4(xs_ipv4_src(l3));
        key->dst = xs_addr_of4(xs_ipv4_dst(l3));
    }
    if (unlikely(fib->family[ipv6].needs_ports)) load_ports(p, frame, key);
}

/* ---- the short way: a unicast address of this host, a source with nothing odd about it ---- */

/* 1.0.0.0 to 223.255.255.255 but for 127.0.0.0/8: what martian4() and the like have nothing to say about. */
static inline bool ordinary4(uint32_t src) {
    uint32_t top = src >> 24;
    return top - 1u < 126u || top - 128u < 96u;
}

/* What is known of addresses from packets before, since the tables say the same of an address for the whole batch. */
struct known {
    uint32_t device;     /* IPv4: by this device came ... */
    uint64_t pair;       /* ... a packet for us from and to these addresses, as loaded */
    bool any_here;       /* there is a ... */
    struct xs_addr here; /* ... destination that is here */
};

static inline bool is_here(const struct xs_fib *fib, struct xs_addr dst, struct known *known) {
    if (known->any_here && xs_addr_equal(dst, known->here)) return true;
    if (!xs_fib_is_here(fib, dst)) return false;
    known->here = dst;
    known->any_here = true;
    return true;
}

static inline bool is_local4(const struct xs_fib *fib, uint32_t address) {
    return xs_fib_may_be_local4(fib, address) && xs_fib_local(fib, xs_addr_of4(address));
}

/* input4() would deliver the packet. */
static inline bool for_us4(const struct xs_fib *fib, const struct xs_device_config *device, const uint8_t *l3,
                           struct known *known) {
    uint32_t src = xs_ipv4_src(l3);
    const struct xs_fib_family *f = &fib->family[0];
    if (!is_here(fib, xs_addr_of4(xs_ipv4_dst(l3)), known)) return false;
    if (!ordinary4(src) || device->rp_filter || f->custom_local || f->custom_rules || f->realms) return false;
    return device->flags & XS_DEV_ACCEPT_LOCAL || !is_local4(fib, src);
}

/* input4() and input6() would deliver the packet. */
static inline bool for_us(const struct xs_fib *fib, const struct xs_config *config, const struct xs_pkt *p,
                          const uint8_t *l3, struct known *known) {
    if (p->flags & XS_PKT_IPV6) return is_here(fib, xs_addr_load(xs_ipv6_dst(l3)), known);
    uint64_t pair;
    memcpy(&pair, l3 + XS_IPV4_SRC, sizeof pair);
    if (pair == known->pair && p->device == known->device) return true;
    if (!for_us4(fib, &config->device[p->device], l3, known)) return false;
    known->pair = pair;
    known->device = p->device;
    return true;
}

/* ---- the packet before ---- */

/* A packet and what was decided of it. */
struct previous {
    const struct xs_pkt *p;
    const uint8_t *l3;
    struct xs_routed route;
};

/* Packets of a flow come in runs, and a decision is a function of the tables and the key alone: the packet before this one had
 * the same key, but for ports, which nothing asks for. The kernel takes as much from the packet before (ip_route_use_hint). */
static inline bool same_key(const struct previous *before, const struct xs_pkt *p, const uint8_t *l3) {
    const struct xs_pkt *q = before->p;
    if (!q || (p->mark ^ q->mark) | (p->device ^ q->device) | (p->tos ^ q->tos) |
                  (p->l4_proto ^ q->l4_proto) | ((p->flags ^ q->flags) & XS_PKT_IPV6))
        return false;
    if (!(p->flags & XS_PKT_IPV6)) return !memcmp(l3 + XS_IPV4_SRC, before->l3 + XS_IPV4_SRC, 8);
    return xs_ipv6_flow_label(l3) == xs_ipv6_flow_label(before->l3) &&
           !memcmp(xs_ipv6_src(l3), xs_ipv6_src(before->l3), 32);
}

static void decide(const struct xs_fib *fib, const struct xs_device_config *device, const struct xs_pkt *p,
                   const uint8_t *frame, struct xs_routed *out) {
    struct xs_fib_key key;
    load_key(fib, p, frame, &key);
    *out = (struct xs_routed){0};
    xs_routing_input(fib, device, &key, out);
}

/* Whatever for_us() could not say. True when the decision was the one before's. */
static __attribute__((noinline)) bool route(const struct xs_fib *fib, const struct xs_config *config,
                                            struct xs_batch *b, uint32_t i, struct previous *before) {
    struct xs_pkt *p = xs_pkt(b, i);
    const uint8_t *frame = xs_data(b, i), *l3 = frame + p->l3_off;
    bool same = same_key(before, p, l3);
    if (!same) {
        decide(fib, &config->device[p->device], p, frame, &before->route);
        before->l3 = l3;
        before->p = fib->family[!!(p->flags & XS_PKT_IPV6)].needs_ports ? NULL : p;
    }
    p->flags |= before->route.flags;
    p->nexthop = before->route.nexthop;
    b->next[i] = before->route.next;
    b->reason[i] = before->route.reason;
    return same;
}

/* ---- a batch at once: XS_ALL_TO_ONE ---- */

/* No source of IPv4 packets is odd, or one of ours where that is a martian. */
static bool sources_are_foreign4(const struct xs_fib *fib, const struct xs_device_config *device,
                                 const struct xs_batch *b) {
    const struct xs_mem mem = *b->mem;
    const uint8_t *src =
        mem.data + xs_pkt(b, 0)->l3_off + XS_IPV4_SRC; /* of plain packets: the same in each frame */
    bool own = device->flags & XS_DEV_ACCEPT_LOCAL;
    for (uint32_t i = 0, n = b->n; i < n; i++) {
        uint32_t address = xs_get32(src + ((size_t)b->frame[i] << mem.frame_shift));
        if (unlikely(!ordinary4(address) || (!own && is_local4(fib, address)))) return false;
    }
    return true;
}

/* What for_us() asks of one packet, it asks of its addresses and device alone. Of packets to one address, by one device, the first
 * answers for all, but for the sources of IPv4. */
static bool all_local(const struct xs_fib *fib, const struct xs_config *config, struct xs_batch *b) {
    struct xs_pkt *pkts = b->mem->pkt;
    const struct xs_pkt *first = xs_pkt(b, 0);
    struct known known = {.device = XS_DEVICES_MAX};
    if (!for_us(fib, config, first, xs_data(b, 0) + first->l3_off, &known)) return false;
    if (!(first->flags & XS_PKT_IPV6) && !(b->facts & XS_ALL_ONE_FLOW) &&
        !sources_are_foreign4(fib, &config->device[first->device], b))
        return false;
    _Static_assert(XS_NEXTHOP_NONE == 0, "what napi writes; a batch with facts is as it came from the ring");
    for (uint32_t i = 0, n = b->n; i < n; i++) pkts[b->frame[i]].flags |= XS_PKT_ROUTED_LOCAL;
    xs_next_all(b, XS_ROUTING_RX_LOCAL);
    return true;
}

void xs_routing_rx(struct xs_routing *self, struct xs_batch *b) {
    const struct xs_fib *fib = xs_table(self->tables, fib);
    const struct xs_config *config = xs_table(self->tables, config);
    const struct xs_mem mem = *b->mem; /* a copy: no store through `p` can change it, it stays in registers */
    struct previous before = {0};
    struct known known = {.device = XS_DEVICES_MAX};
    uint64_t same = 0;
    uint32_t n = b->n;
    if (b->facts & XS_ALL_TO_ONE && all_local(fib, config, b)) return;
    b->facts &=
        ~(XS_ALL_TO_ONE | XS_ALL_ONE_FLOW); /* each may be answered differently, by source, TOS and mark */
    for (uint32_t i = 0; i < n; i++) {
        uint32_t frame = b->frame[i];
        struct xs_pkt *p = &mem.pkt[frame];
        p->flags &= (uint16_t)~XS_PKT_ROUTED;
        if (likely(for_us(fib, config, p, xs_frame_data(&mem, frame) + p->l3_off, &known))) {
            p->flags |= XS_PKT_ROUTED_LOCAL;
            p->nexthop = XS_NEXTHOP_NONE;
            b->next[i] = XS_ROUTING_RX_LOCAL;
        } else {
            same += route(fib, config, b, i, &before);
        }
    }
    b->count[XS_ROUTING_RX_SAME] += same;
}

const struct xs_stage_def xs_routing_rx_def = {
    .name = "routing.rx",
    .fn = (xs_stage_fn *)xs_routing_rx,
    .edges = {"local", "forward"},
    .counters = {"same"},
};
