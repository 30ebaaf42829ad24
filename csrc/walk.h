/* The walk: takes a batch through the stages, by the edges of the path table. It is begun by whoever has packets: worker.c with
 * those of an RX ring, worker_cross.c with those of other workers, views/send.c with datagrams to send, worker_send.c with
 * frames.
 *
 * Nodes are the present rows of xdpstack/path.py in the table's order, and the hooks that the user put between them. Python
 * wires them at open (csrc/ffi/10_core.cdef.h): an edge that names an absent row was already replaced by where that row
 * would have passed the packet on, so what is absent costs nothing.
 *
 *      run a stage on the batch
 *        |-- every next[i] the same edge, and nothing pending?  the batch walks on as it is (nearly always)
 *        |-- else: scatter: append each frame to its target's pending vector
 *      then the lowest pending node in table order gets its vector as a batch, until none is left
 *
 * So packets that part and meet again walk on together, and a stage runs once a walk but for backward edges.
 *
 * Edges that lead backwards or to the same node are allowed (a packet that was changed is routed again); they are bounded
 * per walk, and what is left then is dropped with reason LOOP.
 */
#ifndef XS_WALK_H
#define XS_WALK_H

#include "base/pool.h"
#include "include/xdpstack_stage.h"
#include "walk_trace.h"

#define XS_NODES_MAX 64u /* bits of the pending mask */
#define XS_EDGES_MAX 8u
#define XS_COUNTERS_MAX 16u
#define XS_BACKWARD_MAX 64u /* backward edges taken in one walk */

#define XS_EDGE_NONE 255u /* not wired */

struct xs_pending {
    uint32_t n;
    uint32_t frame[XS_BATCH_CAP];
};

struct xs_node {
    xs_stage_fn *fn; /* NULL: a Python hook, packets are parked */
    xs_tick_fn *tick;
    void *self;
    const struct xs_stage_def *def; /* NULL for Python hooks */
    uint8_t edge[XS_EDGES_MAX];     /* edge number -> node */
    uint8_t nedges;
    uint64_t batches, packets;
    uint64_t counter[XS_COUNTERS_MAX];
    uint64_t drops[XS_REASONS];
    struct xs_pending pending; /* packets that go through this node later in the walk */
    struct xs_pending parked;  /* Python hook: packets that wait for it between walks, oldest first */
    xs_stage_fn
        *resumed; /* Python engine of a row: what C does of its work once Python has decided; or NULL */
};

struct xs_walk {
    const struct xs_mem *mem;
    struct xs_pool *pool;
    uint32_t nnodes;
    uint64_t pending;         /* bit per node with packets waiting */
    _Atomic(uint64_t) parked; /* bit per Python hook with parked packets; written by who drives */
    uint32_t backward;
    bool unasked; /* this walk's packets come from a ring: nobody asks afterwards why one was dropped */
    struct xs_trace *trace; /* NULL: not tracing */
    struct xs_ledger ledger;
    uint64_t now_ns;
    struct xs_batch batch; /* the batch that is walking */
    struct xs_node node[XS_NODES_MAX];
};

/* Takes w->batch (frame[0..n), owner WALKING) through the stages from node `entry` on. On return no packet is WALKING. */
void xs_walk_run(struct xs_walk *w, uint32_t entry);

/* An empty w->batch for the caller to fill. */
struct xs_batch *xs_walk_begin(struct xs_walk *w, uint64_t now_ns);

/* Calls the ticks in table order, walking what they release. */
void xs_walk_tick(struct xs_walk *w, uint64_t now_ns);

/* Takes on the `n` oldest packets that node `at` (a Python hook) had parked, each by next[] and reason[]. More may have been
 * parked since Python looked: those stay. Returns n, or -EINVAL when so many are not parked there. */
int xs_walk_resume(struct xs_walk *w, uint32_t at, const uint8_t *next, const uint16_t *reason, uint32_t n,
                   uint64_t now_ns);

/* Which Python hooks have packets, a bit each. Any thread may ask; what it does about it, it does as the one who drives. */
static inline uint64_t xs_walk_parked(const struct xs_walk *w) {
    return atomic_load_explicit(&w->parked, memory_order_relaxed);
}

/* Whether the packet waits for a Python hook. Looks at all that does: for packets that Python has to do with anyway. */
bool xs_walk_is_parked(const struct xs_walk *w, uint32_t frame);

/* Drops one packet outside a stage (teardown): counted at `node`. */
void xs_walk_drop(struct xs_walk *w, uint32_t node, uint32_t frame, enum xs_reason why);

#endif
