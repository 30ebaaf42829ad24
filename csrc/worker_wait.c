/* Waiting for work, and waiting for one's turn to drive. See worker.h. */
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "stack.h"
#include "worker.h"

#include "ffi/10_core.cdef.h"

/* ---- for work ---- */

int xs_worker_wait(struct xs_worker *w, int timeout_ms) {
    struct epoll_event event[8];
    int n = epoll_wait(w->epoll_fd, event, 8, timeout_ms);
    if (n < 0) return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < n; i++) {
        uint64_t drained;
        if (event[i].data.fd == w->wake_fd && read(w->wake_fd, &drained, sizeof drained) < 0) continue;
    }
    return n > 0;
}

/* Who has polled in vain polls again for so long, if it was asked for. */
static bool spins(const struct xs_worker *w, uint64_t *idle_ns) {
    uint64_t most = w->stack->spin_ns;
    if (!most) return false;
    uint64_t now = xs_monotonic_ns(); /* whatever the stack's clock says */
    if (!*idle_ns) *idle_ns = now;
    return now - *idle_ns < most;
}

bool xs_worker_goes_on(const struct xs_worker *w, int got, uint64_t *idle_ns) {
    if (got) *idle_ns = 0;
    if (got && !atomic_load_explicit(&w->drained, memory_order_relaxed)) return true;
    return spins(w, idle_ns);
}

/* While packets come the clock is looked at once in so many polls. */
#define POLLS_A_LOOK 16u

int xs_worker_run(struct xs_worker *w, uint32_t budget, int timeout_ms) {
    uint64_t end = xs_monotonic_ns() + (uint64_t)timeout_ms * 1000000u; /* whatever the stack's clock says */
    uint64_t idle = 0;
    for (uint32_t polls = 1;; polls++) {
        int got = xs_worker_poll(w, budget);
        if (xs_walk_parked(&w->walk)) return 1;
        if (got == -EBUSY) {
            sched_yield();
        } else if (got < 0) {
            return got;
        } else if (xs_worker_goes_on(w, got, &idle)) {
            xs_worker_give_way(w);
            if (polls % POLLS_A_LOOK) continue;
        } else {
            /* no longer than held packets may wait for their tick */
            got = xs_worker_wait(w, timeout_ms < XS_TICK_MS ? timeout_ms : XS_TICK_MS);
            if (got < 0) return got;
        }
        if (xs_monotonic_ns() >= end) return 0;
    }
}

void xs_worker_wake(struct xs_worker *w) {
    uint64_t one = 1;
    if (write(w->wake_fd, &one, sizeof one) < 0) return; /* EAGAIN: it is awake already */
}

int xs_worker_epoll_fd(struct xs_worker *w) { return w->epoll_fd; }

/* ---- for one's turn ---- */

/* Whoever waits yields so often, which is about as long as a poll takes; then he sleeps. */
#define YIELDS 64u
/* A wake-up may be missed: xs_worker_leave() does not order its store before its look at `wanted`, for that would cost every
 * poll a fence. Who sleeps looks again after so long. */
#define MISSED_NS 1000000l

/* A thread that polls all the time leaves the worker for no longer than it takes to come again: it is told that somebody waits. */
void xs_worker_want(struct xs_worker *w) { atomic_fetch_add_explicit(&w->wanted, 1, memory_order_relaxed); }

void xs_worker_unwant(struct xs_worker *w) { atomic_fetch_sub_explicit(&w->wanted, 1, memory_order_relaxed); }

void xs_worker_give_way(struct xs_worker *w) {
    while (atomic_load_explicit(&w->wanted, memory_order_relaxed)) sched_yield();
}

/* Until it was left, or may have been. */
static void sleep_until_left(struct xs_worker *w) {
    struct timespec most = {.tv_nsec = MISSED_NS};
    syscall(SYS_futex, &w->driver, FUTEX_WAIT_PRIVATE, 1, &most, NULL, 0);
}

void xs_worker_wake_waiting(struct xs_worker *w) {
    syscall(SYS_futex, &w->driver, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void xs_worker_hold(struct xs_worker *w) {
    if (xs_worker_enter(w)) return;
    xs_worker_want(w);
    for (uint32_t tries = 0; !xs_worker_enter(w); tries++) {
        if (tries < YIELDS)
            sched_yield();
        else
            sleep_until_left(w);
    }
    xs_worker_unwant(w);
}

void xs_worker_unhold(struct xs_worker *w) { xs_worker_leave(w); }
