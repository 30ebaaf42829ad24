/* The nodes of a worker's walk, as control wires them, and what they have counted. See ffi/10_core.cdef.h. */
#include <errno.h>
#include <string.h>

#include "stages/registry.h"
#include "worker.h"

#include "ffi/10_core.cdef.h"

/* ---- nodes ---- */

static const struct {
    const struct xs_stage_def *def;
    size_t state;
} rows[] = {
#define ROW(d, field) {&d, offsetof(struct xs_worker, field)},
    XS_STAGE_ROWS(ROW)
#undef ROW
};
#define ROWS (sizeof rows / sizeof rows[0])

static int add_node(struct xs_worker *w, struct xs_node **out) {
    if (w->walk.nnodes == XS_NODES_MAX) return -ENOSPC;
    int at = (int)w->walk.nnodes++;
    struct xs_node *node = &w->walk.node[at];
    memset(node, 0, sizeof *node);
    memset(node->edge, XS_EDGE_NONE, sizeof node->edge);
    *out = node;
    return at;
}

int xs_worker_add_stage(struct xs_worker *w, const char *name) {
    for (uint32_t i = 0; i < ROWS; i++) {
        const struct xs_stage_def *def = rows[i].def;
        if (strcmp(def->name, name)) continue;
        struct xs_node *node;
        int at = add_node(w, &node);
        if (at < 0) return at;
        node->def = def;
        if (def == &xs_napi_tx_def) w->napi_tx = (uint32_t)at;
        node->fn = def->fn;
        node->tick = def->tick;
        node->self = (char *)w + rows[i].state;
        while (node->nedges < XS_EDGES_MAX && def->edges[node->nedges]) node->nedges++;
        return at;
    }
    return -ENOENT;
}

int xs_worker_add_hook(struct xs_worker *w, void *fn, void *tick, void *self, uint32_t nedges) {
    if (nedges > XS_EDGES_MAX) return -EINVAL;
    struct xs_node *node;
    int at = add_node(w, &node);
    if (at < 0) return at;
    node->fn = (xs_stage_fn *)fn;
    node->tick = (xs_tick_fn *)tick;
    node->self = self;
    node->nedges = (uint8_t)nedges;
    return at;
}

int xs_worker_wire(struct xs_worker *w, uint32_t node, uint32_t edge, uint32_t to) {
    if (node >= w->walk.nnodes || edge >= w->walk.node[node].nedges || to >= w->walk.nnodes) return -EINVAL;
    w->walk.node[node].edge[edge] = (uint8_t)to;
    return 0;
}

int xs_worker_set_entry(struct xs_worker *w, uint32_t which, uint32_t node) {
    if (node >= w->walk.nnodes || which > 3) return -EINVAL;
    uint32_t *entry[] = {&w->rx_entry, &w->tx_entry, &w->frames_tx_entry, &w->steered_entry};
    *entry[which] = node;
    return 0;
}

int xs_worker_reset_nodes(struct xs_worker *w) {
    if (xs_walk_parked(&w->walk)) return -EBUSY;
    if (w->walk.trace) { /* what is recorded names nodes by number: no more of it */
        xs_trace_end(w->walk.trace);
    }
    w->walk.nnodes = 0;
    w->rx_entry = w->tx_entry = w->frames_tx_entry = w->steered_entry = w->napi_tx = XS_EDGE_NONE;
    return 0;
}

const char *xs_stage_name(uint32_t i) { return i < ROWS ? rows[i].def->name : NULL; }
const char *xs_stage_edge(uint32_t i, uint32_t edge) {
    return i < ROWS && edge < 8 ? rows[i].def->edges[edge] : NULL;
}
const char *xs_stage_counter(uint32_t i, uint32_t counter) {
    return i < ROWS && counter < 16 ? rows[i].def->counters[counter] : NULL;
}

/* A number that is given twice, or too large, does not compile. */
#define XS_REASON(name, number, error, text) \
    _Static_assert(number < XS_REASONS, #name ": the numbers of drop reasons have no gaps");
#include "reasons.def"
#undef XS_REASON
struct numbers_given {
#define XS_REASON(name, number, error, text) char number_##number;
#include "reasons.def"
#undef XS_REASON
};

static const char *const reason_name[XS_REASONS] = {
#define XS_REASON(name, number, error, text) [number] = #name,
#include "reasons.def"
#undef XS_REASON
};
static const char *const reason_text[XS_REASONS] = {
#define XS_REASON(name, number, error, text) [number] = text,
#include "reasons.def"
#undef XS_REASON
};
static const int reason_error[XS_REASONS] = {
#define XS_REASON(name, number, error, text) [number] = error,
#include "reasons.def"
#undef XS_REASON
};
const char *xs_reason_name(uint32_t reason) { return reason < XS_REASONS ? reason_name[reason] : NULL; }
const char *xs_reason_text(uint32_t reason) { return reason < XS_REASONS ? reason_text[reason] : NULL; }
int xs_reason_error(uint32_t reason) { return reason < XS_REASONS ? reason_error[reason] : 0; }

/* ---- counters ---- */

void xs_worker_ledger(struct xs_worker *w, struct xs_ledger_values *out) {
    const struct xs_ledger *l = &w->walk.ledger;
    const struct xs_mem *mem = w->walk.mem;
    uint64_t held = 0;
    for (uint32_t f = w->index * w->pool.per_home; f < (w->index + 1) * w->pool.per_home; f++)
        held += mem->pkt[f].owner == XS_HELD && !(mem->pkt[f].flags & XS_PKT_TAIL);
    *out = (struct xs_ledger_values){
        .received = l->received,
        .created = l->created,
        .split = l->split,
        .delivered = l->delivered,
        .sent = l->sent,
        .merged = l->merged,
        .punted = l->punted,
        .dropped = l->dropped,
        .held = held,
    };
}

uint64_t xs_node_packets(struct xs_worker *w, uint32_t at) {
    return at < w->walk.nnodes ? w->walk.node[at].packets : 0;
}
uint64_t xs_node_batches(struct xs_worker *w, uint32_t at) {
    return at < w->walk.nnodes ? w->walk.node[at].batches : 0;
}
uint64_t xs_node_counter(struct xs_worker *w, uint32_t at, uint32_t i) {
    return at < w->walk.nnodes && i < XS_COUNTERS_MAX ? w->walk.node[at].counter[i] : 0;
}
uint64_t xs_node_drops(struct xs_worker *w, uint32_t at, uint32_t reason) {
    return at < w->walk.nnodes && reason < XS_REASONS ? w->walk.node[at].drops[reason] : 0;
}
