/* Queues come to a worker, and go: by control, while nobody drives. See worker.h. */
#include <errno.h>

#include "stack.h"
#include "worker.h"

#include "ffi/10_core.cdef.h"

/* What readers may hold of a worker's frames: all but what its rings are to have, and an eighth for sending. */
void xs_worker_share_out(struct xs_worker *w) {
    uint32_t all = w->pool.per_home, rings = all / 8;
    for (uint32_t port = 0; port < w->napi.nports; port++)
        if (w->napi.port[port].xsk) rings += w->napi.port[port].xsk->fill_target;
    uint32_t rest = rings < all - all / 8 ? all - rings : all / 8;
    w->inbox.frames_max = w->stack->steering ? rest / w->stack->nworkers : rest;
}

int xs_worker_attach(struct xs_worker *w, struct xs_xsk *x, uint32_t device) {
    if (device >= XS_DEVICES_MAX) return -EINVAL;
    pthread_mutex_lock(&w->stack->ports_lock);
    xs_worker_hold(w);
    int port = xs_napi_attach(&w->napi, x, device);
    x->epoll_fd = w->epoll_fd;
    int rc = port < 0 ? port : xs_xsk_watch(x);
    if (rc && port >= 0) xs_napi_detach(&w->napi, (uint32_t)port);
    if (!rc) xs_napi_refill(&w->napi, (uint32_t)port);
    if (!rc && x->queue < XS_QUEUES_MAX)
        atomic_store_explicit(&w->stack->owners.worker[device][x->queue], (uint8_t)w->index,
                              memory_order_relaxed);
    xs_worker_share_out(w);
    xs_worker_unhold(w);
    pthread_mutex_unlock(&w->stack->ports_lock);
    return rc;
}

#define ALL_QUEUES UINT32_MAX

/* The frames of one closed queue, or of all of a device, wherever their home is, are nobody's any more: home with them. */
static int take_home(struct xs_worker *w, uint32_t device, uint32_t queue) {
    const struct xs_mem *mem = w->walk.mem;
    int home = 0;
    for (uint32_t f = 0; f < mem->nframes; f++) {
        const struct xs_pkt *p = &mem->pkt[f];
        if ((p->owner != XS_FILLED && p->owner != XS_TRANSMITTING) || p->owner_device != device ||
            (queue != ALL_QUEUES && p->queue != queue))
            continue;
        xs_pool_put(&w->pool, mem, f);
        home++;
    }
    return home;
}

/* The node where packets count that waited to be sent. */
static uint32_t tx_node(const struct xs_walk *w) {
    for (uint32_t at = 0; at < w->nnodes; at++)
        if (w->node[at].def == &xs_napi_tx_def) return at;
    return 0;
}

/* The queue that it was; its frames are where they were. */
static uint32_t detach_port(struct xs_worker *w, uint32_t at) {
    struct xs_port *port = &w->napi.port[at];
    struct xs_xsk *x = port->xsk;
    xs_xsk_unwatch(x);
    x->dead = 1;
    if (x->queue < XS_QUEUES_MAX)
        atomic_store_explicit(&w->stack->owners.worker[x->device][x->queue], XS_NO_WORKER,
                              memory_order_relaxed);
    while (port->backlog_n) /* what waited for room can go nowhere now */
        xs_walk_drop(&w->walk, tx_node(&w->walk), xs_napi_pop_backlog(&w->napi, at), XS_REASON_DEVICE_GONE);
    x->ops->close(x);
    x->filled = x->transmitting = x->unkicked = 0;
    x->rx_head = XS_NO_FRAME;
    xs_napi_detach(&w->napi, at);
    return x->queue;
}

/* A frame on a queue may have its home with another worker than has the queue, so all of them stand still for the moment. */
static void hold_all(struct xs_stack *s) {
    pthread_mutex_lock(&s->ports_lock);
    for (uint32_t i = 0; i < s->nworkers; i++)
        if (s->worker[i]) xs_worker_hold(s->worker[i]);
}

static void unhold_all(struct xs_stack *s) {
    for (uint32_t i = 0; i < s->nworkers; i++)
        if (s->worker[i]) xs_worker_unhold(s->worker[i]);
    pthread_mutex_unlock(&s->ports_lock);
}

/* Returns how many queues it was, and in `home` how many frames. */
static int detach(struct xs_worker *w, uint32_t device, int *home) {
    int queues = 0;
    hold_all(w->stack);
    for (uint32_t port = w->napi.nports; port-- > 0;) {
        const struct xs_xsk *x = w->napi.port[port].xsk;
        if (!x || x->device != device) continue;
        uint32_t queue = detach_port(w, port);
        if (home) *home += take_home(w, device, queue);
        queues++;
    }
    unhold_all(w->stack);
    return queues;
}

int xs_worker_detach(struct xs_worker *w, uint32_t device) {
    int home = 0;
    return detach(w, device, &home) ? home : -EINVAL;
}

int xs_worker_unplug(struct xs_worker *w, uint32_t device) { return detach(w, device, NULL); }

int xs_stack_take_home(struct xs_stack *s, uint32_t device) {
    hold_all(s);
    int home = take_home(s->worker[0], device, ALL_QUEUES);
    unhold_all(s);
    return home;
}
