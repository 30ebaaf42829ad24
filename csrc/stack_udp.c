/* Control's side of UDP sockets: making them for a stack, publishing the table. See ffi/60_udp.cdef.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "ffi/10_core.cdef.h"
#include "stack.h"
#include "tables/sockets.h"

static int feeds_create(struct xs_stack *stack, struct xs_socket *s, uint32_t rcvbuf) {
    s->feed = aligned_alloc(64, stack->nworkers * sizeof *s->feed);
    if (!s->feed) return -ENOMEM;
    memset(s->feed, 0, stack->nworkers * sizeof *s->feed);
    s->nfeeds = (uint8_t)stack->nworkers;
    for (uint32_t i = 0; i < s->nfeeds; i++) {
        s->feed[i].socket = s;
        s->feed[i].ring = xs_spsc_create(xs_feed_slots(rcvbuf, stack->frames_per_worker));
        if (!s->feed[i].ring) return -ENOMEM;
    }
    return 0;
}

int xs_socket_create(struct xs_stack *stack, const struct xs_socket_options *o, struct xs_socket **out) {
    if (o->family != 4 && o->family != 6) return -EINVAL;
    struct xs_socket *s = aligned_alloc(64, (sizeof *s + 63) & ~(size_t)63);
    if (!s) return -ENOMEM;
    memset(s, 0, sizeof *s);
    s->index = o->index;
    s->family = o->family;
    s->port = o->port;
    memcpy(s->address, o->address, 16);
    atomic_init(&s->rcvbuf, o->rcvbuf);
    s->sending.sndbuf = o->sndbuf;
    s->sending.device = XS_ANY_DEVICE;
    s->shadow_fd = -1;
    s->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = s->event_fd < 0 ? -errno : feeds_create(stack, s, o->rcvbuf);
    if (rc) {
        xs_socket_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

void xs_socket_free(struct xs_socket *s) {
    for (uint32_t i = 0; s->feed && i < s->nfeeds; i++) xs_spsc_destroy(s->feed[i].ring);
    free(s->feed);
    if (s->event_fd >= 0) close(s->event_fd);
    free(s);
}

int xs_stack_set_sockets(struct xs_stack *stack, const struct xs_socket_binding *bindings, uint32_t n) {
    struct xs_socket_table *table = n ? xs_socket_table_create(bindings, n) : NULL;
    if (n && !table) return -ENOMEM;
    const struct xs_socket_table *old = atomic_exchange(&stack->tables.sockets, table);
    xs_stack_synchronize(stack);
    /* a socket that is in the table no more may still be on a worker's list of those to be flushed: outside of a poll
     * only what a send call or a resumed hook has delivered */
    for (uint32_t i = 0; i < stack->nworkers; i++) {
        xs_worker_hold(stack->worker[i]);
        xs_inbox_flush(&stack->worker[i]->inbox);
        xs_worker_unhold(stack->worker[i]);
    }
    xs_socket_table_destroy((struct xs_socket_table *)old);
    return 0;
}
