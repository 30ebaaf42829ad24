/* napi, transmit: puts packets on TX rings, tells the kernel, takes completions. Receive is in napi.c.
 * Contract: xdpstack/stages/napi.py. Order and barriers of the rings: base/ring.h. */
#include "stages/napi.h"

#include <errno.h>

static inline struct xs_port *tx_port(struct xs_napi *self, uint32_t device, uint32_t queue) {
    if (device >= XS_DEVICES_MAX) return NULL;
    uint32_t port = self->tx_port[device][queue % XS_QUEUES_MAX];
    return port == XS_NO_PORT ? NULL : &self->port[port];
}

void xs_napi_complete(struct xs_napi *self, uint32_t port) {
    struct xs_xsk *x = self->port[port].xsk;
    if (!x->transmitting) return;
    uint32_t n = xs_ring_have(&x->comp, x->transmitting);
    if (!n) return;
    const uint64_t *slots = x->comp.slots;
    const struct xs_mem *mem = self->mem;
    uint32_t bad = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t frame = slots[(x->comp.cons + i) & x->comp.mask] >> mem->frame_shift;
        if (__builtin_expect(frame >= mem->nframes || mem->pkt[frame].owner != XS_TRANSMITTING, 0))
            bad++; /* never from a sound kernel: a frame that it was not given, or has given back */
        else
            xs_pool_put(self->pool, mem, (uint32_t)frame);
    }
    xs_ring_release(&x->comp, n);
    x->bad_completions += bad;
    x->transmitting -= n - bad;
}

/* Frames of a packet, or 0 if the socket cannot send it: the kernel would skip such a descriptor without ever giving the
 * frame back. What a descriptor has to be: xp_aligned_validate_desc, xsk_build_skb. */
static uint32_t frames_of(const struct xs_napi *self, const struct xs_xsk *x, uint32_t frame) {
    const struct xs_mem *mem = self->mem;
    uint32_t n = 0;
    for (; frame != XS_NO_FRAME; frame = mem->pkt[frame].frag) {
        const struct xs_pkt *p = &mem->pkt[frame];
        if (!p->len || (uint32_t)p->data_off + p->len > 1u << mem->frame_shift) return 0;
        n++;
    }
    return n == 1 || (x->multi && n <= XS_FRAGS_MAX - 1) ? n : 0;
}

/* All `need` frames of one packet onto the TX ring; false when they do not fit. */
static inline bool put(struct xs_napi *self, struct xs_xsk *x, uint32_t frame, uint32_t need) {
    const struct xs_mem *mem = self->mem;
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
        p->queue = x->queue;
        f = next;
    }
    x->tx.prod += need; /* published in bulk: xs_ring_submit() at the end of the batch */
    x->transmitting += need;
    x->unkicked += need;
    return true;
}

static bool put_or_make_room(struct xs_napi *self, struct xs_port *port, uint32_t frame, uint32_t need) {
    struct xs_xsk *x = port->xsk;
    if (put(self, x, frame, need)) return true;
    xs_ring_submit(&x->tx, 0);
    xs_napi_kick(self, (uint32_t)(port - self->port));
    return put(self, x, frame, need);
}

void xs_napi_tx(struct xs_napi *self, struct xs_batch *b) {
    uint64_t used = 0;
    for (uint32_t i = 0; i < b->n; i++) {
        struct xs_pkt *p = xs_pkt(b, i);
        struct xs_port *port = tx_port(self, p->device, p->queue);
        if (!port || port->xsk->dead) {
            xs_drop(b, i, XS_REASON_DEVICE_GONE);
            continue;
        }
        uint32_t need = frames_of(self, port->xsk, b->frame[i]);
        if (!need) {
            xs_drop(b, i, p->len ? XS_REASON_PKT_TOO_BIG : XS_REASON_PKT_TOO_SMALL);
            continue;
        }
        uint32_t pkt_len = p->pkt_len;
        b->next[i] = XS_KEPT;
        if (!port->backlog_n && put_or_make_room(self, port, b->frame[i], need)) {
            used |= 1ull << (port - self->port);
            b->ledger->sent++;
            b->count[XS_NAPI_TX_BYTES] += pkt_len;
        } else if (port->backlog_n < XS_TX_BACKLOG) { /* in order, behind those that wait already */
            port->backlog[(port->backlog_head + port->backlog_n++) % XS_TX_BACKLOG] = b->frame[i];
            xs_own(b->mem, b->frame[i], XS_HELD);
            b->count[XS_NAPI_TX_BACKLOGGED]++;
        } else {
            xs_drop(b, i, XS_REASON_QDISC_DROP);
        }
    }
    for (; used; used &= used - 1) xs_ring_submit(&self->port[__builtin_ctzll(used)].xsk->tx, 0);
}

/* Sends what waited for room, oldest first. */
static void drain_backlog(struct xs_napi *self, struct xs_port *port, struct xs_batch *b) {
    while (port->backlog_n) {
        uint32_t frame = port->backlog[port->backlog_head];
        uint32_t pkt_len = self->mem->pkt[frame].pkt_len;
        if (port->xsk->dead) {
            int i = xs_release(b, frame, XS_DROP);
            if (i < 0) return;
            b->reason[i] = XS_REASON_DEVICE_GONE;
        } else if (put_or_make_room(self, port, frame, frames_of(self, port->xsk, frame))) {
            b->ledger->sent++;
            b->count[XS_NAPI_TX_BYTES] += pkt_len;
        } else {
            break;
        }
        port->backlog_head = (port->backlog_head + 1) % XS_TX_BACKLOG;
        port->backlog_n--;
    }
    xs_ring_submit(&port->xsk->tx, 0);
}

void xs_napi_tx_tick(struct xs_napi *self, struct xs_batch *b) {
    for (uint32_t port = 0; port < self->nports; port++)
        if (self->port[port].backlog_n) drain_backlog(self, &self->port[port], b);
}

/* Descriptors that the kernel has not taken off the TX ring yet. */
static inline uint32_t untaken(const struct xs_xsk *x) {
    return x->tx.prod - atomic_load_explicit(x->tx.consumer, memory_order_acquire);
}

/* In copy mode the kernel sends only inside this system call, and not always all of it: as long as it gets on, it is told
 * again. A driver in zero-copy mode says by need_wakeup whether it must be told; it takes what is on the ring later. */
void xs_napi_kick(struct xs_napi *self, uint32_t port) {
    struct xs_xsk *x = self->port[port].xsk;
    if (!x->transmitting || x->dead) return;
    if (!xs_ring_need_wakeup(&x->tx)) {
        x->kicks_spared += x->unkicked != 0;
        x->unkicked = 0;
        xs_napi_complete(self, port);
        return;
    }
    uint32_t left = untaken(x);
    if (!left) x->unkicked = 0;
    for (uint32_t before = left + 1; left && left < before;) {
        before = left;
        x->kicks++;
        int rc = x->ops->kick_tx(x);
        xs_napi_complete(self, port); /* a full completion ring is one of the causes of "later" */
        if (rc == 0) {
            x->unkicked = 0;
            if (x->error == ENETDOWN) x->error = 0; /* it is up again */
            break;
        }
        xs_napi_fault(x, rc);
        if (rc != -EAGAIN && rc != -EBUSY && rc != -ENOBUFS) break;
        left = untaken(x);
    }
}

bool xs_napi_unfinished(const struct xs_napi *self) {
    for (uint32_t port = 0; port < self->nports; port++) {
        const struct xs_xsk *x = self->port[port].xsk;
        if (x && !x->dead && (self->port[port].backlog_n || (x->transmitting && untaken(x)))) return true;
    }
    return self->starved != 0;
}

uint32_t xs_napi_tx_room(struct xs_napi *self, uint32_t device) {
    struct xs_port *port = tx_port(self, device, 0);
    if (!port || port->xsk->dead) return 0;
    return xs_ring_room(&port->xsk->tx, XS_WEIGHT) + (XS_TX_BACKLOG - port->backlog_n);
}

const struct xs_stage_def xs_napi_tx_def = {
    .name = "napi.tx",
    .fn = (xs_stage_fn *)xs_napi_tx,
    .tick = (xs_tick_fn *)xs_napi_tx_tick,
    .edges = {0},
    .counters = {"bytes", "backlogged"},
};
