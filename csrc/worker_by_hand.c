/* A worker's stages without a device: see ffi/16_by_hand.cdef.h. */
#include <errno.h>
#include <string.h>

#include "stack.h"
#include "worker.h"

#include "ffi/16_by_hand.cdef.h"

int xs_worker_take(struct xs_worker *w, uint32_t *frames, uint32_t n) {
    if (!xs_worker_enter(w)) return -EBUSY;
    xs_pool_drain(&w->pool);
    uint32_t got = 0;
    while (got < n && w->pool.n) frames[got++] = xs_pool_get(&w->pool, w->walk.mem);
    xs_worker_leave(w);
    return (int)got;
}

int xs_worker_walk(struct xs_worker *w, uint32_t node, const uint32_t *frames, uint32_t n) {
    if (node >= w->walk.nnodes || n > XS_BATCH_CAP) return -EINVAL;
    if (!xs_worker_enter(w)) return -EBUSY;
    uint64_t now = xs_stack_now_ns(w->stack);
    struct xs_batch *b = xs_walk_begin(&w->walk, now);
    if (n) memcpy(b->frame, frames, n * sizeof *frames);
    b->n = n;
    w->walk.ledger.created += n;
    if (n) xs_walk_run(&w->walk, node);
    xs_walk_tick(&w->walk, now);
    xs_worker_leave(w);
    return 0;
}
