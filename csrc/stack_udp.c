/* Control's side of UDP sockets: making them for a stack, publishing the table. See ffi/60_udp.cdef.h. */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
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
        struct xs_spsc *ring = xs_spsc_create(xs_feed_slots(rcvbuf, stack->frames_per_worker));
        if (!ring) return -ENOMEM;
        atomic_init(&s->feed[i].ring, ring);
    }
    return 0;
}

int xs_socket_create(struct xs_stack *stack, const struct xs_socket_options *o, struct xs_socket **out) {
    if (o->family && o->family != 4 && o->family != 6) return -EINVAL;
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
    s->sending.ttl = s->sending.hops = -1;
    s->sending.multicast_ttl = s->sending.multicast_hops = 1;
    s->sending.discover = 1; /* IP_PMTUDISC_WANT */
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

static void close_event_fd(struct xs_socket *s) {
    int fd = atomic_exchange(&s->event_fd, -1);
    if (fd >= 0) close(fd);
}

void xs_socket_free(struct xs_socket *s) {
    for (uint32_t i = 0; s->feed && i < s->nfeeds; i++) {
        xs_spsc_destroy(xs_feed_ring(&s->feed[i]));
        for (uint32_t k = 0; k < 32; k++) xs_spsc_destroy(s->feed[i].outgrown[k]);
    }
    free(s->feed);
    free((void *)atomic_load(&s->filter));
    close_event_fd(s);
    free(s);
}

int xs_stack_set_sockets(struct xs_stack *stack, const struct xs_socket_binding *bindings, uint32_t n) {
    struct xs_socket_table *table = n ? xs_socket_table_create(bindings, n) : NULL;
    if (n && !table) return -ENOMEM;
    const struct xs_socket_table *old = atomic_exchange(&stack->tables.sockets, table);
    xs_stack_synchronize(stack);
    xs_stack_flush(stack);
    xs_socket_table_destroy((struct xs_socket_table *)old);
    return 0;
}

/* ---- settings ---- */

int xs_feed_resize(struct xs_feed *f, uint32_t rcvbuf, uint32_t frames) {
    struct xs_spsc *old = xs_feed_ring(f);
    uint32_t slots = xs_feed_slots(rcvbuf, frames), frame;
    if (slots > old->mask + 1) {
        struct xs_spsc *larger = xs_spsc_create(slots);
        if (!larger) return -ENOMEM;
        xs_spsc_flush(old);
        while (xs_spsc_pop(old, &frame, 1)) xs_spsc_push(larger, frame); /* what is queued stays queued */
        xs_spsc_flush(larger);
        f->outgrown[__builtin_ctz(old->mask + 1)] = old;
        atomic_store_explicit(&f->ring, larger, memory_order_release);
    }
    atomic_store(&f->socket->rcvbuf, rcvbuf);
    f->charged_end = 0;        /* it was that of the buffer as it was */
    xs_socket_wake(f->socket); /* a sleeper may have seen the old ring empty */
    return 0;
}

int xs_socket_export(struct xs_socket *s) {
    atomic_store(&s->exported, 1);
    xs_socket_arm(s);
    return s->event_fd;
}

int xs_socket_set_filter(struct xs_stack *stack, struct xs_socket *s, const struct xs_filter_code *program,
                         uint32_t n) {
    struct xs_filter *filter = n ? malloc(sizeof *filter + n * sizeof filter->insn[0]) : NULL;
    if (n && !filter) return -ENOMEM;
    if (filter) {
        filter->n = n;
        memcpy(filter->insn, program, n * sizeof *program);
    }
    const struct xs_filter *old = atomic_exchange(&s->filter, filter);
    xs_socket_set_flags(s, n ? XS_SOCKET_FILTER : 0, n ? 0 : XS_SOCKET_FILTER);
    xs_stack_synchronize(stack);
    free((void *)old);
    return 0;
}

int xs_socket_set_shadow(struct xs_stack *stack, struct xs_socket *s, int fd) {
    struct xs_worker *w = stack->worker[s->index % stack->nworkers];
    int rc = 0;
    xs_worker_hold(w);
    if (s->shadow_fd >= 0) xs_udp_shadow_remove(&w->udp, s);
    s->shadow_fd = fd;
    if (fd >= 0 && (rc = xs_udp_shadow_add(&w->udp, s))) s->shadow_fd = -1;
    xs_worker_unhold(w);
    return rc;
}

int xs_shadow_disconnect(int fd) {
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    return connect(fd, &none, sizeof none) ? -errno : 0;
}

int xs_shadow_is_member(int fd, const uint8_t *group, uint32_t ifindex) {
    struct group_filter filter = {.gf_interface = ifindex};
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof filter;
    memcpy(&address.sin_addr, group, sizeof address.sin_addr);
    memcpy(&filter.gf_group, &address, sizeof address);
    return !getsockopt(fd, IPPROTO_IP, MCAST_MSFILTER, &filter, &size); /* else EADDRNOTAVAIL */
}

void xs_socket_close(struct xs_socket *s) {
    xs_socket_set_flags(s, XS_SOCKET_CLOSED, 0);
    atomic_store(&s->armed, 1); /* whoever sleeps wakes up and is told */
    xs_socket_wake(s);
    /* Whoever comes to wait from now on sees that it is closed, and does not sleep: set, then look, on both sides. */
    atomic_thread_fence(memory_order_seq_cst);
    if (!atomic_load(&s->waiting)) close_event_fd(s);
}

/* ---- waiting, without the GIL ---- */

/* One round over all workers: 2 = a Python hook has packets, 1 = another thread polls one of them, 0 = done, or an errno.
 * Adds to `got` how many packets were taken. */
static int poll_all(struct xs_stack *stack, uint32_t budget, uint32_t *got) {
    int busy = 0;
    for (uint32_t i = 0; i < stack->nworkers; i++) {
        int rc = xs_worker_poll(stack->worker[i], budget);
        if (xs_walk_parked(&stack->worker[i]->walk)) return 2;
        if (rc == -EBUSY)
            busy = 1;
        else if (rc < 0)
            return rc;
        else
            *got += (uint32_t)rc;
    }
    return busy;
}

#define SLICE 256u /* packets of a queue that are taken before the reader's receive buffer is looked at */

/* Rounds for a reader who wants a batch of `budget`: as long as packets come, and no more of them than his receive buffer holds,
 * who reads nothing meanwhile. */
static int poll_for(struct xs_stack *stack, const struct xs_socket *s, uint32_t budget) {
    for (uint32_t taken = 0;;) {
        uint32_t got = 0, slice = budget - taken < SLICE ? budget - taken : SLICE;
        int rc = poll_all(stack, slice, &got);
        taken += slice;
        if (rc || got < slice || taken >= budget) return rc;
        if (xs_socket_rmem(s) > atomic_load_explicit(&s->rcvbuf, memory_order_relaxed) / 2) return rc;
    }
}

#define OTHERS_MS 10 /* another thread polls: how long until we see whether it still does */

/* Sleeps until the socket's eventfd or, when we drive, a worker has something. */
static int sleep_on(struct xs_stack *stack, struct xs_socket *s, bool drive, int timeout_ms) {
    struct pollfd fd[XS_WORKERS_MAX + 1];
    uint32_t n = 0;
    if (s) fd[n++] = (struct pollfd){.fd = s->event_fd, .events = POLLIN};
    uint32_t first = n;
    for (uint32_t i = 0; drive && i < stack->nworkers; i++)
        fd[n++] = (struct pollfd){.fd = stack->worker[i]->epoll_fd, .events = POLLIN};
    int rc = poll(fd, n, timeout_ms);
    if (rc < 0) return -errno;
    uint64_t count;
    bool taken = s && fd[0].revents && !atomic_load(&s->exported) && !(xs_socket_flags(s) & XS_SOCKET_CLOSED);
    if (taken && read(s->event_fd, &count, sizeof count) < 0 && errno != EAGAIN) return -errno;
    for (uint32_t i = first; i < n; i++)
        if (fd[i].revents) xs_worker_wait(stack->worker[i - first], 0); /* takes what only was to wake it */
    return rc;
}

static int left_ms(uint64_t end_ns) {
    uint64_t now = xs_monotonic_ns();
    return now >= end_ns ? 0 : (int)((end_ns - now + 999999) / 1000000);
}

static uint64_t deadline(int timeout_ms) { return xs_monotonic_ns() + (uint64_t)timeout_ms * 1000000ull; }

#define SIGNALS_MS \
    100 /* how long until Python looks at its signals: one that came just before the sleep ends no sleep */

static int wait_for(struct xs_stack *stack, struct xs_socket *s, int drive, uint32_t budget, int timeout_ms) {
    uint64_t end = timeout_ms < 0 ? 0 : deadline(timeout_ms), look = deadline(SIGNALS_MS), idle = 0;
    for (;;) {
        int rc = drive ? poll_for(stack, s, budget) : 0;
        if (xs_socket_has_something(s)) return 1;
        if (rc < 0 || rc == 2) return rc;
        int left = timeout_ms < 0 ? -1 : left_ms(end);
        if (!left) {
            /* what was only to wake a sleeper is taken too, or descriptors of fileno() would stay readable */
            for (uint32_t i = 0; drive && i < stack->nworkers; i++) xs_worker_wait(stack->worker[i], 0);
            return 0;
        }
        int most = left_ms(look);
        if (!most) return 0; /* and it calls again */
        if (drive && rc == 0 && xs_worker_goes_on(stack->worker[0], 0, &idle)) continue;
        if (xs_socket_arm(s)) return 1;
        bool alone = drive && rc == 0;
        if (drive && !alone && most > OTHERS_MS) most = OTHERS_MS;
        rc = sleep_on(stack, s, alone, left < 0 || left > most ? most : left);
        if (rc == -EINTR) return 0; /* Python looks at its signals, and calls again */
        if (rc < 0) return rc;
        if (xs_socket_has_something(s)) return 1;
    }
}

int xs_socket_wait(struct xs_stack *stack, struct xs_socket *s, int drive, uint32_t budget, int timeout_ms) {
    if (!timeout_ms) return wait_for(stack, s, drive, budget, 0); /* never sleeps */
    atomic_fetch_add(&s->waiting, 1);
    atomic_thread_fence(memory_order_seq_cst); /* count, then look: xs_socket_close() */
    int rc = wait_for(stack, s, drive, budget, timeout_ms);
    /* we may have taken a wake-up that was meant for several: whoever sleeps on looks again, and asks to be woken. That of
     * closing is nobody's to take. */
    uint64_t one = 1;
    if (!(xs_socket_flags(s) & XS_SOCKET_CLOSED) && atomic_load(&s->waiting) > 1 &&
        write(s->event_fd, &one, sizeof one) < 0 && errno != EAGAIN)
        rc = -errno;
    bool last = atomic_fetch_sub(&s->waiting, 1) == 1;
    if (last && xs_socket_flags(s) & XS_SOCKET_CLOSED) close_event_fd(s);
    return rc;
}

int xs_socket_wait_room(struct xs_stack *stack, int drive, uint32_t budget, int timeout_ms) {
    uint32_t got = 0;
    int rc = drive ? poll_all(stack, budget, &got) : 0;
    if (rc < 0 || rc == 2) return rc;
    /* completions wake nobody: look every millisecond */
    rc = sleep_on(stack, NULL, drive && rc == 0, timeout_ms < 0 || timeout_ms > 1 ? 1 : timeout_ms);
    return rc == -EINTR || rc > 0 ? 0 : rc;
}
