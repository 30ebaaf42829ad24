/* napi, transmit by another worker: a device may have fewer queues than the stack has workers. See napi.h. */
#include "stages/napi.h"

void xs_queue_owners_init(struct xs_queue_owners *self) {
    for (uint32_t d = 0; d < XS_DEVICES_MAX; d++)
        for (uint32_t q = 0; q < XS_QUEUES_MAX; q++) atomic_init(&self->worker[d][q], XS_NO_WORKER);
    for (uint32_t d = 0; d < XS_DEVICES_MAX; d++) atomic_init(&self->full[d], 0);
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

static bool is_full(const struct xs_queue_owners *self, uint32_t device, uint32_t worker) {
    return atomic_load_explicit(&self->full[device], memory_order_relaxed) >> worker & 1;
}

void xs_napi_hand_over(struct xs_napi *self, struct xs_batch *b, uint32_t i) {
    const struct xs_pkt *p = xs_pkt(b, i);
    uint32_t owner = owner_of(self->owners, p->device, p->queue);
    if (owner == XS_NO_WORKER || owner == self->crossing->worker)
        return xs_drop(b, i, XS_REASON_DEVICE_GONE); /* it has just gone */
    if (is_full(self->owners, p->device, owner) ||
        !xs_crossing_push(self->crossing, b->mem, owner, b->frame[i]))
        return xs_drop(b, i, XS_REASON_QDISC_DROP);
    b->next[i] = XS_KEPT;
    b->count[XS_NAPI_TX_HANDED_OVER]++;
}

uint32_t xs_napi_hand_over_room(const struct xs_napi *self, uint32_t device, uint32_t queue) {
    uint32_t owner = owner_of(self->owners, device, queue);
    if (owner == XS_NO_WORKER || owner == self->crossing->worker) return 0;
    return is_full(self->owners, device, owner) ? 0 : xs_crossing_room(self->crossing, owner);
}

/* Tells those who hand over whether to go on, for the device of a port. */
static void tell_whether_full(const struct xs_napi *self, uint32_t device) {
    uint64_t bit = 1ull << self->crossing->worker;
    bool full = false;
    for (uint32_t at = 0; at < self->nports; at++) {
        const struct xs_port *port = &self->port[at];
        full |= port->xsk && port->xsk->device == device && port->late_head != XS_NO_FRAME;
    }
    if (full)
        atomic_fetch_or_explicit(&self->owners->full[device], bit, memory_order_relaxed);
    else
        atomic_fetch_and_explicit(&self->owners->full[device], ~bit, memory_order_relaxed);
}

void xs_napi_keep_late(struct xs_napi *self, uint32_t at, uint32_t frame) {
    struct xs_port *port = &self->port[at];
    bool first = port->late_head == XS_NO_FRAME;
    if (first)
        port->late_head = frame;
    else
        self->mem->pkt[port->late_tail].seg = frame;
    port->late_tail = frame;
    if (first) tell_whether_full(self, port->xsk->device);
}

uint32_t xs_napi_pop_backlog(struct xs_napi *self, uint32_t at) {
    struct xs_port *port = &self->port[at];
    uint32_t popped = port->backlog[port->backlog_head], late = port->late_head;
    port->backlog_head = (port->backlog_head + 1) % XS_TX_BACKLOG;
    port->backlog_n--;
    if (late == XS_NO_FRAME) return popped;
    port->backlog[(port->backlog_head + port->backlog_n++) % XS_TX_BACKLOG] = late;
    port->late_head = self->mem->pkt[late].seg;
    self->mem->pkt[late].seg = XS_NO_FRAME;
    if (port->late_head == XS_NO_FRAME) tell_whether_full(self, port->xsk->device);
    return popped;
}
