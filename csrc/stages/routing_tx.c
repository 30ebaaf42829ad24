/* routing.tx: which way what this host sends goes, and from which address. See routing.h.
 *
 * What the kernel would loop back to itself, or send through a device that is not ours, is the kernel's: TX_SLOW, and the
 * sender's shadow socket sends it with the same options. That is: to this host's own addresses; broadcasts; multicast to
 * groups that the host has joined on the way out; other devices, tunnels.
 *
 * Bound senders: pkt.device comes in as the stack's index of the device that the sender is bound to (SO_BINDTODEVICE, a
 * link-local scope), or XS_NO_DEVICE, and leaves as the device it goes out by. A sender bound to a device that
 * is not of the stack does not come here.
 *
 * Connected sockets may one day bring the next hop that they were given before: pkt.nexthop with the FIB's generation it is
 * from (xs_fib.generation, the kernel's rt_genid); then this function would return at once. Nothing does so yet, and
 * pkt.nexthop is not looked at.
 * Path: routing.tx > udp.tx. */
#include "stages/routing.h"

#include "base/likely.h"

#include <netinet/in.h>

/* The errno of each reason, as a sender is told it: xdpstack/routing/reasons.py. */
static enum xs_reason refused(uint32_t verdict) {
    switch (verdict) {
    case XS_FIB_UNREACHABLE: return XS_REASON_ROUTE_UNREACHABLE;
    case XS_FIB_PROHIBITED: return XS_REASON_ROUTE_PROHIBIT;
    case XS_FIB_BLACKHOLE: return XS_REASON_ROUTE_BLACKHOLE;
    default: return XS_REASON_IP_OUTNOROUTES;
    }
}

/* The device of the stack with this kernel index, or NULL. */
static const struct xs_fib_link *link_of(const struct xs_fib *fib, uint32_t ifindex) {
    for (uint32_t i = 0; i < fib->nlinks; i++)
        if (fib->link[i].ifindex == ifindex) return &fib->link[i];
    return NULL;
}

static bool is_up(const struct xs_config *config, const struct xs_fib_link *link) {
    for (uint32_t i = 0; i < config->ndevices; i++)
        if (config->device[i].ifindex == link->ifindex) return config->device[i].flags & XS_DEV_UP;
    return false;
}

/* ---- IPv4: ip_route_output_key_hash_rcu(), net/ipv4/route.c ---- */

/* __ip_dev_find(): the device that has the address, or that table `local` leads to; 0 = it is not one of this host. */
static uint32_t device_of(const struct xs_fib *fib, struct xs_addr address) {
    uint32_t ifindex = xs_fib_local(fib, address);
    if (ifindex || fib->family[0].local_table == XS_FIB_NO_TABLE) return ifindex;
    struct xs_fib_key key = {.dst = address};
    struct xs_fib_result found;
    if (xs_fib_table_lookup(fib, fib->family[0].local_table, &key, &found) != XS_FIB_FOUND) return 0;
    return found.route->type == XS_ROUTE_LOCAL ? found.hop->ifindex : 0;
}

/* __mkroute_output(): the way is known, what goes it? `route` is the one that it was found by, or NULL. */
static void leave4(const struct xs_fib *fib, const struct xs_config *config, const struct xs_fib_key *key,
                   uint32_t nexthop_id, const struct xs_fib_route *route, struct xs_routed *out) {
    uint32_t dst = xs_addr_to4(key->dst);
    bool multicast = xs_addr4_is_multicast(dst);
    const struct xs_nexthop *nexthop = xs_fib_nexthop(fib, nexthop_id);
    if (unlikely(multicast) && nexthop && route &&
        route->length < 4) { /* the default route is for unicast: no gateway */
        const struct xs_fib_link *link = link_of(fib, nexthop->ifindex);
        nexthop_id = link ? link->nexthop : XS_NEXTHOP_NONE;
        nexthop = xs_fib_nexthop(fib, nexthop_id);
    }
    if (!nexthop || nexthop->device >= config->ndevices) return xs_routed_drop(out, XS_REASON_TX_SLOW);
    const struct xs_device_config *device = &config->device[nexthop->device];
    if (unlikely(xs_addr4_is_loopback(xs_addr_to4(key->src))) && !(device->flags & XS_DEV_ROUTE_LOCALNET))
        return xs_routed_drop(out, XS_REASON_INVALID_ARG);
    if (unlikely(xs_addr4_is_broadcast(dst) || (route && route->type == XS_ROUTE_BROADCAST && !multicast)))
        return xs_routed_drop(out, XS_REASON_TX_SLOW);
    if (unlikely(multicast)) {
        if (xs_fib_joined(fib, key->dst, nexthop->ifindex)) return xs_routed_drop(out, XS_REASON_TX_SLOW);
        out->flags = XS_PKT_ROUTED_MULTICAST;
    }
    out->next = XS_ROUTING_TX_OUTPUT;
    out->device = nexthop->device;
    out->nexthop = nexthop_id;
    out->src = key->src;
}

/* To the link of a device, without asking the tables. */
static void on_link4(const struct xs_fib *fib, const struct xs_config *config, struct xs_fib_key *key,
                     const struct xs_fib_link *link, uint32_t source, struct xs_routed *out) {
    if (!link) return xs_routed_drop(out, XS_REASON_TX_SLOW);
    if (xs_addr_is_any(key->src)) key->src = xs_addr_of4(source);
    leave4(fib, config, key, link->nexthop, NULL, out);
}

static void output4(const struct xs_fib *fib, const struct xs_config *config, struct xs_fib_key *key,
                    struct xs_routed *out) {
    uint32_t src = xs_addr_to4(key->src), dst = xs_addr_to4(key->dst);
    const struct xs_fib_link *bound = key->oif ? link_of(fib, key->oif) : NULL;
    bool to_all = xs_addr4_is_multicast(dst) || xs_addr4_is_broadcast(dst);
    if (src) {
        if (xs_addr4_is_multicast(src) || xs_addr4_is_broadcast(src))
            return xs_routed_drop(out, XS_REASON_INVALID_ARG);
        uint32_t owner = device_of(fib, key->src);
        if (unlikely(!owner)) return xs_routed_drop(out, XS_REASON_IP_OUTNOROUTES);
        if (unlikely(to_all && !key->oif)) return on_link4(fib, config, key, link_of(fib, owner), 0, out);
    } else {
        key->src = (struct xs_addr){0}; /* 0.0.0.0 as a source is none, however it is written */
    }
    if (unlikely(key->oif)) {
        if (!bound) return xs_routed_drop(out, XS_REASON_TX_SLOW);
        if (!is_up(config, bound)) return xs_routed_drop(out, XS_REASON_IP_OUTNOROUTES);
        if (xs_addr4_is_local_multicast(dst) || xs_addr4_is_broadcast(dst))
            return on_link4(fib, config, key, bound, bound->source_link, out);
        if (!src && to_all) key->src = xs_addr_of4(bound->source_universe);
    }
    if (unlikely(!dst)) return xs_routed_drop(out, XS_REASON_TX_SLOW); /* this host */
    struct xs_fib_result found;
    uint32_t verdict = xs_fib_lookup(fib, key, &found);
    if (unlikely(verdict != XS_FIB_FOUND)) {
        /* a bound sender reaches what is on the link of its device, whatever the tables say */
        if (bound) return on_link4(fib, config, key, bound, bound->source_link, out);
        return xs_routed_drop(out, refused(verdict));
    }
    if (found.route->type == XS_ROUTE_LOCAL) return xs_routed_drop(out, XS_REASON_TX_SLOW);
    bool choice = found.route->nhops > 1 || found.route->detour != XS_HOP_NONE;
    if (choice && !key->oif) xs_fib_select4(fib, key, &found);
    if (xs_addr_is_any(key->src)) key->src = found.hop->source;
    leave4(fib, config, key, found.hop->nexthop, found.route, out);
}

/* ---- IPv6: ip6_dst_lookup_tail(), net/ipv6/ip6_output.c ---- */

static uint32_t lookup6(const struct xs_fib *fib, struct xs_fib_key *key, struct xs_fib_result *found) {
    bool strict = key->oif || xs_ip6_is_multicast(key->dst) || xs_ip6_is_link_local(key->dst) ||
                  xs_ip6_is_loopback(key->dst);
    key->flags |= (strict ? XS_FIB_STRICT : 0) | (xs_addr_is_any(key->src) ? 0 : XS_FIB_HAS_SOURCE);
    key->prefer = key->oif;
    return xs_fib_lookup(fib, key, found);
}

/* ip6_route_get_saddr(): the route's own, or by RFC 6724; `found` is NULL when there is no route (yet). */
static bool choose_source(const struct xs_fib *fib, const struct xs_fib_result *found,
                          struct xs_fib_key *key) {
    if (!found) return xs_fib_source6(fib, key->dst, 0, false, &key->src);
    /* of a next-hop object the first hop, whichever is taken (fib6_info_nh_dev) */
    const struct xs_fib_hop *hop = found->route->grouped ? &fib->hop[found->route->hop] : found->hop;
    key->src = hop->source;
    if (!xs_addr_is_any(key->src)) return true;
    const struct xs_nexthop *nexthop = xs_fib_nexthop(fib, hop->nexthop);
    bool own_addresses = nexthop && nexthop->flags & XS_NEXTHOP_OWN_ADDRESSES;
    return xs_fib_source6(fib, key->dst, hop->ifindex, own_addresses, &key->src);
}

static void output6(const struct xs_fib *fib, const struct xs_config *config, struct xs_fib_key *key,
                    struct xs_routed *out) {
    if (key->oif && !link_of(fib, key->oif)) return xs_routed_drop(out, XS_REASON_TX_SLOW);
    if (xs_addr_is_any(key->dst)) return xs_routed_drop(out, XS_REASON_TX_SLOW); /* this host */
    struct xs_fib_result found;
    uint32_t verdict = lookup6(fib, key, &found);
    if (xs_addr_is_any(key->src)) {
        if (!choose_source(fib, verdict == XS_FIB_FOUND ? &found : NULL, key))
            return xs_routed_drop(out, XS_REASON_NO_SOURCE_ADDRESS);
        /* "pretend it never existed and let the SA-enabled version take over" */
        if (verdict != XS_FIB_FOUND) verdict = lookup6(fib, key, &found);
    }
    if (unlikely(verdict != XS_FIB_FOUND)) return xs_routed_drop(out, refused(verdict));
    const struct xs_nexthop *nexthop = xs_fib_nexthop(fib, found.hop->nexthop);
    if (found.route->looped || !nexthop || nexthop->device >= config->ndevices)
        return xs_routed_drop(out, XS_REASON_TX_SLOW);
    if (xs_ip6_is_multicast(key->dst)) {
        bool interface_local = (key->dst.hi >> 48 & 0xf) <= 1;
        if (interface_local || xs_fib_joined(fib, key->dst, nexthop->ifindex))
            return xs_routed_drop(out, XS_REASON_TX_SLOW);
        out->flags = XS_PKT_ROUTED_MULTICAST;
    }
    out->next = XS_ROUTING_TX_OUTPUT;
    out->device = nexthop->device;
    out->nexthop = found.hop->nexthop;
    out->src = key->src;
}

/* ---- the stage ---- */

void xs_routing_output(const struct xs_fib *fib, const struct xs_config *config, struct xs_fib_key *key,
                       struct xs_routed *out) {
    key->iif = XS_FIB_LOOPBACK;
    if (key->flags & XS_FIB_IPV6)
        output6(fib, config, key, out);
    else
        output4(fib, config, key, out);
}

/* What a sender asked, and what it was told. */
struct previous {
    struct xs_fib_key asked;
    struct xs_routed told;
    bool valid;
};

/* As in routing.rx: a run of datagrams that ask the same (to one peer, from one socket) is decided once. */
static inline bool same_key(const struct previous *before, const struct xs_fib_key *key) {
    const struct xs_fib_key *q = &before->asked;
    return before->valid && xs_addr_equal(key->dst, q->dst) && xs_addr_equal(key->src, q->src) &&
           !((key->oif ^ q->oif) | (key->mark ^ q->mark) | (uint32_t)(key->tos ^ q->tos) |
             (uint32_t)(key->flags ^ q->flags));
}

static __attribute__((noinline)) void decide(const struct xs_fib *fib, const struct xs_config *config,
                                             const struct xs_fib_key *key, struct previous *before) {
    struct xs_fib_key work = *key; /* the decision fills in what it finds out */
    before->told = (struct xs_routed){0};
    xs_routing_output(fib, config, &work, &before->told);
    before->asked = *key;
    before->valid = !fib->family[key->flags & XS_FIB_IPV6].needs_ports;
}

void xs_routing_tx(struct xs_routing *self, struct xs_batch *b) {
    const struct xs_fib *fib = xs_table(self->tables, fib);
    const struct xs_config *config = xs_table(self->tables, config);
    struct previous before;
    before.valid = false;
    uint64_t same = 0;
    for (uint32_t i = 0; i < b->n; i++) {
        struct xs_pkt *p = xs_pkt(b, i);
        struct xs_meta *m = xs_meta(b, i);
        struct xs_fib_key key = {
            .dst = xs_addr_load(m->dst),
            .src = xs_addr_load(m->src),
            .oif = p->device < config->ndevices ? config->device[p->device].ifindex : 0,
            .mark = p->mark,
            .user = self->user,
            .sport = p->sport,
            .dport = p->dport,
            .proto = IPPROTO_UDP,
            .tos = p->tos,
            .flags = p->flags & XS_PKT_IPV6 ? XS_FIB_IPV6 : 0,
        };
        if (same_key(&before, &key))
            same++;
        else
            decide(fib, config, &key, &before);
        const struct xs_routed *route = &before.told;
        b->next[i] = route->next;
        b->reason[i] = route->reason;
        if (route->next == XS_DROP) continue;
        xs_addr_store(m->src, route->src);
        p->flags = (uint16_t)((p->flags & ~XS_PKT_ROUTED) | route->flags);
        p->device = route->device;
        p->nexthop = route->nexthop;
    }
    b->count[XS_ROUTING_TX_SAME] += same;
}

const struct xs_stage_def xs_routing_tx_def = {
    .name = "routing.tx",
    .fn = (xs_stage_fn *)xs_routing_tx,
    .edges = {"output"},
    .counters = {"same"},
};
