/* Receive queues, the worker's side: room, charge, publication, wake-up. See tables/inbox.h. */
#include "tables/inbox.h"

static uint64_t charged_by_others(const struct xs_socket *s, const struct xs_feed *own) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < s->nfeeds; i++)
        if (&s->feed[i] != own) sum += atomic_load_explicit(&s->feed[i].charged_seen, memory_order_relaxed);
    return sum;
}

bool xs_feed_make_room(struct xs_feed *f, uint32_t size) {
    struct xs_socket *s = f->socket;
    uint64_t rcvbuf = atomic_load_explicit(&s->rcvbuf, memory_order_relaxed);
    uint64_t released = atomic_load_explicit(&s->released, memory_order_acquire);
    uint64_t others = charged_by_others(s, f);
    uint64_t rmem = f->charged + others - released;
    /* with other workers feeding too, what they charge meanwhile is not known: ask each time */
    f->charged_end = s->nfeeds == 1 ? released + rcvbuf : 0;
    return rmem + size <= rcvbuf || rmem == 0; /* an empty queue takes a datagram of any size */
}

uint64_t xs_inbox_frames_end(struct xs_inbox *self) {
    return atomic_load_explicit(&self->frames_taken, memory_order_relaxed) + self->frames_max;
}

uint32_t xs_inbox_end(struct xs_inbox *self, struct xs_inbox_run *r) {
    struct xs_feed *f = r->feed;
    if (!f) return 0;
    struct xs_spsc *ring = xs_feed_ring(f);
    uint32_t n = r->prod - ring->prod;
    r->feed = NULL;
    if (!n) return 0;
    ring->prod = r->prod;
    f->charged += r->room_at_first - r->room;
    f->datagrams += n;
    self->frames_queued += n;
    xs_inbox_mark(self, f);
    return n;
}

void xs_inbox_flush(struct xs_inbox *self) {
    struct xs_feed *first = self->dirty;
    if (!first) return;
    for (struct xs_feed *f = first; f; f = f->next_dirty) {
        atomic_store_explicit(&f->charged_seen, f->charged, memory_order_relaxed);
        xs_spsc_flush(xs_feed_ring(f));
    }
    /* the reader arms, then looks at its queue; we publish, then look at `armed`: one of us sees the other */
    atomic_thread_fence(memory_order_seq_cst);
    for (struct xs_feed *f = first; f; f = f->next_dirty) {
        f->dirty = false;
        if (atomic_load_explicit(&f->socket->armed, memory_order_relaxed)) xs_socket_wake(f->socket);
    }
    self->dirty = NULL;
}
