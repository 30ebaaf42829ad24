/* A worker's life and its poll: off the RX rings (stages/napi_rx.c), through the walk (walk.c), and what has to be told to the
 * kernel at the end. See worker.h. */
#include "worker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/likely.h"
#include "ffi/10_core.cdef.h"
#include "stack.h"

/* What is left unfinished is tried again after so long, though nothing comes in. */
#define LATER_NS 1000000ull
/* How often sockets are asked for errors, at most. */
#define FAULTS_NS 100000000ull

int xs_worker_init(struct xs_worker *w, struct xs_stack *s, uint32_t index) {
    memset(w, 0, sizeof *w);
    w->stack = s;
    w->index = index;
    w->wake_fd = w->epoll_fd = w->timer_fd = -1;
    w->rx_entry = w->tx_entry = w->frames_tx_entry = w->steered_entry = w->napi_tx = XS_EDGE_NONE;
    int rc = xs_pool_init(&w->pool, index, s->nworkers, s->frames_per_worker);
    if (rc) return rc;
    w->walk.mem = &s->mem;
    w->walk.pool = &w->pool;
    xs_napi_init(&w->napi, &s->mem, &w->pool, &s->tables);
    w->napi.hints = s->hints;
    w->napi.owners = &s->owners;
    if (s->nworkers > 1) w->napi.crossing = &w->sending;
    w->inbox = (struct xs_inbox){.mem = &s->mem, .worker = index, .frames_max = s->frames_per_worker / 4 * 3};
    w->events.fd = s->event_fd;
    xs_neigh_init(&w->neigh, &s->mem, &s->tables, &w->events, s->frames_per_worker);
    w->xdp.tables = &s->tables;
    w->rps = (struct xs_rps){
        .mem = &s->mem, .tables = &s->tables, .worker = index, .hints = s->hints, .own = &w->backlog};
    w->taps = (struct xs_taps){.mem = &s->mem, .tables = &s->tables, .inbox = &w->inbox};
    w->udp = (struct xs_udp){.mem = &s->mem,
                             .pool = &w->pool,
                             .tables = &s->tables,
                             .inbox = &w->inbox,
                             .paths = &w->paths,
                             .manual_clock = s->manual_clock,
                             .shadow_epoll = -1};
    rc = xs_ip_init(&w->ip, &s->tables, &w->pool, index ? &s->worker[0]->ip : NULL);
    if (rc) {
        xs_worker_deinit(w);
        return rc;
    }
    w->ip.paths = &w->paths;
    w->routing = (struct xs_routing){.tables = &s->tables, .user = (uint32_t)getuid()};
    w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    w->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    w->epoll_fd = w->udp.worker_epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event wake = {.events = EPOLLIN, .data.fd = w->wake_fd};
    struct epoll_event timer = {.events = EPOLLIN, .data.fd = w->timer_fd};
    if (w->wake_fd < 0 || w->timer_fd < 0 || w->epoll_fd < 0 ||
        epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, w->wake_fd, &wake) ||
        epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, w->timer_fd, &timer)) {
        rc = -errno;
        xs_worker_deinit(w);
    }
    return rc;
}

void xs_worker_close(struct xs_worker *w) {
    xs_udp_shadow_close(&w->udp);
    if (w->wake_fd >= 0) close(w->wake_fd);
    if (w->timer_fd >= 0) close(w->timer_fd);
    if (w->epoll_fd >= 0) close(w->epoll_fd);
    w->wake_fd = w->timer_fd = w->epoll_fd = -1;
}

void xs_worker_deinit(struct xs_worker *w) {
    xs_worker_close(w);
    free(w->napi.sent_stamps);
    free(w->walk.trace);
    w->walk.trace = NULL;
    xs_crossing_deinit(&w->sending);
    xs_crossing_deinit(&w->backlog);
    xs_pool_deinit(&w->pool);
}

/* ---- who drives ---- */

bool xs_worker_enter(struct xs_worker *w) {
    int nobody = 0;
    if (!atomic_compare_exchange_strong_explicit(&w->driver, &nobody, 1, memory_order_acquire,
                                                 memory_order_relaxed))
        return false;
    xs_epoch_enter(&w->epoch);
    return true;
}

void xs_worker_leave(struct xs_worker *w) {
    xs_epoch_leave(&w->epoch);
    atomic_store_explicit(&w->driver, 0, memory_order_release);
    if (unlikely(atomic_load_explicit(&w->wanted, memory_order_relaxed))) xs_worker_wake_waiting(w);
}

/* ---- poll ---- */

static uint32_t poll_port(struct xs_worker *w, uint32_t port, uint32_t budget, uint64_t now) {
    struct xs_xsk *x = w->napi.port[port].xsk;
    if (!x || x->dead) return 0;
    xs_napi_complete(&w->napi, port);
    uint32_t total = 0, got = 0;
    do {
        if (got) xs_napi_ask(&w->napi, port);
        struct xs_batch *b = xs_walk_begin(&w->walk, now);
        w->walk.unasked = true;
        uint32_t want = budget - total < XS_WEIGHT ? budget - total : XS_WEIGHT;
        got = xs_napi_poll(&w->napi, port, want, b);
        total += got;
        if (b->n) xs_walk_run(&w->walk, w->rx_entry);
        xs_napi_refill(&w->napi, port);
    } while (got == XS_WEIGHT && total < budget && !xs_walk_parked(&w->walk));
    return total;
}

/* The kernel is told of what it was not told yet; and again, once a while, of what it was told of and has not taken: a driver
 * may ask to be told just after we looked whether it does. */
static void kick_all(struct xs_worker *w, uint64_t now) {
    for (uint32_t port = 0; port < w->napi.nports; port++) {
        struct xs_xsk *x = w->napi.port[port].xsk;
        if (x && unlikely(x->unwatched)) xs_xsk_watch(x);
        if (!x || !x->transmitting || (!x->unkicked && now - x->kicked_ns < LATER_NS)) continue;
        x->kicked_ns = now;
        xs_napi_kick(&w->napi, port);
    }
}

/* Packets may wait for room in a ring, and fill rings for frames, while nothing comes in that would wake whoever sleeps on
 * the epoll descriptor. So that he polls again, the timer makes it readable. A clock moved by hand needs none. */
static void finish_later(struct xs_worker *w, uint64_t now) {
    if (w->timer_ns && now >= w->timer_ns) {
        uint64_t expired;
        if (read(w->timer_fd, &expired, sizeof expired) < 0) return; /* a moment too early: next time */
        w->timer_ns = 0;
    }
    if (w->timer_ns || w->stack->manual_clock || !xs_napi_unfinished(&w->napi)) return;
    struct itimerspec at = {.it_value.tv_nsec = LATER_NS};
    if (timerfd_settime(w->timer_fd, 0, &at, NULL) == 0) w->timer_ns = now + LATER_NS;
}

void xs_worker_finish(struct xs_worker *w) {
    xs_worker_hand_over(w);
    kick_all(w, w->walk.now_ns);
    finish_later(w, w->walk.now_ns);
    xs_events_wake(&w->events);
}

/* That its device is gone the kernel leaves as an error on the socket (xsk_notifier), which epoll does not report. */
static void look_for_faults(struct xs_worker *w, uint64_t now) {
    if (now - w->faults_ns < FAULTS_NS || w->stack->manual_clock) return;
    w->faults_ns = now;
    for (uint32_t port = 0; port < w->napi.nports; port++) {
        struct xs_xsk *x = w->napi.port[port].xsk;
        int error = 0;
        socklen_t bytes = sizeof error;
        if (!x || x->fd < 0 || getsockopt(x->fd, SOL_SOCKET, SO_ERROR, &error, &bytes) || !error) continue;
        x->error = ENODEV;
        x->dead = 1;
    }
}

/* No frame has come meanwhile, and none is being sent: the next poll would be in vain, as far as can be seen. */
static bool is_drained(const struct xs_worker *w) {
    if (w->napi.crossing) return false;
    for (uint32_t port = 0; port < w->napi.nports; port++) {
        struct xs_xsk *x = w->napi.port[port].xsk;
        if (x && !x->dead && (x->busy_poll || x->transmitting || xs_ring_have(&x->rx, 1))) return false;
    }
    return true;
}

int xs_worker_poll(struct xs_worker *w, uint32_t budget) {
    if (!xs_worker_enter(w)) return -EBUSY;
    if (xs_walk_parked(&w->walk)) { /* Python has to say first where those go */
        xs_worker_leave(w);
        return -EAGAIN;
    }
    for (uint32_t port = 0; port < w->napi.nports; port++) xs_napi_ask(&w->napi, port);
    uint64_t now = xs_stack_now_ns(w->stack);
    uint32_t total = 0;
    xs_pool_drain(&w->pool);
    for (uint32_t k = 0; k < w->napi.nports && !xs_walk_parked(&w->walk); k++)
        total += poll_port(w, (w->napi.next_port + k) % w->napi.nports, budget, now);
    if (w->napi.nports) w->napi.next_port = (w->napi.next_port + 1) % w->napi.nports;
    if (w->napi.crossing) total += xs_worker_take_over(w, budget, now);
    xs_walk_tick(&w->walk, now);
    xs_worker_finish(w);
    look_for_faults(w, now);
    atomic_store_explicit(&w->drained, total && is_drained(w), memory_order_relaxed);
    atomic_store_explicit(&w->polls, atomic_load_explicit(&w->polls, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    xs_worker_leave(w);
    return (int)total;
}

int xs_worker_tick(struct xs_worker *w) {
    if (!xs_worker_enter(w)) return -EBUSY;
    int rc = xs_walk_parked(&w->walk) ? -EAGAIN : 0;
    if (!rc) {
        xs_walk_tick(&w->walk, xs_stack_now_ns(w->stack));
        xs_worker_finish(w);
    }
    xs_worker_leave(w);
    return rc;
}
