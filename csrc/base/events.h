/* What a worker tells control: a ring of its own, and one eventfd of the stack that control selects on.
 * Nothing waits for control: a full ring refuses the event, and whoever raised it tries again later. */
#ifndef XS_BASE_EVENTS_H
#define XS_BASE_EVENTS_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#include "ffi/51_neigh.cdef.h"

#define XS_EVENTS 256u

struct xs_events {
    int fd; /* the stack's eventfd */
    alignas(64) _Atomic(uint32_t) producer;
    bool raised; /* since the last wake */
    uint64_t refused;
    alignas(64) _Atomic(uint32_t) consumer;
    struct xs_event slot[XS_EVENTS];
};

/* Worker: false when the ring is full. Control sees it at once, and is woken by xs_events_wake(). */
static inline bool xs_event_raise(struct xs_events *e, const struct xs_event *event) {
    uint32_t prod = atomic_load_explicit(&e->producer, memory_order_relaxed);
    if (prod - atomic_load_explicit(&e->consumer, memory_order_acquire) == XS_EVENTS) {
        e->refused++;
        return false;
    }
    e->slot[prod % XS_EVENTS] = *event;
    atomic_store_explicit(&e->producer, prod + 1, memory_order_release);
    e->raised = true;
    return true;
}

/* Worker, once per poll: at most one system call for all that was raised, and none when nothing was. */
static inline void xs_events_wake(struct xs_events *e) {
    if (!e->raised) return;
    uint64_t one = 1;
    e->raised = write(e->fd, &one, sizeof one) < 0; /* EAGAIN cannot be: control empties the counter */
}

/* Control: takes up to `cap` events. */
static inline uint32_t xs_events_take(struct xs_events *e, struct xs_event *out, uint32_t cap) {
    uint32_t cons = atomic_load_explicit(&e->consumer, memory_order_relaxed);
    uint32_t n = atomic_load_explicit(&e->producer, memory_order_acquire) - cons;
    if (n > cap) n = cap;
    for (uint32_t i = 0; i < n; i++) out[i] = e->slot[(cons + i) % XS_EVENTS];
    atomic_store_explicit(&e->consumer, cons + n, memory_order_release);
    return n;
}

#endif
