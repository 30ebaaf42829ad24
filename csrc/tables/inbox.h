/* What one worker feeds into the receive queues of sockets. One per worker, shared by the stages that deliver (udp, taps).
 *
 *      xs_inbox_put()    a packet onto a socket's feed of this worker: charged, not yet seen by the reader
 *      xs_inbox_flush()  once per poll: the readers see what was put, and those who sleep are woken
 */
#ifndef XS_TABLES_INBOX_H
#define XS_TABLES_INBOX_H

#include "base/likely.h"
#include "include/xdpstack_stage.h"
#include "tables/sockets.h"

struct xs_inbox {
    const struct xs_mem *mem;
    uint32_t worker;     /* which feed of a socket is ours */
    uint32_t frames_max; /* frames that may be on queues or lent: the rest keeps the device going (udp_mem) */
    uint64_t frames_queued; /* ever put on a queue */
    uint64_t frames_end;    /* how far that may go, when we last asked the reader */
    struct xs_feed *dirty;  /* feeds that were pushed to since the last flush */
    alignas(64) _Atomic(uint64_t)
        frames_taken; /* ever given back by the reader, who alone writes it, under the GIL */
};

/* __udp_enqueue_schedule_skb(): is there room for `size` more bytes? Asks the reader how much it has released. */
bool xs_feed_make_room(struct xs_feed *f, uint32_t size);
/* How many frames may ever have been queued by now, as of what the reader has given back. */
uint64_t xs_inbox_frames_end(struct xs_inbox *self);

/* The feed has something that the reader is to see. */
static inline void xs_inbox_mark(struct xs_inbox *self, struct xs_feed *f) {
    if (f->dirty) return;
    f->dirty = true;
    f->next_dirty = self->dirty;
    self->dirty = f;
}

/* Puts a packet on a socket's queue: 0, or the reason why not (then the packet is still the caller's). The packet's
 * payload_off and payload_len are set, and what else the reader looks at. */
static inline uint16_t xs_inbox_put(struct xs_inbox *self, struct xs_socket *s, uint32_t frame,
                                    uint32_t truesize) {
    struct xs_feed *f = &s->feed[self->worker];
    uint16_t why = 0;
    if (unlikely(f->charged + truesize > f->charged_end) && !xs_feed_make_room(f, truesize))
        why = XS_REASON_SOCKET_RCVBUFF;
    else if (unlikely(self->frames_queued >= self->frames_end) &&
             self->frames_queued >= (self->frames_end = xs_inbox_frames_end(self)))
        why = XS_REASON_PROTO_MEM;
    else if (unlikely(!xs_spsc_push(xs_feed_ring(f), frame)))
        why = XS_REASON_SOCKET_RCVBUFF;
    if (unlikely(why)) {
        *(why == XS_REASON_PROTO_MEM ? &f->drops_memory : &f->drops_rcvbuf) += 1;
        return why;
    }
    struct xs_pkt *p = &self->mem->pkt[frame];
    uint8_t worker = (uint8_t)self->worker;
    p->socket = s->index;
    p->truesize = truesize;
    for (;;) {
        p->owner = XS_QUEUED;
        p->owner_device = worker;
        self->frames_queued++;
        if (likely(p->frag == XS_NO_FRAME)) break;
        p = &self->mem->pkt[p->frag];
    }
    f->charged += truesize;
    f->datagrams++;
    xs_inbox_mark(self, f);
    return 0;
}
void xs_inbox_flush(struct xs_inbox *self);

/* A run of packets, of one frame each, onto one queue: what xs_inbox_put() counts for each is counted when the run ends. Nothing
 * else is put on the queue meanwhile. */
struct xs_inbox_run {
    struct xs_feed *feed; /* NULL: no run */
    uint32_t *slot;
    uint32_t mask, prod;
    uint32_t end;  /* how far prod may go ... */
    uint64_t room; /* ... and bytes that may be charged, as of what the reader has last said */
    uint64_t room_at_first;
    uint32_t socket;
    uint8_t worker;
};

static inline void xs_inbox_begin(const struct xs_inbox *self, struct xs_socket *s, struct xs_inbox_run *r) {
    struct xs_feed *f = &s->feed[self->worker];
    struct xs_spsc *ring = xs_feed_ring(f);
    uint64_t frames = self->frames_end > self->frames_queued ? self->frames_end - self->frames_queued : 0;
    uint32_t slots = ring->mask + 1 - (ring->prod - ring->seen_cons);
    *r = (struct xs_inbox_run){.feed = f,
                               .slot = ring->slot,
                               .mask = ring->mask,
                               .prod = ring->prod,
                               .end = ring->prod + (frames < slots ? (uint32_t)frames : slots),
                               .room = f->charged_end > f->charged ? f->charged_end - f->charged : 0,
                               .socket = s->index,
                               .worker = (uint8_t)self->worker};
    r->room_at_first = r->room;
}

/* False when the packet has to be put, for want of room that is known of. */
static inline bool xs_inbox_add(struct xs_inbox_run *r, struct xs_pkt *p, uint32_t frame, uint32_t truesize) {
    if (unlikely(truesize > r->room || r->prod == r->end)) return false;
    r->room -= truesize;
    r->slot[r->prod++ & r->mask] = frame;
    p->socket = r->socket;
    p->truesize = truesize;
    p->owner = XS_QUEUED;
    p->owner_device = r->worker;
    return true;
}

/* How many packets it was. */
uint32_t xs_inbox_end(struct xs_inbox *self, struct xs_inbox_run *r);

#endif
