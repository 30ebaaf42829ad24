/* Receive queues, the worker's side: room, charge, publication, wake-up. See tables/inbox.h. */
#include "tables/inbox.h"

static uint64_t charged_by_others(const struct xs_socket *s, uint32_t worker) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < s->nfeeds; i++)
        if (i != worker) sum += atomic_load_explicit(&s->feed[i].charged_seen, memory_order_relaxed);
    return sum;
}

/* __udp_enqueue_schedule_skb(): room for `size` more? An empty queue takes a datagram of any size. */
static inline bool has_room(struct xs_socket *s, struct xs_feed *f, uint32_t worker, uint32_t size) {
    uint64_t rcvbuf = atomic_load_explicit(&s->rcvbuf, memory_order_relaxed);
    uint64_t charged = f->charged;
    if (__builtin_expect(s->nfeeds > 1, 0)) charged += charged_by_others(s, worker);
    if (charged - f->seen_released + size <= rcvbuf) return true;
    f->seen_released = atomic_load_explicit(&s->released, memory_order_acquire);
    uint64_t rmem = charged - f->seen_released;
    return rmem + size <= rcvbuf || rmem == 0;
}

static inline void own(struct xs_inbox *self, uint32_t frame) {
    for (; frame != XS_NO_FRAME; frame = self->mem->pkt[frame].frag) {
        self->mem->pkt[frame].owner = XS_QUEUED;
        self->mem->pkt[frame].owner_device = (uint8_t)self->worker;
        self->frames_queued++;
    }
}

static uint16_t refused(struct xs_feed *f, uint16_t why) {
    f->drops++;
    return why;
}

uint16_t xs_inbox_put(struct xs_inbox *self, struct xs_socket *s, uint32_t frame, uint32_t truesize) {
    struct xs_feed *f = &s->feed[self->worker];
    if (__builtin_expect(!has_room(s, f, self->worker, truesize), 0))
        return refused(f, XS_REASON_SOCKET_RCVBUFF);
    uint64_t out = self->frames_queued - atomic_load_explicit(&self->frames_taken, memory_order_relaxed);
    if (__builtin_expect(out >= self->frames_max, 0)) return refused(f, XS_REASON_PROTO_MEM);
    if (__builtin_expect(!xs_spsc_push(f->ring, frame), 0)) return refused(f, XS_REASON_SOCKET_RCVBUFF);
    struct xs_pkt *p = &self->mem->pkt[frame];
    p->socket = s->index;
    p->nexthop = truesize; /* routing is behind us: on a queue the field says what the packet was charged */
    own(self, frame);
    f->charged += truesize;
    f->datagrams++;
    if (!f->dirty) {
        f->dirty = true;
        f->next_dirty = self->dirty;
        self->dirty = f;
    }
    return 0;
}

void xs_inbox_flush(struct xs_inbox *self) {
    struct xs_feed *first = self->dirty;
    if (!first) return;
    for (struct xs_feed *f = first; f; f = f->next_dirty) {
        atomic_store_explicit(&f->charged_seen, f->charged, memory_order_relaxed);
        xs_spsc_flush(f->ring);
    }
    /* the reader arms, then looks at its queue; we publish, then look at `armed`: one of us sees the other */
    atomic_thread_fence(memory_order_seq_cst);
    for (struct xs_feed *f = first; f; f = f->next_dirty) {
        f->dirty = false;
        if (atomic_load_explicit(&f->socket->armed, memory_order_relaxed)) xs_socket_wake(f->socket);
    }
    self->dirty = NULL;
}
