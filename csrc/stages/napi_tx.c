/* napi, transmit: puts packets on TX rings, or into a queue of 1,024 packets where a ring is full, and takes completions. Receive
 * is in napi_rx.c. Received packets that leave get the checksum that was left to hardware. The kernel is told (xs_napi_kick())
 * behind the walk, once for all that was put: xs_worker_finish() in worker.c. Devices whose queue another worker has:
 * napi_cross.c; what is asked of devices: napi_offload.c.
 * Contract: xdpstack/stages/napi.py. Order and barriers of the rings: base/ring.h.
 * Path: neigh.tx > napi.tx. */
#include "stages/napi.h"

#include <errno.h>

#include "base/likely.h"
#include "stages/napi_plain.h"
#include "wire/partial.h"

/* The number of the port by which a packet for this queue of a device leaves, or XS_NO_PORT. */
static inline uint32_t tx_port(const struct xs_napi *self, uint32_t device, uint32_t queue) {
    return device < XS_DEVICES_MAX ? self->tx_port[device][queue % XS_QUEUES_MAX] : XS_NO_PORT;
}

void xs_napi_complete(struct xs_napi *self, uint32_t port) {
    struct xs_xsk *x = self->port[port].xsk;
    if (!x->transmitting) return;
    uint32_t n = xs_ring_have(&x->comp, x->transmitting);
    if (!n) return;
    const uint64_t *slots = x->comp.slots;
    const struct xs_mem mem = *self->mem; /* a copy: no store can change it, it stays in registers */
    struct xs_pool *pool = self->pool;
    const uint32_t at = x->comp.cons, mask = x->comp.mask;
    uint32_t bad = 0;
    struct xs_pool_run run = xs_pool_run(pool);
    if (unlikely(x->tx_offloads & XS_TX_TIMESTAMP)) xs_napi_note_sent(self, x, n);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t frame = slots[(at + i) & mask] >> mem.frame_shift;
        if (unlikely(frame >= mem.nframes || mem.pkt[frame].owner != XS_TRANSMITTING))
            bad++; /* never from a sound kernel: a frame that it was not given, or has given back */
        else
            xs_pool_run_put(pool, &run, &mem, (uint32_t)frame);
    }
    xs_pool_run_end(pool, &run);
    xs_ring_release(&x->comp, n);
    x->bad_completions += bad;
    x->transmitting -= n - bad;
}

/* Frames of a packet; 0 if the socket cannot send it, and in `why` for which reason: the kernel would skip such a descriptor
 * without ever giving the frame back. What a descriptor has to be: xp_aligned_validate_desc, xsk_build_skb; how many there may
 * be: xs_xsk_frags_max(). */
static inline uint32_t frames_of(const struct xs_mem *mem, const struct xs_xsk *x, uint32_t frame,
                                 enum xs_reason *why) {
    uint32_t chunk = 1u << mem->frame_shift, n = 0;
    do {
        const struct xs_pkt *p = &mem->pkt[frame];
        *why = p->len ? XS_REASON_PKT_TOO_BIG : XS_REASON_PKT_TOO_SMALL;
        if (!p->len || (uint32_t)p->data_off + p->len > chunk) return 0;
        n++;
        frame = p->frag;
    } while (unlikely(frame != XS_NO_FRAME));
    *why = XS_REASON_TX_TOO_MANY_FRAGS;
    return likely(n == 1) || (n <= x->frags_max && n <= x->tx.size) ? n : 0;
}

/* All `need` frames of one packet onto the TX ring; false when they do not fit. Published by submit(). */
static inline bool put(const struct xs_mem *mem, struct xs_xsk *x, uint32_t frame, uint32_t need) {
    if (xs_ring_room(&x->tx, need) < need) return false;
    struct xdp_desc *slots = x->tx.slots;
    uint32_t at = x->tx.prod, options = unlikely(x->tx_metadata) ? xs_napi_request(mem, x, frame) : 0;
    do {
        struct xs_pkt *p = &mem->pkt[frame];
        uint32_t next = p->frag;
        slots[at++ & x->tx.mask] = (struct xdp_desc){
            .addr = ((uint64_t)frame << mem->frame_shift) + p->data_off,
            .len = p->len,
            .options = options | (next != XS_NO_FRAME ? XS_UAPI_XDP_PKT_CONTD : 0),
        };
        options = 0;
        p->owner = XS_TRANSMITTING;
        p->owner_device = x->device;
        p->queue = x->queue;
        frame = next;
    } while (unlikely(frame != XS_NO_FRAME));
    x->tx.prod = at;
    return true;
}

/* Lets the kernel see what was put. Once a batch, not once a packet. */
static inline void submit(struct xs_xsk *x) {
    uint32_t new = x->tx.prod - atomic_load_explicit(x->tx.producer, memory_order_relaxed);
    x->transmitting += new;
    x->unkicked += new;
    xs_ring_submit(&x->tx, 0);
}

static bool put_or_make_room(struct xs_napi *self, uint32_t port, uint32_t frame, uint32_t need) {
    struct xs_xsk *x = self->port[port].xsk;
    if (put(self->mem, x, frame, need)) return true;
    submit(x);
    xs_napi_kick(self, port);
    return put(self->mem, x, frame, need);
}

/* Device and queue, and owner and owner's device, at once. */
static inline uint16_t way_of(const struct xs_pkt *p) {
    _Static_assert(offsetof(struct xs_pkt, queue) == offsetof(struct xs_pkt, device) + 1, "side by side");
    uint16_t way;
    memcpy(&way, &p->device, sizeof way);
    return way;
}

static inline uint16_t owner_of(const struct xs_pkt *p) {
    _Static_assert(offsetof(struct xs_pkt, owner_device) == offsetof(struct xs_pkt, owner) + 1,
                   "side by side");
    uint16_t owner;
    memcpy(&owner, &p->owner, sizeof owner);
    return owner;
}

/* The ordinary case, in a row: packets of one frame that ask for the same queue, while there is room. Returns the first packet
 * that is anything else, or b->n. Adds the bytes sent to `bytes`. */
static uint32_t put_run(struct xs_napi *self, struct xs_batch *b, uint32_t i, uint32_t port,
                        uint64_t *bytes) {
    struct xs_xsk *x = self->port[port].xsk;
    if (self->port[port].backlog_n) return i; /* behind those that wait already */
    if (unlikely(x->tx_metadata)) return i;   /* each may have something to ask of the device */
    const struct xs_mem mem = *b->mem;        /* a copy: no store can change it, it stays in registers */
    struct xdp_desc *slots = x->tx.slots;
    const uint32_t room = xs_ring_room(&x->tx, b->n - i), mask = x->tx.mask, *frames = &b->frame[i];
    const struct xs_pkt sent = {
        .owner = XS_TRANSMITTING, .owner_device = x->device, .device = x->device, .queue = x->queue};
    const uint16_t wanted = way_of(&mem.pkt[*frames]), owner = owner_of(&sent);
    if (mem.pkt[*frames].device != x->device) return i;
    uint32_t prod = x->tx.prod, n = 0;
    uint64_t sum = 0;
    for (; n < room; n++) {
        uint64_t frame = frames[n];
        struct xs_pkt *p = &mem.pkt[frame];
        uint64_t off = p->data_off, len = p->len;
        if (way_of(p) != wanted || p->frag != XS_NO_FRAME || !len || off + len > 1u << mem.frame_shift) break;
        struct xdp_desc *d = &slots[prod++ & mask];
        d->addr = (frame << mem.frame_shift) + off;
        memcpy(&d->len, &len, sizeof len); /* and no options */
        memcpy(&p->owner, &owner, sizeof owner);
        p->queue = sent.queue;
        sum += len;
    }
    memset(&b->next[i], XS_KEPT, n);
    x->tx.prod = prod;
    *bytes += sum;
    return i + n;
}

/* Any packet: put, kept to wait, or dropped. Returns whether it was put. */
static bool put_one(struct xs_napi *self, struct xs_batch *b, uint32_t i, uint32_t at) {
    struct xs_port *port = &self->port[at];
    enum xs_reason why;
    uint32_t frame = b->frame[i], need = frames_of(b->mem, port->xsk, frame, &why);
    if (!need) {
        xs_drop(b, i, why);
        return false;
    }
    b->next[i] = XS_KEPT;
    if (!port->backlog_n && put_or_make_room(self, at, frame, need)) return true;
    if (port->backlog_n == XS_TX_BACKLOG && !self->taking_over) {
        xs_drop(b, i, XS_REASON_QDISC_DROP);
        return false;
    }
    xs_own(b->mem, frame, XS_HELD);
    if (likely(port->backlog_n < XS_TX_BACKLOG)) /* in order */
        port->backlog[(port->backlog_head + port->backlog_n++) % XS_TX_BACKLOG] = frame;
    else
        xs_napi_keep_late(self, at, frame);
    b->count[XS_NAPI_TX_BACKLOGGED]++;
    return false;
}

/* Whether packets may have come here with their checksum left to hardware. */
static inline bool some_are_partial(const struct xs_config *config) {
    uint32_t flags = 0;
    for (uint32_t i = 0; i < config->ndevices; i++) flags |= config->device[i].flags;
    return flags & XS_DEV_PARTIAL_CSUM;
}

/* Whether it is an ordinary IPv4 datagram whose checksum is not that of the pseudo header: nearly all are, and need no closer look. */
static inline bool is_surely_complete(const struct xs_pkt *p, const uint8_t *eth) {
    const uint8_t *ip = eth + XS_ETH_BYTES, *uh = ip + XS_IPV4_BYTES;
    if (p->len < XS_ETH_BYTES + XS_IPV4_BYTES + XS_UDP_BYTES || xs_eth_type(eth) != XS_ETHERTYPE_IPV4 ||
        ip[0] != 0x45 || ip[XS_IPV4_PROTOCOL] != IPPROTO_UDP ||
        xs_udp_length(uh) + XS_IPV4_BYTES != xs_ipv4_total(ip))
        return false;
    uint16_t field;
    memcpy(&field, uh + XS_UDP_CSUM, sizeof field);
    return !field || field != xs_csum_fold(xs_plain_pseudo(ip + XS_IPV4_SRC, 4, uh));
}

/* What was received and leaves again gets the checksum that its sender did not finish: validate_xmit_skb(). What is sent from
 * here has its own. */
static __attribute__((noinline)) void complete_checksums(struct xs_batch *b) {
    for (uint32_t i = 0; i < b->n; i++) {
        struct xs_pkt *p = xs_pkt(b, i);
        if (p->csum == XS_CSUM_VERIFIED || p->pkt_type == XS_PACKET_OUTGOING) continue;
        if (is_surely_complete(p, xs_data(b, i) + p->data_off)) continue;
        if (!xs_partial_complete(b->mem, b->frame[i])) continue;
        p->csum = XS_CSUM_VERIFIED;
        b->count[XS_NAPI_TX_CSUM_COMPLETED]++;
    }
}

void xs_napi_tx(struct xs_napi *self, struct xs_batch *b) {
    if (!(b->facts & XS_ALL_OUTGOING) && unlikely(some_are_partial(xs_table(self->tables, config))))
        complete_checksums(b);
    uint64_t used = 0, sent = 0, bytes = 0;
    for (uint32_t i = 0; i < b->n; i++) {
        const struct xs_pkt *p = xs_pkt(b, i);
        uint32_t at = tx_port(self, p->device, p->queue);
        if (at == XS_NO_PORT && self->crossing) {
            xs_napi_hand_over(self, b, i);
            continue;
        }
        if (at == XS_NO_PORT || self->port[at].xsk->dead) {
            xs_drop(b, i, XS_REASON_DEVICE_GONE);
            continue;
        }
        used |= 1ull << at;
        uint32_t next = put_run(self, b, i, at, &bytes);
        sent += next - i;
        if (next > i) {
            i = next - 1;
            continue;
        }
        uint32_t pkt_len = p->pkt_len;
        if (put_one(self, b, i, at)) {
            sent++;
            bytes += pkt_len;
        }
    }
    for (; used; used &= used - 1) submit(self->port[__builtin_ctzll(used)].xsk);
    b->ledger->sent += sent;
    b->count[XS_NAPI_TX_BYTES] += bytes;
}

/* Sends what waited for room, oldest first. */
static void drain_backlog(struct xs_napi *self, uint32_t at, struct xs_batch *b) {
    struct xs_port *port = &self->port[at];
    while (port->backlog_n) {
        uint32_t frame = port->backlog[port->backlog_head];
        uint32_t pkt_len = self->mem->pkt[frame].pkt_len;
        enum xs_reason why; /* none: it was asked before it came to wait */
        if (port->xsk->dead) {
            int i = xs_release(b, frame, XS_DROP);
            if (i < 0) return;
            b->reason[i] = XS_REASON_DEVICE_GONE;
        } else if (put_or_make_room(self, at, frame, frames_of(self->mem, port->xsk, frame, &why))) {
            b->ledger->sent++;
            b->count[XS_NAPI_TX_BYTES] += pkt_len;
        } else {
            break;
        }
        xs_napi_pop_backlog(self, at);
    }
    submit(port->xsk);
}

void xs_napi_tx_tick(struct xs_napi *self, struct xs_batch *b) {
    for (uint32_t port = 0; port < self->nports; port++)
        if (self->port[port].backlog_n) drain_backlog(self, port, b);
}

/* Descriptors that the kernel has not taken off the TX ring yet. */
static inline uint32_t untaken(const struct xs_xsk *x) {
    return x->tx.prod - atomic_load_explicit(x->tx.consumer, memory_order_acquire);
}

/* Frames that cost more than it does to take a socket out of epoll and to put it back. */
#define MANY 32u

/* In copy mode the kernel sends only inside this system call, and not always all of it: as long as it gets on, it is told
 * again. A driver in zero-copy mode says by need_wakeup whether it must be told; it takes what is on the ring later.
 *
 * For each frame that has gone copy mode wakes whoever waits on the socket, as there is room to send again: sock_wfree(). Epoll
 * waits for received frames alone and goes on waiting, which costs 150 instructions a frame (ep_poll_callback()). So the socket
 * is not in it while many are sent; what came meanwhile is seen when it is put back. */
void xs_napi_kick(struct xs_napi *self, uint32_t port) {
    struct xs_xsk *x = self->port[port].xsk;
    if (!x->transmitting || x->dead) return;
    if (!x->always_kick && !xs_ring_need_wakeup(&x->tx)) {
        x->kicks_spared += x->unkicked != 0;
        x->unkicked = 0;
        xs_napi_complete(self, port);
        return;
    }
    uint32_t left = untaken(x);
    if (!left) x->unkicked = 0;
    bool unwatched = left >= MANY && !x->zero_copy;
    if (unwatched) xs_xsk_unwatch(x);
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
    if (unwatched) xs_xsk_watch(x);
}

bool xs_napi_unfinished(const struct xs_napi *self) {
    for (uint32_t port = 0; port < self->nports; port++) {
        const struct xs_xsk *x = self->port[port].xsk;
        if (x && !x->dead && (x->unwatched || self->port[port].backlog_n || (x->transmitting && untaken(x))))
            return true;
    }
    return self->starved != 0;
}

uint32_t xs_napi_tx_room(struct xs_napi *self, uint32_t device) {
    uint32_t at = tx_port(self, device, 0);
    if (at == XS_NO_PORT && self->crossing) return xs_napi_hand_over_room(self, device, 0);
    const struct xs_port *port = &self->port[at % XS_PORTS_MAX];
    if (at == XS_NO_PORT || port->xsk->dead) return 0;
    uint32_t waiting = XS_TX_BACKLOG - port->backlog_n;
    /* those that wait already have the ring's room before anyone else */
    return port->backlog_n ? waiting : xs_ring_room(&port->xsk->tx, XS_WEIGHT) + waiting;
}

const struct xs_stage_def xs_napi_tx_def = {
    .name = "napi.tx",
    .fn = (xs_stage_fn *)xs_napi_tx,
    .tick = (xs_tick_fn *)xs_napi_tx_tick,
    .edges = {0},
    .counters = {"bytes", "backlogged", "handed_over", "csum_completed"},
};
