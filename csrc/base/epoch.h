/* Quiescent points: when may a table that a worker could still read be freed?
 *
 * A worker's epoch is odd inside a poll and even outside. A table pointer is loaded inside a poll and never kept beyond it.
 * So after publishing a new pointer, whoever wants to free the old one waits until each worker has been seen even, or at
 * another value than at first. The store of the pointer and the load of the epoch must not be swapped: both are seq_cst.
 */
#ifndef XS_BASE_EPOCH_H
#define XS_BASE_EPOCH_H

#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdint.h>

struct xs_epoch {
    alignas(64) _Atomic(uint64_t) value;
};

static inline void xs_epoch_enter(struct xs_epoch *e) {
    atomic_fetch_add_explicit(&e->value, 1, memory_order_seq_cst);
}
static inline void xs_epoch_leave(struct xs_epoch *e) {
    atomic_fetch_add_explicit(&e->value, 1, memory_order_release);
}

/* Waits until what was published before the call is all that the worker can see. A poll is bounded, so the wait is. */
static inline void xs_epoch_wait(struct xs_epoch *e) {
    uint64_t seen = atomic_load_explicit(&e->value, memory_order_seq_cst);
    while ((seen & 1) && atomic_load_explicit(&e->value, memory_order_seq_cst) == seen) sched_yield();
}

#endif
