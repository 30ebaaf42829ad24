/* Packets that other workers have for this one, and those it has for others. See base/crossing.h. */
#include "stack.h"
#include "worker.h"

#include "ffi/10_core.cdef.h"

/* Who sleeps is woken once: it says that it sleeps, then looks at its rings; we fill them, then look whether it sleeps. A worker
 * without a thread of its own is slept on by whoever drives it, of whom nothing is known: it is always woken. */
void xs_worker_hand_over(struct xs_worker *w) {
    uint64_t to = xs_crossing_flush(&w->sending) | xs_crossing_flush(&w->backlog);
    if (!to) return;
    atomic_thread_fence(memory_order_seq_cst);
    for (; to; to &= to - 1) {
        struct xs_worker *other = w->stack->worker[__builtin_ctzll(to)];
        if (!atomic_load_explicit(&other->threaded, memory_order_relaxed) ||
            (atomic_load_explicit(&other->asleep, memory_order_relaxed) &&
             atomic_exchange(&other->asleep, 0)))
            xs_worker_wake(other);
    }
}

static uint32_t take(struct xs_worker *w, struct xs_crossing *from, uint32_t node, uint32_t most,
                     uint64_t now) {
    uint32_t total = 0, n;
    if (node == XS_EDGE_NONE || xs_walk_parked(&w->walk)) return 0;
    do {
        struct xs_batch *b = xs_walk_begin(&w->walk, now);
        n = xs_crossing_take(from, w->walk.mem, b->frame,
                             most - total < XS_WEIGHT ? most - total : XS_WEIGHT);
        b->n = n;
        if (n) xs_walk_run(&w->walk, node);
        total += n;
    } while (n && total < most && !xs_walk_parked(&w->walk));
    return total;
}

/* process_backlog(); and what is to be sent. That is taken in any case: what cannot be sent yet waits at its own port, and is not
 * in the way of what is for others. */
uint32_t xs_worker_take_over(struct xs_worker *w, uint32_t budget, uint64_t now) {
    uint32_t total = take(w, &w->backlog, w->steered_entry, budget, now);
    w->napi.taking_over = true;
    total += take(w, &w->sending, w->napi_tx, budget, now);
    w->napi.taking_over = false;
    return total;
}

bool xs_worker_is_waited_for(const struct xs_worker *w) {
    return xs_crossing_waits(&w->sending) || xs_crossing_waits(&w->backlog);
}
