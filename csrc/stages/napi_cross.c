/* napi, transmit by another worker: a device may have fewer queues than the stack has workers. See napi.h. */
#include "stages/napi.h"

void xs_queue_owners_init(struct xs_queue_owners *self) {
    for (uint32_t d = 0; d < XS_DEVICES_MAX; d++)
        for (uint32_t q = 0; q < XS_QUEUES_MAX; q++) atomic_init(&self->worker[d][q], XS_NO_WORKER);
}

/* Whose the queue is; for one that nobody has, whose the first one of the device is. */
static uint32_t owner_of(const struct xs_queue_owners *self, uint32_t device, uint32_t queue) {
    if (!self || device >= XS_DEVICES_MAX) return XS_NO_WORKER;
    const _Atomic(uint8_t) *worker = self->worker[device];
    uint32_t owner = atomic_load_explicit(&worker[queue % XS_QUEUES_MAX], memory_order_relaxed);
    for (uint32_t q = 0; owner == XS_NO_WORKER && q < XS_QUEUES_MAX; q++)
        owner = atomic_load_explicit(&worker[q], memory_order_relaxed);
    return owner;
}

void xs_napi_hand_over(struct xs_napi *self, struct xs_batch *b, uint32_t i) {
    const struct xs_pkt *p = xs_pkt(b, i);
    uint32_t owner = owner_of(self->owners, p->device, p->queue);
    if (owner == XS_NO_WORKER || owner == self->crossing->worker)
        return xs_drop(b, i, XS_REASON_DEVICE_GONE); /* it has just gone */
    if (!xs_crossing_push(self->crossing, b->mem, owner, b->frame[i]))
        return xs_drop(b, i, XS_REASON_QDISC_DROP);
    b->next[i] = XS_KEPT;
    b->count[XS_NAPI_TX_HANDED_OVER]++;
}

uint32_t xs_napi_hand_over_room(const struct xs_napi *self, uint32_t device, uint32_t queue) {
    uint32_t owner = owner_of(self->owners, device, queue);
    if (owner == XS_NO_WORKER || owner == self->crossing->worker) return 0;
    return xs_crossing_room(self->crossing, owner);
}

uint32_t xs_napi_take_room(struct xs_napi *self) {
    uint32_t least = XS_TX_BACKLOG;
    for (uint32_t port = 0; port < self->nports; port++) {
        struct xs_port *at = &self->port[port];
        if (!at->xsk || at->xsk->dead || !at->backlog_n) continue;
        if (XS_TX_BACKLOG - at->backlog_n < least) least = XS_TX_BACKLOG - at->backlog_n;
    }
    return least;
}
