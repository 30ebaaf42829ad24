/* The dead-man watchdog. See watchdog.h. */
#include "watchdog.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "base/clock.h"
#include "ffi/10_core.cdef.h"
#include "stack.h"

struct xs_watchdog {
    struct xs_stack *stack;
    uint64_t window_ns;
    pthread_t thread;
    pthread_mutex_t lock; /* of all that follows; never held while the workers are looked at */
    pthread_cond_t wake;
    bool ending;
    uint64_t *deadline[XS_DEVICES_MAX];
    uint64_t renewed_ns; /* when last */
    bool lapsed;
    struct xs_watchdog_values count;
    uint64_t polls[XS_WORKERS_MAX]; /* of each worker when it was last looked at; the thread's own */
};

static void renew(uint64_t *deadline, uint64_t value) {
    __atomic_store_n(deadline, value, __ATOMIC_RELAXED); /* one store: the program never sees half of it */
}

/* ---- looking ---- */

static bool is_empty(const struct xs_ring *rx) {
    return atomic_load_explicit(rx->producer, memory_order_acquire) ==
           atomic_load_explicit(rx->consumer, memory_order_acquire);
}

static bool is_alive(const struct xs_worker *worker, uint64_t *polls_before) {
    uint64_t polls = atomic_load_explicit(&worker->polls, memory_order_relaxed);
    bool progress = polls != *polls_before;
    *polls_before = polls;
    if (progress) return true;
    if (xs_worker_is_waited_for(worker)) return false;
    for (uint32_t port = 0; port < worker->napi.nports; port++) {
        const struct xs_xsk *x = worker->napi.port[port].xsk;
        if (x && !__atomic_load_n(&x->dead, __ATOMIC_RELAXED) && !is_empty(&x->rx)) return false;
    }
    return true;
}

static bool all_alive(struct xs_watchdog *w) {
    bool alive = true;
    pthread_mutex_lock(&w->stack->ports_lock);
    for (uint32_t i = 0; i < w->stack->nworkers; i++) alive &= is_alive(w->stack->worker[i], &w->polls[i]);
    pthread_mutex_unlock(&w->stack->ports_lock);
    return alive;
}

static void look(struct xs_watchdog *w) {
    pthread_mutex_unlock(&w->lock);
    bool alive = all_alive(w);
    pthread_mutex_lock(&w->lock);
    uint64_t now = xs_monotonic_ns();
    w->count.looks++;
    if (!alive) {
        if (!w->lapsed && now - w->renewed_ns >= w->window_ns) {
            w->lapsed = true;
            w->count.lapses++;
        }
        return;
    }
    w->lapsed = false;
    w->renewed_ns = now;
    w->count.renewals++;
    for (uint32_t i = 0; i < XS_DEVICES_MAX; i++)
        if (w->deadline[i]) renew(w->deadline[i], now + w->window_ns);
}

static void *run(void *argument) {
    struct xs_watchdog *w = argument;
    uint64_t at = xs_monotonic_ns();
    pthread_mutex_lock(&w->lock);
    while (!w->ending) {
        look(w);
        at = xs_monotonic_ns() + w->window_ns / XS_WATCHDOG_LOOKS;
        struct timespec until = {.tv_sec = (time_t)(at / 1000000000ull),
                                 .tv_nsec = (long)(at % 1000000000ull)};
        while (!w->ending && pthread_cond_timedwait(&w->wake, &w->lock, &until) == 0) continue;
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* ---- control ---- */

/* Signals are the business of the program's own threads. */
static int start_thread(struct xs_watchdog *w) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&w->thread, NULL, run, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0) pthread_setname_np(w->thread, "xdpstack-dog");
    return -rc;
}

int xs_watchdog_start(struct xs_stack *stack, uint64_t window_ns, struct xs_watchdog **out) {
    if (window_ns < 1000000u || window_ns > UINT64_MAX / 4) return -EINVAL;
    struct xs_watchdog *w = calloc(1, sizeof *w);
    if (!w) return -ENOMEM;
    w->stack = stack;
    w->window_ns = window_ns;
    w->renewed_ns = xs_monotonic_ns();
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&w->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&w->lock, NULL);
    int rc = start_thread(w);
    if (rc) {
        pthread_cond_destroy(&w->wake);
        pthread_mutex_destroy(&w->lock);
        free(w);
        return rc;
    }
    *out = w;
    return 0;
}

void xs_watchdog_stop(struct xs_watchdog *w) {
    if (xs_stack_forked(w->stack)) return; /* the thread is the parent's, and so are the deadlines */
    pthread_mutex_lock(&w->lock);
    w->ending = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    for (uint32_t i = 0; i < XS_DEVICES_MAX; i++)
        if (w->deadline[i]) renew(w->deadline[i], 0);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

static int find(const struct xs_watchdog *w, const uint64_t *deadline) {
    for (int i = 0; i < (int)XS_DEVICES_MAX; i++)
        if (w->deadline[i] == deadline) return i;
    return -1;
}

int xs_watchdog_add(struct xs_watchdog *w, uint64_t *deadline_ns) {
    pthread_mutex_lock(&w->lock);
    int at = find(w, NULL);
    if (at >= 0) {
        w->deadline[at] = deadline_ns;
        renew(deadline_ns, xs_monotonic_ns() + w->window_ns);
    }
    pthread_mutex_unlock(&w->lock);
    return at < 0 ? -ENOSPC : 0;
}

int xs_watchdog_remove(struct xs_watchdog *w, uint64_t *deadline_ns) {
    pthread_mutex_lock(&w->lock);
    int at = find(w, deadline_ns);
    if (at >= 0) {
        w->deadline[at] = NULL;
        renew(deadline_ns, 0);
    }
    pthread_mutex_unlock(&w->lock);
    return at < 0 ? -ENOENT : 0;
}

void xs_watchdog_read(struct xs_watchdog *w, struct xs_watchdog_values *out) {
    pthread_mutex_lock(&w->lock);
    *out = w->count;
    pthread_mutex_unlock(&w->lock);
}
