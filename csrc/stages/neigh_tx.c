/* neigh.tx: who is the next hop, and at which MAC? See neigh.h. Mirrors ip_finish_output2, ip6_finish_output2, neigh_output.
 * Path: routing.rx, ip.tx > neigh.tx > napi.tx. */
#include "stages/neigh.h"

#include "base/likely.h"
#include "tables/fib.h"
#include "tables/neigh.h"
#include "wire/eth.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

static const uint8_t broadcast_mac[8] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

/* What the header says now: NAT may have changed it since it was routed. */
static inline struct xs_addr destination(const struct xs_batch *b, uint32_t i, const struct xs_pkt *p) {
    const uint8_t *l3 = xs_data(b, i) + p->l3_off;
    return p->flags & XS_PKT_IPV6 ? xs_addr_load(xs_ipv6_dst(l3)) : xs_addr_of4(xs_ipv4_dst(l3));
}

/* Makes room for `header`, XS_ETH_BYTES of it, before the IP header, and puts it there. */
static inline void put(const struct xs_batch *b, uint32_t i, const uint8_t *header) {
    struct xs_pkt *p = xs_pkt(b, i);
    uint32_t at = (uint32_t)p->l3_off - XS_ETH_BYTES;
    int32_t grows = (int32_t)p->data_off -
                    (int32_t)at; /* data: the IP header, or the old Ethernet header of a forwarded one */
    p->data_off = (uint16_t)at;
    p->len = (uint16_t)(p->len + grows);
    p->pkt_len += (uint32_t)grows;
    p->l3_proto = p->flags & XS_PKT_IPV6 ? XS_ETHERTYPE_IPV6 : XS_ETHERTYPE_IPV4;
    memcpy(xs_data(b, i) + at, header, XS_ETH_BYTES);
}

/* The same with the tags that the sender wants, one or two, between the addresses and the type: vlan_dev_hard_header(). */
static __attribute__((noinline)) void put_tagged(const struct xs_batch *b, uint32_t i,
                                                 const uint8_t *header) {
    struct xs_pkt *p = xs_pkt(b, i);
    const struct xs_meta *m = xs_meta(b, i);
    if (p->data_off != p->l3_off) { /* forwarded: the tag was part of its old header */
        p->flags &= (uint16_t)~XS_PKT_VLAN;
        put(b, i, header);
        return;
    }
    uint16_t inner = m->vlan_proto == XS_ETHERTYPE_QINQ ? m->vlan_inner_tci : 0;
    uint32_t grows = XS_ETH_BYTES + (inner ? 2 : 1) * XS_VLAN_BYTES;
    p->data_off = (uint16_t)(p->l3_off - grows);
    p->len = (uint16_t)(p->len + grows);
    p->pkt_len += grows;
    p->l3_proto = p->flags & XS_PKT_IPV6 ? XS_ETHERTYPE_IPV6 : XS_ETHERTYPE_IPV4;
    uint8_t *eth = xs_data(b, i) + p->data_off, *type = eth + grows - 2;
    memcpy(eth, header, XS_ETH_TYPE);
    xs_put16(eth + XS_ETH_TYPE, m->vlan_proto);
    xs_put16(eth + XS_ETH_TYPE + 2, m->vlan_tci);
    if (inner) {
        xs_put16(type - XS_VLAN_BYTES, XS_ETHERTYPE_VLAN);
        xs_put16(type - XS_VLAN_BYTES + 2, inner);
    }
    xs_put16(type, p->l3_proto);
}

static inline void make(uint8_t *header, const struct xs_pkt *p, const struct xs_config *config,
                        const uint8_t *mac) {
    xs_eth_write(header, mac, config->device[p->device].mac,
                 p->flags & XS_PKT_IPV6 ? XS_ETHERTYPE_IPV6 : XS_ETHERTYPE_IPV4);
}

void xs_neigh_write(const struct xs_batch *b, uint32_t i, const struct xs_config *config,
                    const uint8_t *mac) {
    uint8_t header[XS_ETH_BYTES];
    make(header, xs_pkt(b, i), config, mac);
    if (unlikely(xs_pkt(b, i)->flags & XS_PKT_VLAN))
        put_tagged(b, i, header);
    else
        put(b, i, header);
}

/* ip_eth_mc_map() (RFC 1112, 6.4), ipv6_eth_mc_map() (RFC 2464, 7). */
static void group_mac(struct xs_addr group, bool ipv6, uint8_t *mac) {
    uint32_t low = (uint32_t)group.lo;
    xs_put16(mac, ipv6 ? 0x3333 : 0x0100);
    xs_put32(mac + 2, ipv6 ? low : 0x5e000000u | (low & 0x7fffffu));
}

/* neigh_event_send() of an entry that is stale: the kernel is told that it is used, and looks whether it is still there. */
static __attribute__((noinline)) void ask_if_stale(struct xs_neigh *self, struct xs_batch *b, uint32_t device,
                                                   struct xs_neigh_slot *slot) {
    uint32_t now_ms = (uint32_t)(b->now_ns / 1000000u) | 1; /* never 0: that is "never" */
    uint32_t asked_ms = atomic_load_explicit(&slot->asked_ms, memory_order_relaxed);
    if (asked_ms && now_ms - asked_ms < XS_NEIGH_ASK_NS / 1000000u) return;
    if (xs_neigh_ask(self, b, device, slot->address))
        atomic_store_explicit(&slot->asked_ms, now_ms, memory_order_relaxed);
}

/* arp_constructor(): the address stands for all on its link, by table `local`. The kernel knows such a neighbour from the
 * start and announces it to nobody, so it is decided here. */
static bool is_broadcast(const struct xs_fib *fib, const struct xs_nexthop *hop, struct xs_addr address) {
    uint32_t local = fib->family[0].local_table;
    bool ipv4 = !address.hi && address.lo >> 32 == XS_MAPPED >> 32;
    if (!ipv4 || local == XS_FIB_NO_TABLE) return false;
    struct xs_fib_key key = {.dst = address};
    struct xs_fib_result found;
    return xs_fib_table_lookup(fib, local, &key, &found) == XS_FIB_FOUND &&
           found.route->type == XS_ROUTE_BROADCAST && found.hop->ifindex == hop->ifindex;
}

/* A packet to a group: its MAC follows from its address. */
static __attribute__((noinline)) void to_group(const struct xs_batch *b, uint32_t i,
                                               const struct xs_config *config) {
    const struct xs_pkt *p = xs_pkt(b, i);
    uint8_t mac[XS_ETH_ADDR_BYTES];
    group_mac(destination(b, i, p), p->flags & XS_PKT_IPV6, mac);
    xs_neigh_write(b, i, config, mac);
}

/* What was found for the packet before: packets come in runs. Everything here holds for the batch, but for the cell. */
struct previous {
    const struct xs_nexthop *hop;
    struct xs_neigh_slot *slot;
    struct xs_addr address;
    uint64_t cell;
    uint16_t ipv6;
    uint8_t header[XS_ETH_BYTES];
};

void xs_neigh_tx(struct xs_neigh *self, struct xs_batch *b) {
    const struct xs_config *config = xs_table(self->tables, config);
    const struct xs_fib *fib = xs_table(self->tables, fib);
    struct xs_neigh_table *table = xs_table(self->tables, neigh);
    struct previous before = {0};
    uint32_t n = b->n; /* what leaves a queue, sent or dropped, is appended behind */
    bool followed = false;
    for (uint32_t i = 0; i < n; i++) {
        struct xs_pkt *p = xs_pkt(b, i);
        b->next[i] = XS_NEIGH_TX_XMIT;
        const struct xs_nexthop *hop = before.hop;
        if (!hop || hop->id != p->nexthop) hop = xs_fib_nexthop(fib, p->nexthop);
        if (unlikely(!hop || hop->device >= config->ndevices)) {
            xs_drop(b, i, XS_REASON_NEIGH_DEAD); /* gone since it was routed: another table */
            continue;
        }
        p->device = hop->device; /* a forwarded packet comes with the one it was received by */
        if (unlikely(p->flags & XS_PKT_ROUTED_MULTICAST)) {
            to_group(b, i, config);
            continue;
        }
        struct xs_addr address = hop->flags & XS_NEXTHOP_GATEWAY ? hop->gateway : destination(b, i, p);
        struct xs_neigh_slot *slot = before.slot;
        if (hop != before.hop || !xs_addr_equal(address, before.address))
            slot = xs_neigh_find(table, p->device, address);
        uint64_t cell = slot ? atomic_load_explicit(&slot->cell, memory_order_relaxed) : 0;
        uint8_t state = xs_neigh_state(cell);
        if (unlikely(!(state & XS_NUD_VALID))) {
            if (is_broadcast(fib, hop, address)) {
                xs_neigh_write(b, i, config, broadcast_mac);
                continue;
            }
            xs_neigh_hold(self, b, i, address, cell);
            continue;
        }
        if (unlikely(self->nwaits) && xs_neigh_follow(self, b, i, config, address, cell)) {
            followed = true;
            continue;
        }
        if (unlikely(state & XS_NUD_STALE)) ask_if_stale(self, b, p->device, slot);
        if (slot != before.slot || cell != before.cell || hop != before.hop ||
            before.ipv6 != (p->flags & XS_PKT_IPV6)) {
            uint8_t mac[8];
            xs_neigh_mac(cell, mac);
            make(before.header, p, config, mac);
            before.hop = hop;
            before.slot = slot;
            before.address = address;
            before.cell = cell;
            before.ipv6 = p->flags & XS_PKT_IPV6;
        }
        if (unlikely(p->flags & XS_PKT_VLAN))
            put_tagged(b, i, before.header);
        else
            put(b, i, before.header);
    }
    if (unlikely(followed)) xs_neigh_release(self, b);
}

const struct xs_stage_def xs_neigh_tx_def = {
    .name = "neigh.tx",
    .fn = (xs_stage_fn *)xs_neigh_tx,
    .tick = (xs_tick_fn *)xs_neigh_tx_tick,
    .edges = {"xmit"},
    .counters = {"held", "asked"},
};
