/* rps.rx: which worker does the rest of a received packet's way? Contract: xdpstack/stages/rps.py.
 * Mirrors get_rps_cpu, set_rps_cpu, enqueue_to_backlog, skb_flow_limit.
 * Path: napi.rx > rps.rx > ip.rx. Off until Stack.rps(). */
#include "stages/rps.h"

#include "base/likely.h"

#define NOT_ASKED UINT32_MAX

/* The last packet of the flow is still to be processed, or to be read: were the next one steered elsewhere, it might overtake it.
 * Linux compares the tail of the backlog at that time with its head now (last_qtail). Here a socket has a queue for each worker,
 * so that the end of the backlog is not the end of it: it has to be read. What was dropped is never read; then the flow stays
 * until a later one is. */
static bool is_under_way(const struct xs_rps_table *t, uint32_t worker, uint32_t hash, uint32_t last) {
    uint32_t at = worker * (t->rfs->mask + 1) + (hash & t->rfs->mask);
    return atomic_load_explicit(&t->rfs->read[at], memory_order_acquire) != last;
}

/* Where the flow belongs: to where it is read, if somebody reads it where a worker is; else where the map says. */
static inline uint32_t wanted(const struct xs_rps_table *t, uint32_t hash) {
    if (t->rfs) {
        uint32_t entry = atomic_load_explicit(&t->rfs->reader[hash & t->rfs->mask], memory_order_relaxed);
        uint32_t worker = entry & (XS_RPS_WORKERS - 1);
        if (!((entry ^ hash) & ~(XS_RPS_WORKERS - 1)) && worker < t->nworkers) return worker;
    }
    return t->map[xs_scale(hash, t->nmap)];
}

static inline uint32_t worker_for(const struct xs_rps *self, const struct xs_rps_table *t, struct xs_batch *b,
                                  uint32_t i, uint32_t hash) {
    uint32_t want = wanted(t, hash);
    if (!t->rfs) return want;
    struct xs_rps_flow *f = &t->flow[(size_t)self->worker * (t->rfs->mask + 1) + (hash & t->rfs->mask)];
    if (f->worker != want) {
        if (f->worker != XS_RPS_NOBODY && is_under_way(t, self->worker, hash, f->last)) {
            b->count[XS_RPS_RX_STAYED]++;
        } else {
            b->count[XS_RPS_RX_MOVED] += f->worker != XS_RPS_NOBODY;
            f->worker = (uint8_t)want;
        }
    }
    f->last = self->worker * (XS_RPS_COUNT + 1) + ((f->last + 1) & XS_RPS_COUNT);
    xs_meta(b, i)->steered = f->last;
    return f->worker;
}

/* True when the flow has more than half of what found the backlog half full lately. */
static bool is_too_much(struct xs_flow_limit *limit, uint32_t hash) {
    uint16_t new_flow = hash & (XS_FLOW_LIMIT_BUCKETS - 1), old_flow = limit->history[limit->head];
    limit->history[limit->head] = new_flow;
    limit->head = (limit->head + 1) & (XS_FLOW_LIMIT_HISTORY - 1);
    if (limit->bucket[old_flow]) limit->bucket[old_flow]--;
    return ++limit->bucket[new_flow] > XS_FLOW_LIMIT_HISTORY / 2;
}

void xs_rps_rx(struct xs_rps *self, struct xs_batch *b) {
    const struct xs_rps_table *t = xs_table(self->tables, rps);
    xs_next_all(b, XS_RPS_RX_RECEIVE);
    if (unlikely(!t)) return;
    bool one_flow = b->facts & XS_ALL_ONE_FLOW && !self->hints; /* what devices say of each is looked at */
    uint32_t waiting[XS_WORKERS_MAX], hash = 0; /* packets that wait for each, as of this batch */
    for (uint32_t i = 0; i < t->nworkers; i++) waiting[i] = NOT_ASKED;
    for (uint32_t i = 0; i < b->n; i++) {
        if (i && one_flow)
            xs_pkt(b, i)->hash = hash;
        else
            hash = xs_rps_hash(self, t, b, i);
        if (unlikely(!hash)) continue; /* of no flow: it stays */
        uint32_t to = worker_for(self, t, b, i, hash);
        if (to == self->worker) continue;
        if (waiting[to] == NOT_ASKED) waiting[to] = xs_crossing_length(self->own, self->crossing[to]);
        if (t->limit && waiting[to] >= t->max_backlog / 2 && is_too_much(&t->limit[self->worker], hash)) {
            b->count[XS_RPS_RX_LIMITED]++;
            xs_drop(b, i, XS_REASON_CPU_BACKLOG);
        } else if (waiting[to] >= t->max_backlog || !xs_crossing_push(self->own, b->mem, to, b->frame[i])) {
            xs_drop(b, i, XS_REASON_CPU_BACKLOG);
        } else {
            waiting[to]++;
            b->next[i] = XS_KEPT;
            b->count[XS_RPS_RX_STEERED]++;
        }
    }
}

const struct xs_stage_def xs_rps_rx_def = {
    .name = "rps.rx",
    .fn = (xs_stage_fn *)xs_rps_rx,
    .edges = {"receive"},
    .counters = {"steered", "moved", "stayed", "limited"},
};
