/* neigh.tx: who is the next hop, and at which MAC? See neigh.h. Mirrors ip_finish_output2, ip6_finish_output2, neigh_output. */
#include "stages/neigh.h"

#include "tables/fib.h"
#include "tables/neigh.h"
#include "wire/eth.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

#define unlikely(x) __builtin_expect(!!(x), 0)

static const uint8_t broadcast_mac[8] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

/* What the header says now: NAT may have changed it since it was routed. */
static inline struct xs_addr destination(const struct xs_batch *b, uint32_t i, const struct xs_pkt *p) {
    const uint8_t *l3 = xs_data(b, i) + p->l3_off;
    return p->flags & XS_PKT_IPV6 ? xs_addr_load(xs_ipv6_dst(l3)) : xs_addr_of4(xs_ipv4_dst(l3));
}

void xs_neigh_write(const struct xs_batch *b, uint32_t i, const struct xs_config *config,
                    const uint8_t *mac) {
    struct xs_pkt *p = xs_pkt(b, i);
    uint16_t before =
        p->data_off; /* the IP header's, or of a forwarded packet that of its old Ethernet header */
    p->data_off = (uint16_t)(p->l3_off - XS_ETH_BYTES);
    p->len = (uint16_t)(p->len + before - p->data_off);
    p->pkt_len += (uint32_t)before - p->data_off;
    p->l3_proto = p->flags & XS_PKT_IPV6 ? XS_ETHERTYPE_IPV6 : XS_ETHERTYPE_IPV4;
    p->flags &= (uint16_t)~XS_PKT_VLAN; /* the tag was part of the old header */
    xs_eth_write(xs_data(b, i) + p->data_off, mac, config->device[p->device].mac, p->l3_proto);
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

/* Packets whose MAC follows from their address. */
static bool to_all(const struct xs_batch *b, uint32_t i, const struct xs_config *config) {
    const struct xs_pkt *p = xs_pkt(b, i);
    if (p->flags & XS_PKT_ROUTED_BROADCAST) {
        xs_neigh_write(b, i, config, broadcast_mac);
    } else if (p->flags & XS_PKT_ROUTED_MULTICAST) {
        uint8_t mac[XS_ETH_ADDR_BYTES];
        group_mac(destination(b, i, p), p->flags & XS_PKT_IPV6, mac);
        xs_neigh_write(b, i, config, mac);
    } else {
        return false;
    }
    return true;
}

void xs_neigh_tx(struct xs_neigh *self, struct xs_batch *b) {
    const struct xs_config *config = xs_table(self->tables, config);
    const struct xs_fib *fib = xs_table(self->tables, fib);
    struct xs_neigh_table *table = xs_table(self->tables, neigh);
    uint32_t n = b->n; /* what is dropped to make room in a queue is appended behind */
    for (uint32_t i = 0; i < n; i++) {
        struct xs_pkt *p = xs_pkt(b, i);
        b->next[i] = XS_NEIGH_TX_XMIT;
        const struct xs_nexthop *hop = xs_fib_nexthop(fib, p->nexthop);
        if (unlikely(!hop ||
                     hop->device >=
                         config->ndevices)) { /* held or parked for so long that its next hop is gone */
            xs_drop(b, i, XS_REASON_NEIGH_DEAD);
            continue;
        }
        p->device = hop->device; /* a forwarded packet comes with the one it was received by */
        if (unlikely(p->flags & (XS_PKT_ROUTED_BROADCAST | XS_PKT_ROUTED_MULTICAST)) && to_all(b, i, config))
            continue;
        struct xs_addr address = hop->flags & XS_NEXTHOP_GATEWAY ? hop->gateway : destination(b, i, p);
        struct xs_neigh_slot *slot = xs_neigh_find(table, p->device, address);
        uint64_t cell = slot ? atomic_load_explicit(&slot->cell, memory_order_relaxed) : 0;
        uint8_t state = xs_neigh_state(cell);
        if (unlikely(!(state & XS_NUD_VALID))) {
            xs_neigh_hold(self, b, i, address, cell);
            continue;
        }
        if (unlikely(state & XS_NUD_STALE)) ask_if_stale(self, b, p->device, slot);
        uint8_t mac[8];
        xs_neigh_mac(cell, mac);
        xs_neigh_write(b, i, config, mac);
    }
}

const struct xs_stage_def xs_neigh_tx_def = {
    .name = "neigh.tx",
    .fn = (xs_stage_fn *)xs_neigh_tx,
    .tick = (xs_tick_fn *)xs_neigh_tx_tick,
    .edges = {"xmit"},
    .counters = {"held", "asked"},
};
