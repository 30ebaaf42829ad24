/* What Python takes and gives back: packets of its hooks, and of rows whose work it does. See ffi/62_engine.cdef.h. */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "ffi/10_core.cdef.h"
#include "stack.h"
#include "worker.h"

int xs_worker_add_engine(struct xs_worker *w, const char *name) {
    int at = xs_worker_add_stage(w, name);
    if (at < 0) return at;
    struct xs_node *node = &w->walk.node[at];
    if (node->fn == (xs_stage_fn *)xs_udp_rx) node->resumed = (xs_stage_fn *)xs_udp_rx_decided;
    if (node->fn == (xs_stage_fn *)xs_udp_tx) node->resumed = (xs_stage_fn *)xs_udp_tx_decided;
    node->fn = NULL;
    return at;
}

uint64_t xs_worker_parked(struct xs_worker *w) { return xs_walk_parked(&w->walk); }

static int parked_frames(const struct xs_walk *walk, uint32_t at, uint32_t *frames, uint32_t cap) {
    if (at >= walk->nnodes) return -EINVAL;
    const struct xs_pending *q = &walk->node[at].parked;
    uint32_t n = q->n < cap ? q->n : cap;
    memcpy(frames, q->frame, n * sizeof *frames);
    return (int)n;
}

/* As the one who drives: a sender may be parking more. */
int xs_worker_parked_frames(struct xs_worker *w, uint32_t at, uint32_t *frames, uint32_t cap) {
    xs_worker_hold(w);
    int n = parked_frames(&w->walk, at, frames, cap);
    xs_worker_unhold(w);
    return n;
}

/* While nobody else drives: afterwards the frames may be other packets'. */
static void tell(const struct xs_walk *w, const uint32_t *frames, uint32_t n, struct xs_outcome *out) {
    for (uint32_t i = 0; i < n; i++)
        out[i] = (struct xs_outcome){.reason = w->mem->meta[frames[i]].reason,
                                     .device = w->mem->pkt[frames[i]].device,
                                     .parked = xs_walk_is_parked(w, frames[i])};
}

static int resume(struct xs_worker *w, uint32_t at, const uint8_t *next, const uint16_t *reason, uint32_t n,
                  struct xs_outcome *outcomes) {
    uint32_t frames[XS_BATCH_CAP];
    int rc = parked_frames(&w->walk, at, frames, n < XS_BATCH_CAP ? n : XS_BATCH_CAP);
    if (rc != (int)n) return rc < 0 ? rc : -EINVAL;
    for (uint32_t i = 0; outcomes && i < n; i++) w->walk.mem->meta[frames[i]].reason = 0;
    rc = xs_walk_resume(&w->walk, at, next, reason, n, xs_stack_now_ns(w->stack));
    if (outcomes && rc >= 0) tell(&w->walk, frames, n, outcomes);
    return rc;
}

int xs_worker_resume_decided(struct xs_worker *w, uint32_t at, const uint8_t *next, const uint16_t *reason,
                             uint32_t n, const struct xs_delivery *deliveries, uint32_t ndeliveries,
                             struct xs_outcome *outcomes) {
    if (!xs_worker_enter(w)) return -EBUSY;
    w->udp.decided = deliveries;
    w->udp.ndecided = ndeliveries;
    int rc = resume(w, at, next, reason, n, outcomes);
    w->udp.decided = NULL;
    w->udp.ndecided = 0;
    xs_inbox_flush(&w->inbox); /* no tick follows that would show readers what they got */
    xs_worker_finish(w);
    bool waits = !xs_walk_parked(&w->walk) && atomic_load_explicit(&w->threaded, memory_order_relaxed);
    xs_worker_leave(w);
    if (waits) xs_worker_wake(w); /* its thread, which does nothing while packets are parked */
    return rc;
}

int xs_worker_resume(struct xs_worker *w, uint32_t at, const uint8_t *next, const uint16_t *reason,
                     uint32_t n) {
    return xs_worker_resume_decided(w, at, next, reason, n, NULL, 0, NULL);
}
