/* The walk. See walk.h for the picture; it is the only place where packets change hands between the stages of a worker. Between
 * workers they do on rings: base/crossing.h. */
#include "walk.h"

#include <errno.h>
#include <string.h>

/* Drops packets for one reason. That it is written into each is for whoever sent it, or had it in a Python hook. */
static void drop_frames(struct xs_walk *w, struct xs_node *node, const uint32_t *frames, uint32_t n,
                        uint16_t why) {
    node->drops[why < XS_REASONS ? why : 0] += n;
    if (why == XS_REASON_TX_SLOW || why == XS_REASON_TX_FRAGMENT)
        w->ledger.punted += n; /* not lost: whoever sent it hands it to the kernel */
    else
        w->ledger.dropped += n;
    for (uint32_t i = 0; !w->unasked && i < n; i++) w->mem->meta[frames[i]].reason = why;
    for (uint32_t i = 0; w->trace && i < n; i++)
        xs_trace_drop(w->trace, w->mem, (uint32_t)(node - w->node), frames[i], why, w->now_ns);
    xs_pool_put_packets(w->pool, w->mem, frames, n);
}

static void drop_frame(struct xs_walk *w, struct xs_node *node, uint32_t frame, uint16_t why) {
    drop_frames(w, node, &frame, 1, why);
}

void xs_walk_drop(struct xs_walk *w, uint32_t at, uint32_t frame, enum xs_reason why) {
    drop_frame(w, &w->node[at], frame, (uint16_t)why);
}

/* A Python hook: the packets wait, untouched, until Python has looked at them (xs_worker_resume). Their step is recorded
 * then. */
static void park(struct xs_walk *w, uint32_t at, struct xs_batch *b) {
    struct xs_pending *q = &w->node[at].parked;
    for (uint32_t i = 0; i < b->n; i++) {
        if (q->n == XS_BATCH_CAP) {
            xs_drop(b, i, XS_REASON_CPU_BACKLOG);
            continue;
        }
        xs_own(b->mem, b->frame[i], XS_HELD);
        q->frame[q->n++] = b->frame[i];
        b->next[i] = XS_KEPT;
    }
    atomic_store_explicit(&w->parked, xs_walk_parked(w) | 1ull << at, memory_order_relaxed);
}

#ifdef XS_DEBUG
static inline bool is_as_said(uint32_t facts, const struct xs_pkt *p) {
    uint32_t l4 = (uint32_t)p->l4_off, end = (uint32_t)p->payload_off + p->payload_len;
    if (facts & XS_ALL_PLAIN &&
        (p->l4_proto != 17 || p->pkt_type != XS_PACKET_HOST || p->frag != XS_NO_FRAME ||
         p->flags & XS_PKT_FRAGMENT || p->payload_off != l4 + 8))
        return false;
    if (facts & XS_ALL_OUTGOING && p->pkt_type != XS_PACKET_OUTGOING) return false;
    if (facts & XS_ALL_TRIMMED && p->pkt_len != end - p->data_off) return false;
    return !(facts & XS_ALL_VERIFIED) || p->csum == XS_CSUM_VERIFIED || p->csum == XS_CSUM_NONE;
}
#endif

/* What a stage keeps it has given an owner to, what it passes on it has not: in builds that look for defects. */
static inline void check_hand_over(const struct xs_walk *w, const struct xs_batch *b) {
#ifdef XS_DEBUG
    for (uint32_t i = 0; i < b->n; i++) {
        if (b->next[i] == XS_KEPT) continue; /* it may be another thread's, or home, already */
        xs_assert(is_as_said(b->facts, xs_pkt(b, i)), "facts that do not hold for a packet");
        for (uint32_t f = b->frame[i]; f != XS_NO_FRAME; f = w->mem->pkt[f].frag)
            xs_assert(w->mem->pkt[f].owner == XS_WALKING, "a stage passed on a packet that is not its own");
    }
#endif
    (void)w;
    (void)b;
}

/* All take the same edge: what they take is the same when moved by one. */
static inline bool uniform(const struct xs_batch *b) {
    return b->n < 2 || !memcmp(b->next, b->next + 1, b->n - 1);
}

/* A hook may change whatever it likes: what was known of the packets, and that their checksums are right, is to be found out
 * anew. (As nfqnl_mangle() does; that only the pseudo header is summed stays true.) */
static void forget(struct xs_batch *b) {
    b->facts = 0;
    if (b->next[0] == XS_DROP && uniform(b)) return; /* nobody will want to know */
    for (uint32_t i = 0; i < b->n; i++) {
        if (b->next[i] == XS_KEPT) continue;
        struct xs_pkt *p = xs_pkt(b, i);
        if (p->csum == XS_CSUM_VERIFIED) p->csum = XS_CSUM_NONE;
    }
}

static void run_node(struct xs_walk *w, uint32_t at, struct xs_batch *b) {
    struct xs_node *node = &w->node[at];
    b->node = at;
    b->count = node->counter;
    node->batches++;
    node->packets += b->n;
    if (node->fn)
        node->fn(node->self, b);
    else
        park(w, at, b);
    if (!node->def) forget(b);
    check_hand_over(w, b);
    if (w->trace && node->fn) xs_trace_record(w->trace, b);
}

/* Where an edge of `node` leads: a node, or XS_EDGE_NONE when the stage has no such edge. */
static inline uint32_t target(const struct xs_node *node, uint8_t next) {
    return next < node->nedges ? node->edge[next] : XS_EDGE_NONE;
}

static inline bool too_many_turns(struct xs_walk *w, uint32_t from, uint32_t to) {
    return to <= from && ++w->backward > XS_BACKWARD_MAX;
}

static void dispose(struct xs_walk *w, uint32_t at, uint32_t frame, uint8_t next, uint16_t why) {
    if (next == XS_KEPT) return;
    drop_frame(w, &w->node[at], frame, next == XS_DROP ? why : XS_REASON_BAD_EDGE);
}

/* The first `n` packets of a vector into the empty batch; the others move up. */
static void load(struct xs_pending *q, uint32_t n, struct xs_batch *b) {
    memcpy(b->frame, q->frame, n * sizeof b->frame[0]);
    memmove(q->frame, q->frame + n, (q->n - n) * sizeof b->frame[0]);
    q->n -= n;
    b->n = n;
    b->facts = 0;
}

static uint32_t load_lowest(struct xs_walk *w, struct xs_batch *b) {
    uint32_t at = (uint32_t)__builtin_ctzll(w->pending);
    w->pending &= ~(1ull << at);
    load(&w->node[at].pending, w->node[at].pending.n, b);
    return at;
}

/* Packets go different ways: each to its target's pending vector. */
static void scatter(struct xs_walk *w, uint32_t at, struct xs_batch *b) {
    struct xs_node *node = &w->node[at];
    bool turned = false, looping = false; /* a turn is counted once a batch, not once a packet */
    for (uint32_t i = 0; i < b->n; i++) {
        uint32_t to = target(node, b->next[i]);
        if (to == XS_EDGE_NONE) {
            dispose(w, at, b->frame[i], b->next[i], b->reason[i]);
            continue;
        }
        struct xs_pending *q = &w->node[to].pending;
        if (to <= at && !turned) {
            turned = true;
            looping = too_many_turns(w, at, to);
        }
        if (to <= at && looping)
            drop_frame(w, node, b->frame[i], XS_REASON_LOOP);
        else if (q->n == XS_BATCH_CAP)
            drop_frame(w, node, b->frame[i], XS_REASON_CPU_BACKLOG);
        else {
            q->frame[q->n++] = b->frame[i];
            w->pending |= 1ull << to;
        }
    }
    b->n = 0;
}

/* All packets of a batch are dropped by node `at`, each for its own reason, which is nearly always the same. */
static void drop_batch(struct xs_walk *w, uint32_t at, const struct xs_batch *b) {
    struct xs_node *node = &w->node[at];
    if (b->n > 1 && memcmp(b->reason, b->reason + 1, (b->n - 1) * sizeof b->reason[0]))
        for (uint32_t i = 0; i < b->n; i++) drop_frame(w, node, b->frame[i], b->reason[i]);
    else
        drop_frames(w, node, b->frame, b->n, b->reason[0]);
}

/* Runs node `at` on the batch and passes the packets on. Returns the node to run on the same batch next, or XS_EDGE_NONE when
 * the batch is spent: all packets are pending somewhere, or gone. */
static uint32_t step(struct xs_walk *w, uint32_t at, struct xs_batch *b) {
    run_node(w, at, b);
    if (!uniform(b) || w->pending) {
        scatter(w, at, b);
        return XS_EDGE_NONE;
    }
    uint32_t to = target(&w->node[at], b->next[0]);
    if (to == XS_EDGE_NONE) {
        if (b->next[0] == XS_DROP)
            drop_batch(w, at, b);
        else if (b->next[0] != XS_KEPT)
            drop_frames(w, &w->node[at], b->frame, b->n, XS_REASON_BAD_EDGE);
    } else if (too_many_turns(w, at, to)) {
        drop_frames(w, &w->node[at], b->frame, b->n, XS_REASON_LOOP);
        to = XS_EDGE_NONE;
    }
    return to;
}

/* Takes the batch through the stages from `at` on, then what is pending, lowest node first. */
static void walk_on(struct xs_walk *w, uint32_t at, struct xs_batch *b) {
    for (;;) {
        while (b->n && at != XS_EDGE_NONE) at = step(w, at, b);
        b->n = 0;
        if (!w->pending) break;
        at = load_lowest(w, b);
    }
}

/* Only what is pending. */
static void walk_pending(struct xs_walk *w, struct xs_batch *b) { walk_on(w, XS_EDGE_NONE, b); }

static int emit(struct xs_batch *b, uint8_t next) {
    if (b->n == XS_BATCH_CAP) return -1;
    uint32_t frame = xs_pool_get(b->walk->pool, b->mem);
    if (frame == XS_NO_FRAME) return -1;
    b->mem->meta[frame].hints = 0;          /* no device has said anything of it */
    b->mem->meta[frame].vlan_inner_tci = 0; /* nor has it had tags before */
    b->ledger->created++;
    b->facts = 0;
    b->frame[b->n] = frame;
    b->next[b->n] = next;
    b->reason[b->n] = 0;
    return (int)b->n++;
}

static int release(struct xs_batch *b, uint32_t frame, uint8_t next) {
    if (b->n == XS_BATCH_CAP) return -1;
    xs_own(b->mem, frame, XS_WALKING);
    b->frame[b->n] = frame;
    b->next[b->n] = next;
    b->reason[b->n] = 0;
    return (int)b->n++;
}

static const struct xs_batch_ops ops = {.emit = emit, .release = release};

struct xs_batch *xs_walk_begin(struct xs_walk *w, uint64_t now_ns) {
    struct xs_batch *b = &w->batch;
    b->n = b->facts = 0;
    b->mem = w->mem;
    b->walk = w;
    b->ops = &ops;
    b->ledger = &w->ledger;
    b->now_ns = w->now_ns = now_ns;
    w->backward = 0;
    w->unasked = false;
    return b;
}

void xs_walk_run(struct xs_walk *w, uint32_t entry) {
    xs_assert(entry < w->nnodes, "packets that enter a walk which is not wired");
    walk_on(w, entry, &w->batch);
}

void xs_walk_tick(struct xs_walk *w, uint64_t now_ns) {
    for (uint32_t at = 0; at < w->nnodes; at++) {
        struct xs_node *node = &w->node[at];
        if (!node->tick) continue;
        struct xs_batch *b = xs_walk_begin(w, now_ns);
        b->node = at;
        b->count = node->counter;
        node->tick(node->self, b);
        if (!b->n) continue;
        if (w->trace) xs_trace_record(w->trace, b);
        scatter(w, at, b);
        walk_pending(w, b);
    }
}

int xs_walk_resume(struct xs_walk *w, uint32_t at, const uint8_t *next, const uint16_t *reason, uint32_t n,
                   uint64_t now_ns) {
    struct xs_node *node = &w->node[at];
    if (at >= w->nnodes || node->fn || n > node->parked.n) return -EINVAL;
    struct xs_batch *b = xs_walk_begin(w, now_ns);
    load(&node->parked, n, b);
    if (!node->parked.n)
        atomic_store_explicit(&w->parked, xs_walk_parked(w) & ~(1ull << at), memory_order_relaxed);
    b->node = at;
    for (uint32_t i = 0; i < n; i++) {
        xs_own(b->mem, b->frame[i], XS_WALKING);
        b->next[i] = next[i];
        b->reason[i] = reason[i];
    }
    b->count = node->counter;
    if (node->resumed)
        node->resumed(node->self, b); /* a layer's own row: no hook */
    else
        forget(b);
    if (w->trace) xs_trace_record(w->trace, b);
    scatter(w, at, b);
    walk_pending(w, b);
    return (int)n;
}

bool xs_walk_is_parked(const struct xs_walk *w, uint32_t frame) {
    for (uint64_t left = xs_walk_parked(w); left; left &= left - 1) {
        const struct xs_pending *q = &w->node[__builtin_ctzll(left)].parked;
        for (uint32_t i = 0; i < q->n; i++)
            if (q->frame[i] == frame) return true;
    }
    return false;
}
