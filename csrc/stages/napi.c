/* napi: takes packets from RX rings, keeps fill rings full, puts packets on TX rings, takes completions.
 * Contract: xdpstack/stages/napi.py. Order and barriers of the rings: base/ring.h. */
#include "stages/napi.h"

#include <errno.h>

#include "wire/wire.h"

#define ETH_BYTES 14u
#define VLAN_BYTES 4u
#define ETHERTYPE_VLAN 0x8100u
#define ETHERTYPE_QINQ 0x88a8u

/* ---- receive ---- */

/* One received descriptor becomes a frame with a fresh hot descriptor. */
static inline uint32_t take(struct xs_napi *self, struct xs_xsk *x, const struct xdp_desc *d) {
    const struct xs_mem *mem = self->mem;
    uint32_t frame = (uint32_t)(d->addr >> mem->frame_shift);
    mem->pkt[frame] = (struct xs_pkt){
        .pkt_len = d->len,
        .len = (uint16_t)d->len,
        .data_off = (uint16_t)(d->addr & ((1u << mem->frame_shift) - 1)),
        .device = x->device,
        .queue = x->queue,
        .frag = XS_NO_FRAME,
        .seg = XS_NO_FRAME,
        .owner = XS_WALKING,
    };
    return frame;
}

/* A further buffer of a multi-buffer packet. True when the packet is complete and in the batch. */
static bool join(struct xs_napi *self, struct xs_xsk *x, uint32_t frame, bool more, struct xs_batch *b) {
    struct xs_pkt *pkt = self->mem->pkt;
    if (x->rx_head == XS_NO_FRAME) {
        x->rx_head = frame;
        x->rx_frags = 1;
    } else {
        pkt[frame].flags |= XS_PKT_TAIL;
        pkt[x->rx_tail].frag = frame;
        pkt[x->rx_head].pkt_len += pkt[frame].len;
        pkt[x->rx_head].flags |= XS_PKT_MULTI;
        x->rx_frags++;
    }
    pkt[frame].owner = XS_HELD; /* between two polls it is held here */
    x->rx_tail = frame;
    if (more) return false;
    for (uint32_t f = x->rx_head; f != XS_NO_FRAME; f = pkt[f].frag) pkt[f].owner = XS_WALKING;
    b->frame[b->n++] = x->rx_head;
    x->rx_head = XS_NO_FRAME;
    return true;
}

uint32_t xs_napi_poll(struct xs_napi *self, uint32_t device, uint32_t budget, struct xs_batch *b) {
    struct xs_xsk *x = self->port[device].xsk;
    uint32_t n = xs_ring_have(&x->rx, budget);
    if (!n) return 0;
    const struct xdp_desc *slots = x->rx.slots;
    const struct xs_mem *mem = self->mem;
    uint64_t end = (uint64_t)mem->nframes << mem->frame_shift;
    for (uint32_t i = 0; i < n; i++) {
        const struct xdp_desc *d = &slots[(x->rx.cons + i) & x->rx.mask];
        if (__builtin_expect(d->addr >= end, 0)) { /* never from a sound kernel: do not follow it out of the UMEM */
            x->rx_bad_descs++;
            continue;
        }
        uint32_t frame = take(self, x, d);
        x->filled--;
        bool more = d->options & XS_UAPI_XDP_PKT_CONTD;
        if (__builtin_expect(more || x->rx_head != XS_NO_FRAME, 0))
            join(self, x, frame, more, b);
        else
            b->frame[b->n++] = frame;
    }
    xs_ring_release(&x->rx, n);
    b->ledger->received += b->n;
    return n;
}

void xs_napi_refill(struct xs_napi *self, uint32_t device) {
    struct xs_xsk *x = self->port[device].xsk;
    uint32_t want = self->fill_target > x->filled ? self->fill_target - x->filled : 0;
    if (want > self->pool->n) want = self->pool->n;
    /* in bulk: a refill touches the shared index once per half batch, not once per packet */
    if (want < XS_WEIGHT / 2 && x->filled > self->fill_target / 2) want = 0;
    uint32_t n = want ? xs_ring_room(&x->fill, want) : 0;
    if (n) {
        uint64_t *slots = x->fill.slots;
        const struct xs_mem *mem = self->mem;
        uint32_t *from = &self->pool->stack[self->pool->n - n];
        for (uint32_t i = 0; i < n; i++) {
            uint32_t frame = from[i];
            mem->pkt[frame].owner = XS_FILLED;
            mem->pkt[frame].owner_device = x->device;
            slots[(x->fill.prod + i) & x->fill.mask] = (uint64_t)frame << mem->frame_shift;
        }
        self->pool->n -= n;
        x->filled += n;
        xs_ring_submit(&x->fill, n);
    }
    if (xs_ring_need_wakeup(&x->fill)) {
        x->rx_wakeups++;
        x->ops->kick_rx(x);
    }
}

/* Ethernet and VLAN headers into the descriptor; what is too short keeps l3_proto 0 and is flagged. */
static inline void parse(const struct xs_batch *b, uint32_t i, const struct xs_config *config, uint64_t *count) {
    struct xs_pkt *p = xs_pkt(b, i);
    const uint8_t *eth = xs_data(b, i) + p->data_off;
    if (__builtin_expect(p->len < ETH_BYTES, 0)) {
        p->flags |= XS_PKT_TRUNC;
        p->l3_off = p->data_off;
        count[XS_NAPI_RX_TRUNCATED]++;
        return;
    }
    uint32_t off = ETH_BYTES;
    uint16_t proto = xs_get16(eth + 12);
    if (__builtin_expect(proto == ETHERTYPE_VLAN || proto == ETHERTYPE_QINQ, 0)) {
        struct xs_meta *m = xs_meta(b, i);
        if (p->len < off + VLAN_BYTES) {
            p->flags |= XS_PKT_TRUNC;
            count[XS_NAPI_RX_TRUNCATED]++;
        } else { /* the outermost tag; a second one stays as the ethertype, for whoever handles QinQ */
            p->flags |= XS_PKT_VLAN;
            m->vlan_proto = proto;
            m->vlan_tci = xs_get16(eth + off);
            proto = xs_get16(eth + off + 2);
            off += VLAN_BYTES;
        }
    }
    p->l3_proto = proto;
    p->l3_off = (uint16_t)(p->data_off + off);
    /* eth_type_trans: own MAC, or else by the group bit */
    const uint8_t *mac = config->device[p->device].mac;
    uint64_t dst = 0, own = 0;
    memcpy(&dst, eth, 6);
    memcpy(&own, mac, 6);
    if (dst == own)
        p->pkt_type = XS_PACKET_HOST;
    else if (eth[0] & 1)
        p->pkt_type = dst == 0xffffffffffffull ? XS_PACKET_BROADCAST : XS_PACKET_MULTICAST;
    else
        p->pkt_type = XS_PACKET_OTHERHOST;
}

void xs_napi_rx(struct xs_napi *self, struct xs_batch *b) {
    const struct xs_config *config = xs_table(self->tables, config);
    uint64_t *count = b->count, bytes = 0;
    for (uint32_t i = 0; i < b->n; i++) {
        parse(b, i, config, count);
        bytes += xs_pkt(b, i)->pkt_len;
        b->next[i] = XS_NAPI_RX_RECEIVE;
    }
    count[XS_NAPI_RX_PACKETS_BYTES] += bytes;
}

/* ---- transmit ---- */

void xs_napi_complete(struct xs_napi *self, uint32_t device) {
    struct xs_xsk *x = self->port[device].xsk;
    if (!x->transmitting) return;
    uint32_t n = xs_ring_have(&x->comp, x->transmitting);
    if (!n) return;
    const uint64_t *slots = x->comp.slots;
    const struct xs_mem *mem = self->mem;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t frame = (uint32_t)(slots[(x->comp.cons + i) & x->comp.mask] >> mem->frame_shift);
        xs_pool_put(self->pool, mem, frame);
    }
    xs_ring_release(&x->comp, n);
    x->transmitting -= n;
}

/* All frames of one packet onto the TX ring; false when they do not fit. */
static inline bool put(struct xs_napi *self, struct xs_xsk *x, uint32_t frame) {
    const struct xs_mem *mem = self->mem;
    uint32_t need = 1;
    if (__builtin_expect(mem->pkt[frame].frag != XS_NO_FRAME, 0))
        for (uint32_t f = mem->pkt[frame].frag; f != XS_NO_FRAME; f = mem->pkt[f].frag) need++;
    if (xs_ring_room(&x->tx, need) < need) return false;
    struct xdp_desc *slots = x->tx.slots;
    for (uint32_t f = frame, i = 0; f != XS_NO_FRAME; i++) {
        struct xs_pkt *p = &mem->pkt[f];
        uint32_t next = p->frag;
        slots[(x->tx.prod + i) & x->tx.mask] = (struct xdp_desc){
            .addr = ((uint64_t)f << mem->frame_shift) + p->data_off,
            .len = p->len,
            .options = next != XS_NO_FRAME ? XS_UAPI_XDP_PKT_CONTD : 0,
        };
        p->owner = XS_TRANSMITTING;
        p->owner_device = x->device;
        f = next;
    }
    x->tx.prod += need; /* published in bulk: xs_ring_submit() at the end of the batch */
    x->transmitting += need;
    x->unkicked += need;
    return true;
}

static bool put_or_make_room(struct xs_napi *self, struct xs_xsk *x, uint32_t frame) {
    if (put(self, x, frame)) return true;
    xs_ring_submit(&x->tx, 0);
    xs_napi_kick(self, x->device);
    xs_napi_complete(self, x->device);
    return put(self, x, frame);
}

void xs_napi_tx(struct xs_napi *self, struct xs_batch *b) {
    uint64_t used = 0;
    for (uint32_t i = 0; i < b->n; i++) {
        struct xs_pkt *p = xs_pkt(b, i);
        struct xs_port *port = &self->port[p->device];
        uint32_t pkt_len = p->pkt_len;
        b->next[i] = XS_KEPT;
        if (p->device >= self->nports || !port->xsk || port->xsk->dead) {
            xs_drop(b, i, XS_REASON_DEVICE_GONE);
        } else if (!port->backlog_n && put_or_make_room(self, port->xsk, b->frame[i])) {
            used |= 1ull << p->device;
            b->ledger->sent++;
            b->count[XS_NAPI_TX_BYTES] += pkt_len;
        } else if (port->backlog_n < XS_TX_BACKLOG) { /* in order, behind those that wait already */
            port->backlog[(port->backlog_head + port->backlog_n++) % XS_TX_BACKLOG] = b->frame[i];
            p->owner = XS_HELD;
            b->count[XS_NAPI_TX_BACKLOGGED]++;
        } else {
            xs_drop(b, i, XS_REASON_QDISC_DROP);
        }
    }
    for (; used; used &= used - 1) xs_ring_submit(&self->port[__builtin_ctzll(used)].xsk->tx, 0);
}

/* Sends what waited for room, oldest first. */
void xs_napi_tx_tick(struct xs_napi *self, struct xs_batch *b) {
    for (uint32_t device = 0; device < self->nports; device++) {
        struct xs_port *port = &self->port[device];
        if (!port->backlog_n) continue;
        bool gone = !port->xsk || port->xsk->dead;
        while (port->backlog_n) {
            uint32_t frame = port->backlog[port->backlog_head];
            uint32_t pkt_len = self->mem->pkt[frame].pkt_len;
            if (gone) {
                int i = xs_release(b, frame, XS_DROP);
                if (i < 0) return;
                b->reason[i] = XS_REASON_DEVICE_GONE;
            } else if (put_or_make_room(self, port->xsk, frame)) {
                b->ledger->sent++;
                b->count[XS_NAPI_TX_BYTES] += pkt_len;
            } else {
                break;
            }
            port->backlog_head = (port->backlog_head + 1) % XS_TX_BACKLOG;
            port->backlog_n--;
        }
        if (!gone) xs_ring_submit(&port->xsk->tx, 0);
    }
}

void xs_napi_kick(struct xs_napi *self, uint32_t device) {
    struct xs_xsk *x = self->port[device].xsk;
    if (!x->transmitting || x->dead) return;
    /* in copy mode the kernel only sends when told to; need_wakeup says whether it must be told */
    if (!xs_ring_need_wakeup(&x->tx)) {
        x->kicks_spared += x->unkicked != 0;
        x->unkicked = 0;
        return;
    }
    x->kicks++;
    int rc = x->ops->kick_tx(x);
    if (rc == 0) {
        x->unkicked = 0;
    } else if (rc == -ENXIO || rc == -ENETDOWN || rc == -ENODEV) {
        x->kick_errors++;
    }
}

uint32_t xs_napi_tx_room(struct xs_napi *self, uint32_t device) {
    struct xs_port *port = &self->port[device];
    if (!port->xsk || port->xsk->dead) return 0;
    return xs_ring_room(&port->xsk->tx, XS_WEIGHT) + (XS_TX_BACKLOG - port->backlog_n);
}

const struct xs_stage_def xs_napi_rx_def = {
    .name = "napi.rx",
    .fn = (xs_stage_fn *)xs_napi_rx,
    .edges = {"receive"},
    .counters = {"bytes", "truncated"},
};
const struct xs_stage_def xs_napi_tx_def = {
    .name = "napi.tx",
    .fn = (xs_stage_fn *)xs_napi_tx,
    .tick = (xs_tick_fn *)xs_napi_tx_tick,
    .edges = {0},
    .counters = {"bytes", "backlogged"},
};
