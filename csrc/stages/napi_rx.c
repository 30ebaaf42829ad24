/* napi, receive: takes packets from RX rings, keeps fill rings full. Transmit is in napi_tx.c. worker.c polls the rings, by
 * xs_napi_poll(), and hands the batch to the walk; most packets are judged in there already: napi_plain.h has what makes one
 * plain, napi_run.h how others of one frame are taken in a row, napi_hints.c what devices say of a frame.
 * Contract: xdpstack/stages/napi.py. Order and barriers of the rings: base/ring.h.
 * Path: xdp.rx > napi.rx > ip.rx. */
#include "stages/napi.h"

#include <errno.h>

#include "base/likely.h"
#include "base/prefetch.h"
#include "include/xdpstack_vlan.h"
#include "stages/napi_plain.h"
#include "stages/napi_run.h"
#include "tables/sockets.h"

/* ---- ports ---- */

/* Where a packet leaves that asks for queue q of a device: by that queue if it is ours, else by one of ours, as netdev_pick_tx
 * folds a recorded queue into those there are. */
static void choose_tx_ports(struct xs_napi *self, uint32_t device) {
    uint8_t *choice = self->tx_port[device];
    uint32_t ours[XS_PORTS_MAX], n = 0;
    for (uint32_t port = 0; port < self->nports; port++)
        if (self->port[port].xsk && self->port[port].xsk->device == device) ours[n++] = port;
    for (uint32_t q = 0; q < XS_QUEUES_MAX; q++) choice[q] = n ? (uint8_t)ours[q % n] : XS_NO_PORT;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t q = self->port[ours[i]].xsk->queue;
        if (q < XS_QUEUES_MAX) choice[q] = (uint8_t)ours[i];
    }
}

void xs_napi_init(struct xs_napi *self, const struct xs_mem *mem, struct xs_pool *pool,
                  const struct xs_tables *tables) {
    memset(self, 0, sizeof *self);
    self->mem = mem;
    self->pool = pool;
    self->tables = tables;
    memset(self->tx_port, XS_NO_PORT, sizeof self->tx_port);
}

int xs_napi_attach(struct xs_napi *self, struct xs_xsk *x, uint32_t device) {
    uint32_t port = 0;
    while (port < self->nports && self->port[port].xsk) port++;
    if (port == XS_PORTS_MAX) return -ENOSPC;
    x->device = (uint8_t)device;
    x->rx_head = XS_NO_FRAME;
    if (!x->fill_target || x->fill_target > x->fill.size) x->fill_target = x->fill.size;
    self->port[port].backlog_head = self->port[port].backlog_n = 0;
    self->port[port].late_head = XS_NO_FRAME;
    self->port[port].xsk = x;
    if (self->nports == port) self->nports++;
    choose_tx_ports(self, device);
    return (int)port;
}

void xs_napi_detach(struct xs_napi *self, uint32_t port) {
    uint32_t device = self->port[port].xsk->device;
    self->port[port].xsk = NULL;
    self->starved &= ~(1ull << port);
    while (self->nports && !self->port[self->nports - 1].xsk) self->nports--;
    choose_tx_ports(self, device);
}

/* What a system call on the socket said, unless it was "later". */
void xs_napi_fault(struct xs_xsk *x, int rc) {
    if (rc == -EAGAIN || rc == -EBUSY || rc == -ENOBUFS || rc == -EINTR) return;
    x->kick_errors++;
    x->error = (uint8_t)-rc;
    if (rc == -ENXIO || rc == -ENODEV || rc == -EBADF) x->dead = 1;
}

/* ---- receive ---- */

/* Descriptors that follow each other in memory, `most` at most. */
static inline uint32_t straight(const struct xs_ring *r, uint32_t at, uint32_t most) {
    uint32_t left = r->size - (at & r->mask);
    return left < most ? left : most;
}

void xs_napi_ask(const struct xs_napi *self, uint32_t port) {
    struct xs_xsk *x = self->port[port].xsk;
    if (!x || x->dead) return;
    const struct xdp_desc *slots = x->rx.slots;
    uint32_t n = xs_ring_have(&x->rx, XS_ASK_AHEAD), before_wrap = straight(&x->rx, x->rx.cons, n);
    xs_ask_for_headers(self->mem, &slots[x->rx.cons & x->rx.mask], before_wrap);
    xs_ask_for_headers(self->mem, slots, n - before_wrap);
}

/* A buffer of a multi-buffer packet. Until the last has come it is not a packet yet, and its frames count as FILLED: the
 * kernel may put the rest on the ring at any later time, and if it never does (the device is gone) they come home as such. */
static void join(struct xs_napi *self, struct xs_xsk *x, uint32_t frame, bool more, struct xs_batch *b) {
    struct xs_pkt *pkt = self->mem->pkt;
    pkt[frame].owner = XS_FILLED;
    pkt[frame].owner_device = x->device;
    if (x->rx_head == XS_NO_FRAME) {
        x->rx_head = frame;
    } else {
        pkt[frame].flags |= XS_PKT_TAIL;
        pkt[x->rx_tail].frag = frame;
        pkt[x->rx_head].pkt_len += pkt[frame].len;
        pkt[x->rx_head].flags |= XS_PKT_MULTI;
    }
    x->rx_tail = frame;
    if (more) return;
    for (uint32_t f = x->rx_head; f != XS_NO_FRAME; f = pkt[f].frag) pkt[f].owner = XS_WALKING;
    b->frame[b->n++] = x->rx_head;
    x->rx_head = XS_NO_FRAME;
}

/* What a poll makes of descriptors. */
struct taken {
    uint32_t n;   /* descriptors */
    uint32_t bad; /* of them, such as no sound kernel makes */
    uint64_t bytes;
    struct xs_plain_facts facts; /* of plain ones */
};

static inline bool is_sound(const struct xs_mem *mem, const struct xdp_desc *d) {
    uint32_t chunk = 1u << mem->frame_shift, off = (uint32_t)d->addr & (chunk - 1);
    return d->addr < (uint64_t)mem->nframes << mem->frame_shift && (uint64_t)off + d->len <= chunk;
}

/* The length in the lower half; more than any length when there are options, such as that the packet goes on. */
static inline uint64_t len_and_options(const struct xdp_desc *d) {
    return d->len | (uint64_t)d->options << 32;
}

/* Takes descriptors of plain packets up to the one at `stop`: whether all were such. `ask` as in xs_run_to(). */
static inline __attribute__((always_inline)) bool plain_to(const struct xs_plain *plain,
                                                           const struct xs_mem *mem, uint32_t room,
                                                           const struct xdp_desc *slots, uint32_t stop,
                                                           uint32_t *frames, struct taken *t, bool ask) {
    for (; t->n < stop; t->n++, slots++) {
        uint64_t addr = slots->addr, len_options = len_and_options(slots),
                 at = xs_frame_at(mem, addr, plain->off);
        uint32_t len = (uint32_t)len_options, frame = (uint32_t)at;
        if (ask) xs_ask_for_headers(mem, slots + XS_ASK_AHEAD, 1);
        if (unlikely(at >= mem->nframes || len_options > room)) return false;
        xs_frame_open(mem, frame);
        xs_frame_close(mem, frame, plain->off + len);
        if (unlikely(!xs_plain_fill(plain, &mem->pkt[frame], mem->data + addr, len, &t->facts))) return false;
        frames[t->n] = frame;
        t->bytes += len;
    }
    return true;
}

/* Takes `most` descriptors at `d`, which lie in a row, as far as they are of plain packets. A function of its own: what is copied
 * for each packet is then copied, and not put together anew. */
static __attribute__((noinline)) bool take_plain(const struct xs_plain *plain, const struct xs_mem *memory,
                                                 const struct xdp_desc *d, uint32_t most, uint32_t *frames,
                                                 struct taken *taken) {
    const struct xs_mem mem = *memory; /* a copy: no store can change it, it stays in registers */
    const uint32_t room = (1u << mem.frame_shift) - plain->off, first = taken->n;
    const uint32_t asked = first + (most > XS_ASK_AHEAD ? most - XS_ASK_AHEAD : 0);
    struct taken t = *taken;
    bool all = plain_to(plain, &mem, room, d, asked, frames, &t, true) &&
               plain_to(plain, &mem, room, d + (asked - first), first + most, frames, &t, false);
    *taken = t;
    return all;
}

/* Takes one descriptor, whatever it is: what napi.rx does is left to it. */
static void take(struct xs_napi *self, struct xs_xsk *x, const struct xs_pkt *fresh, const struct xdp_desc *d,
                 struct xs_batch *b, struct taken *t) {
    const struct xs_mem *mem = self->mem;
    uint32_t frame = (uint32_t)(d->addr >> mem->frame_shift),
             off = (uint32_t)d->addr & ((1u << mem->frame_shift) - 1);
    t->n++;
    if (unlikely(!is_sound(mem, d))) {
        t->bad++; /* do not follow it out of the UMEM */
        return;
    }
    xs_frame_open(mem, frame);
    xs_frame_close(mem, frame, off + d->len);
    struct xs_pkt *p = &mem->pkt[frame];
    bool more = d->options & XS_UAPI_XDP_PKT_CONTD;
    *p = *fresh;
    p->pkt_len = d->len;
    p->data_off = (uint16_t)off;
    p->len = (uint16_t)d->len;
    if (unlikely(more || x->rx_head != XS_NO_FRAME))
        join(self, x, frame, more, b);
    else
        b->frame[b->n++] = frame;
}

/* Ethernet and VLAN headers into the descriptor; what is too short is flagged. eth_type_trans, skb_vlan_untag. */
static inline void parse(const struct xs_batch *b, uint32_t i, uint64_t own, uint64_t *count) {
    struct xs_pkt *p = xs_pkt(b, i);
    uint32_t off = p->data_off, len = p->len;
    const uint8_t *eth = xs_data(b, i) + off;
    if (unlikely(len < XS_ETH_BYTES)) {
        p->flags |= XS_PKT_TRUNC;
        p->l3_off = (uint16_t)off;
        count[XS_NAPI_RX_TRUNCATED]++;
        return;
    }
    p->l3_proto = xs_eth_type(eth);
    p->l3_off = (uint16_t)(off + XS_ETH_BYTES);
    p->pkt_type = xs_mac_type(eth, own);
    if (unlikely(xs_vlan_is_proto(p->l3_proto)) && !xs_vlan_read(b->mem, b->frame[i])) {
        p->flags |= XS_PKT_TRUNC;
        count[XS_NAPI_RX_TRUNCATED]++;
    }
}

/* It pays to look for plain packets: what is lifted is for sockets. Who takes whole frames wants none of it. */
static inline bool are_datagrams(const struct xs_napi *self) {
    const struct xs_socket_table *t = xs_table(self->tables, sockets);
    return t && t->nentries;
}

/* Takes what is left of `n` descriptors, and reads the Ethernet headers of packets of one frame. Returns whether all were. */
static bool take_all(struct xs_napi *self, struct xs_xsk *x, const struct xs_pkt *fresh, uint64_t own,
                     uint32_t n, struct xs_batch *b, struct taken *t) {
    const struct xs_ring *rx = &x->rx;
    const struct xdp_desc *slots = rx->slots;
    bool all = true,
         odd = x->rx_head != XS_NO_FRAME; /* the next one will be no more like others than the last */
    while (t->n < n) {
        uint32_t at = rx->cons + t->n, had = b->n;
        const struct xdp_desc *d = &slots[at & rx->mask];
        if (!odd) {
            b->n +=
                xs_napi_run(fresh, own, self->mem, d, straight(rx, at, n - t->n), &b->frame[had], &t->bytes);
            t->n += b->n - had;
            if (b->n > had) continue;
        }
        bool whole = x->rx_head == XS_NO_FRAME && !(d->options & XS_UAPI_XDP_PKT_CONTD);
        take(self, x, fresh, d, b, t);
        odd = !whole;
        all &= whole;
        if (b->n == had || !whole) continue;
        parse(b, had, own, self->polled);
        t->bytes += xs_pkt(b, had)->pkt_len;
        odd = xs_pkt(b, had)->flags;
    }
    return all;
}

/* So many frames will go to the fill ring when those that came are done with; the kernel has read these slots. */
static inline void ask_for_fill_slots(const struct xs_ring *fill, uint32_t n) {
    const uint64_t *slots = fill->slots;
    for (uint32_t i = 0; i < n; i += 64 / sizeof *slots)
        xs_ask_to_write(&slots[(fill->prod + i) & fill->mask]);
}

/* The RX ring is empty, and the NIC's interrupts are held back for us: the driver is polled in this system call. Returns what
 * has come, at most `budget`. */
static __attribute__((noinline)) uint32_t busy_poll(struct xs_xsk *x, uint32_t budget) {
    x->busy_polls++;
    int rc = x->ops->kick_rx(x);
    if (rc) xs_napi_fault(x, rc);
    return xs_ring_have(&x->rx, budget);
}

uint32_t xs_napi_poll(struct xs_napi *self, uint32_t port, uint32_t budget, struct xs_batch *b) {
    struct xs_xsk *x = self->port[port].xsk;
    uint32_t n = xs_ring_have(&x->rx, budget), first = x->rx.cons, mask = x->rx.mask;
    if (unlikely(!n)) {
        if (x->busy_poll) n = busy_poll(x, budget);
        if (!n) return 0;
        xs_napi_ask(self, port); /* there was nothing to ask for before */
    }
    const struct xdp_desc *slots = x->rx.slots;
    const struct xs_device_config *device = &xs_table(self->tables, config)->device[x->device];
    const struct xs_pkt fresh = {
        .device = x->device, .queue = x->queue, .frag = XS_NO_FRAME, .seg = XS_NO_FRAME, .owner = XS_WALKING};
    struct taken t = {0};
    ask_for_fill_slots(&x->fill, n);
    memset(self->polled, 0, sizeof self->polled);
    if (likely(x->rx_head == XS_NO_FRAME && are_datagrams(self))) {
        struct xs_plain plain;
        uint32_t off = (uint32_t)slots[first & mask].addr & ((1u << self->mem->frame_shift) - 1);
        xs_plain_init(&plain, fresh, off, device->mac, !(device->flags & XS_DEV_IPV6_DISABLED),
                      device->flags & XS_DEV_PARTIAL_CSUM);
        uint32_t before_wrap = straight(&x->rx, first, n);
        t.facts.first = self->mem->data + slots[first & mask].addr + XS_ETH_BYTES;
        if (take_plain(&plain, self->mem, &slots[first & mask], before_wrap, b->frame, &t) &&
            unlikely(before_wrap < n))
            take_plain(&plain, self->mem, slots, n - before_wrap, b->frame, &t);
        t.facts.n = b->n = t.n;
    }
    if (likely(t.n == n)) {
        b->facts = xs_plain_facts(&t.facts);
        self->polled[XS_NAPI_RX_PLAIN] = n;
    } else if (take_all(self, x, &fresh, xs_mac_number(device->mac), n, b, &t)) {
        b->facts = XS_ALL_PARSED;
    }
    if (unlikely(self->hints)) xs_napi_hints(self, x, b);
    self->polled[XS_NAPI_RX_BYTES] = t.bytes;
    xs_ring_release(&x->rx, n);
    x->rx_bad_descs += t.bad;
    x->filled -= n - t.bad;
    b->ledger->received += b->n;
    return n;
}

/* Owner, device and queue of a frame on a fill ring, to be written at once. */
static inline uint32_t filled_for(const struct xs_xsk *x) {
    const struct xs_pkt filled = {
        .owner = XS_FILLED, .owner_device = x->device, .device = x->device, .queue = x->queue};
    uint32_t word;
    _Static_assert(offsetof(struct xs_pkt, queue) == offsetof(struct xs_pkt, owner) + 3, "side by side");
    memcpy(&word, &filled.owner, sizeof word);
    return word;
}

/* Free frames into slots of the fill ring that follow each other in memory. */
static inline void fill(const struct xs_mem *memory, struct xs_xsk *x, uint32_t at, const uint32_t *frames,
                        uint32_t n) {
    const struct xs_mem mem = *memory;
    uint64_t *slot = (uint64_t *)x->fill.slots + (at & x->fill.mask);
    const uint32_t word = filled_for(x);
#pragma GCC unroll 8
    for (size_t i = 0; i < n; i++) {
        uint64_t frame = frames[i];
        memcpy(&mem.pkt[frame].owner, &word, sizeof word);
        slot[i] = frame << mem.frame_shift;
    }
}

void xs_napi_refill(struct xs_napi *self, uint32_t port) {
    struct xs_xsk *x = self->port[port].xsk;
    uint32_t want = x->fill_target > x->filled ? x->fill_target - x->filled : 0;
    /* in bulk: a refill touches the shared index once per half batch, not once per packet */
    if (want < XS_WEIGHT / 2 && x->filled > x->fill_target / 2) want = 0;
    if (want > self->pool->n) want = self->pool->n;
    uint32_t n = want ? xs_ring_room(&x->fill, want) : 0;
    if (n) {
        const uint32_t *from = &self->pool->stack[self->pool->n - n];
        uint32_t before_wrap = straight(&x->fill, x->fill.prod, n);
        fill(self->mem, x, x->fill.prod, from, before_wrap);
        fill(self->mem, x, x->fill.prod + before_wrap, from + before_wrap, n - before_wrap);
        self->pool->n -= n;
        x->filled += n;
        xs_ring_submit(&x->fill, n);
    }
    if (x->filled < x->fill_target / 2)
        self->starved |= 1ull << port;
    else
        self->starved &= ~(1ull << port);
    if (xs_ring_need_wakeup(&x->fill)) {
        x->rx_wakeups++;
        int rc = x->ops->kick_rx(x);
        if (rc) xs_napi_fault(x, rc);
    }
}

static bool too_many_frags(const struct xs_batch *b, uint32_t frame) {
    uint32_t n = 0;
    for (; frame != XS_NO_FRAME && n <= XS_FRAGS_MAX; frame = b->mem->pkt[frame].frag) n++;
    return n > XS_FRAGS_MAX;
}

void xs_napi_rx(struct xs_napi *self, struct xs_batch *b) {
    const struct xs_config *config = xs_table(self->tables, config);
    uint64_t *count = b->count, bytes = 0, own = 0;
    if (likely(b->facts & XS_ALL_PARSED)) { /* as it came from the ring, in this very poll */
        xs_next_all(b, XS_NAPI_RX_RECEIVE);
        for (uint32_t i = 0; i < XS_NAPI_RX_COUNTERS; i++) count[i] += self->polled[i];
        return;
    }
    uint32_t device = XS_DEVICES_MAX; /* whose MAC `own` is: a batch is of one port, unless a hook mixed it */
    for (uint32_t i = 0; i < b->n; i++) {
        const struct xs_pkt *p = xs_pkt(b, i);
        if (p->device != device) {
            device = p->device;
            own = xs_mac_number(config->device[device].mac);
        }
        parse(b, i, own, count);
        bytes += p->pkt_len;
        b->next[i] = XS_NAPI_RX_RECEIVE;
        if (unlikely(p->flags & XS_PKT_MULTI) && too_many_frags(b, b->frame[i]))
            xs_drop(b, i, XS_REASON_RX_TOO_MANY_FRAGS);
    }
    count[XS_NAPI_RX_BYTES] += bytes;
}

const struct xs_stage_def xs_napi_rx_def = {
    .name = "napi.rx",
    .fn = (xs_stage_fn *)xs_napi_rx,
    .edges = {"receive"},
    .counters = {"bytes", "truncated", "plain"},
};
