/* neigh.tx: who is the next hop, and where? Contract: xdpstack/stages/neigh.py.
 *
 *      usable cell ------------------------------> Ethernet header, XMIT       (not connected: ask, once a second)
 *      none, or incomplete --> held, asked for --> tick: usable -> XMIT; failed, or 3 s over -> drop
 */
#include "stages/neigh.h"

#include "tables/fib.h"
#include "tables/neigh.h"
#include "wire/wire.h"

#define ETH_BYTES 14u
#define ETHERTYPE_IPV4 0x0800u
#define ETHERTYPE_IPV6 0x86ddu

static inline struct xs_addr destination(const struct xs_batch *b, uint32_t i, const struct xs_pkt *p) {
    const uint8_t *ip = xs_data(b, i) + p->l3_off;
    return p->flags & XS_PKT_IPV6 ? xs_addr_load(ip + 24) : xs_addr_of4(xs_get32(ip + 16));
}

static inline void write_header(const struct xs_batch *b, uint32_t i, const struct xs_config *config,
                                const uint8_t *mac) {
    struct xs_pkt *p = xs_pkt(b, i);
    uint16_t at = (uint16_t)(p->l3_off - ETH_BYTES);
    uint8_t *eth = xs_data(b, i) + at;
    memcpy(eth, mac, 6);
    memcpy(eth + 6, config->device[p->device].mac, 6);
    xs_put16(eth + 12, p->flags & XS_PKT_IPV6 ? ETHERTYPE_IPV6 : ETHERTYPE_IPV4);
    uint16_t before = p->data_off; /* a forwarded packet has its old header still */
    p->data_off = at;
    p->len = (uint16_t)(p->len + before - at);
    p->pkt_len = p->pkt_len + before - at;
}

/* ip_eth_mc_map(), ipv6_eth_mc_map() */
static inline void multicast_mac(struct xs_addr group, bool ipv6, uint8_t *mac) {
    uint32_t low = (uint32_t)group.lo;
    if (ipv6) {
        mac[0] = mac[1] = 0x33;
        xs_put32(mac + 2, low);
    } else {
        mac[0] = 0x01;
        mac[1] = 0x00;
        xs_put32(mac + 2, 0x5e000000u | (low & 0x7fffff));
    }
}

/* Asks control to have the neighbour looked for, unless that was done less than a second ago. */
static void ask(struct xs_neigh *self, struct xs_batch *b, uint32_t device, struct xs_addr address) {
    uint32_t at = xs_addr_hash(address, device) % XS_NEIGH_ASKED;
    bool same = self->asked[at].at_ns && self->asked[at].device == device &&
                xs_addr_equal(self->asked[at].address, address);
    if (same && b->now_ns - self->asked[at].at_ns < XS_NEIGH_ASK_NS) return;
    struct xs_event event = {.kind = XS_EVENT_NEIGH_WANTED, .device = device};
    xs_addr_store(event.address, address);
    if (!xs_event_raise(self->events, &event)) return;
    self->asked[at].address = address;
    self->asked[at].device = device;
    self->asked[at].at_ns = b->now_ns ? b->now_ns : 1;
    b->count[XS_NEIGH_TX_ASKED]++;
}

/* What a waiting packet costs its neighbour's queue: the skb that a local sender would have made for it. */
static uint32_t truesize(const struct xs_pkt *p) {
    uint32_t size = ((p->pkt_len + 64 + 63) & ~63u) + 320, slab = 512;
    while (slab < size) slab <<= 1;
    return slab + 256;
}

static void forget(struct xs_neigh *self, uint32_t at) {
    memmove(&self->held[at], &self->held[at + 1], (self->nheld - at - 1) * sizeof self->held[0]);
    self->nheld--;
}

/* __neigh_event_send(): the packet joins the queue of its neighbour; to make room, the oldest of that queue goes. The
 * victims leave by the batch: they are appended, as dropped. */
static void hold(struct xs_neigh *self, struct xs_batch *b, uint32_t i, struct xs_addr address) {
    struct xs_pkt *p = xs_pkt(b, i);
    uint32_t size = truesize(p), queued = 0;
    for (uint32_t k = 0; k < self->nheld; k++)
        if (self->held[k].device == p->device && xs_addr_equal(self->held[k].address, address))
            queued += self->held[k].truesize;
    for (uint32_t k = 0; k < self->nheld && queued && queued + size > XS_NEIGH_QUEUE_BYTES;) {
        if (self->held[k].device != p->device || !xs_addr_equal(self->held[k].address, address)) {
            k++;
            continue;
        }
        int victim = xs_release(b, self->held[k].frame, XS_DROP);
        if (victim < 0) break;
        b->reason[victim] = XS_REASON_NEIGH_QUEUEFULL;
        queued -= self->held[k].truesize;
        forget(self, k);
    }
    if (self->nheld == XS_NEIGH_HELD || queued + size > XS_NEIGH_QUEUE_BYTES) {
        xs_drop(b, i, XS_REASON_NEIGH_QUEUEFULL);
        return;
    }
    self->held[self->nheld++] = (struct xs_neigh_held){.address = address,
                                                       .since_ns = b->now_ns,
                                                       .frame = b->frame[i],
                                                       .device = p->device,
                                                       .truesize = size};
    p->owner = XS_HELD;
    b->next[i] = XS_KEPT;
    b->count[XS_NEIGH_TX_HELD]++;
    ask(self, b, p->device, address);
}

void xs_neigh_tx(struct xs_neigh *self, struct xs_batch *b) {
    const struct xs_config *config = xs_table(self->tables, config);
    const struct xs_neigh_table *table = xs_table(self->tables, neigh);
    const struct xs_fib *fib = xs_table(self->tables, fib);
    uint32_t n = b->n; /* victims are appended behind n */
    for (uint32_t i = 0; i < n; i++) {
        struct xs_pkt *p = xs_pkt(b, i);
        b->next[i] = XS_NEIGH_TX_XMIT;
        uint8_t mac[6];
        if (__builtin_expect(p->flags & XS_PKT_ROUTED_MULTICAST, 0)) {
            multicast_mac(destination(b, i, p), p->flags & XS_PKT_IPV6, mac);
            write_header(b, i, config, mac);
            continue;
        }
        const struct xs_nexthop *hop = xs_fib_nexthop(fib, p->nexthop);
        if (__builtin_expect(!hop, 0)) { /* its route went while it was held or parked */
            xs_drop(b, i, XS_REASON_NEIGH_DEAD);
            continue;
        }
        struct xs_addr address = hop->flags & XS_NEXTHOP_GATEWAY ? hop->gateway : destination(b, i, p);
        uint64_t cell = xs_neigh_lookup(table, p->device, address);
        uint8_t state = xs_neigh_state(cell);
        if (__builtin_expect(!(state & XS_NUD_USABLE), 0)) {
            hold(self, b, i, address);
            continue;
        }
        if (!(state & XS_NUD_CONNECTED)) ask(self, b, p->device, address);
        xs_neigh_mac(cell, mac);
        write_header(b, i, config, mac);
    }
    xs_events_wake(self->events);
}

/* What has waited: its neighbour is found, or is not to be found. */
void xs_neigh_tx_tick(struct xs_neigh *self, struct xs_batch *b) {
    const struct xs_config *config = xs_table(self->tables, config);
    const struct xs_neigh_table *table = xs_table(self->tables, neigh);
    for (uint32_t k = 0; k < self->nheld;) {
        struct xs_neigh_held *h = &self->held[k];
        uint64_t cell = xs_neigh_lookup(table, h->device, h->address);
        uint8_t state = xs_neigh_state(cell);
        bool over = state & XS_NUD_FAILED || b->now_ns - h->since_ns >= XS_NEIGH_WAIT_NS;
        bool gone = h->device >= config->ndevices || !(config->device[h->device].flags & XS_DEV_UP);
        if (!(state & XS_NUD_USABLE) && !over && !gone) {
            ask(self, b, h->device, h->address);
            k++;
            continue;
        }
        bool send = state & XS_NUD_USABLE && !gone;
        int i = xs_release(b, h->frame, send ? XS_NEIGH_TX_XMIT : XS_DROP);
        if (i < 0) break; /* the batch is full: the rest at the next tick */
        if (send) {
            uint8_t mac[6];
            xs_neigh_mac(cell, mac);
            write_header(b, (uint32_t)i, config, mac);
        } else {
            b->reason[i] = gone ? XS_REASON_DEVICE_GONE : XS_REASON_NEIGH_FAILED;
        }
        forget(self, k);
    }
    xs_events_wake(self->events);
}

const struct xs_stage_def xs_neigh_tx_def = {
    .name = "neigh.tx",
    .fn = (xs_stage_fn *)xs_neigh_tx,
    .tick = (xs_tick_fn *)xs_neigh_tx_tick,
    .edges = {"xmit"},
    .counters = {"held", "asked"},
};
