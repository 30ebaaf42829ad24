/* rps.tx: by which queue of its device does a packet leave? Contract: xdpstack/stages/rps.py. Mirrors netdev_pick_tx, get_xps_queue.
 * Path: neigh.tx > rps.tx > napi.tx. Off until Stack.rps(). */
#include "stages/rps.h"

#include "base/likely.h"

void xs_rps_tx(struct xs_rps *self, struct xs_batch *b) {
    const struct xs_rps_table *t = xs_table(self->tables, rps);
    xs_next_all(b, XS_RPS_TX_XMIT);
    if (unlikely(!t)) return;
    const struct xs_xps *queues = &t->xps[self->worker * XS_DEVICES_MAX];
    for (uint32_t i = 0; i < b->n; i++) {
        struct xs_pkt *p = xs_pkt(b, i);
        const struct xs_xps *x = &queues[p->device % XS_DEVICES_MAX];
        if (!x->n) continue;
        p->queue = x->queue[x->n == 1 ? 0 : xs_scale(xs_flow_hash(t->key, p, xs_data(b, i)), x->n)];
    }
}

const struct xs_stage_def xs_rps_tx_def = {
    .name = "rps.tx",
    .fn = (xs_stage_fn *)xs_rps_tx,
    .edges = {"xmit"},
};
