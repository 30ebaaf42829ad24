/* Threads that drive workers. See ffi/17_threads.cdef.h.
 *
 *      poll --> packets came: again
 *       ^  \--> nothing came: sleep, until there is something or a tick is due
 *       |   \-> packets are parked for a Python hook: whoever runs hooks is woken; sleep until they are done
 *       +---------------------------------------------------------------------------------------------+
 *
 * A thread never takes the GIL. It owns nothing: that it drives its worker is said by `driver`, poll by poll, as for everybody,
 * so that a sender, or control, has a turn in between.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "ffi/10_core.cdef.h"
#include "ffi/17_threads.cdef.h"
#include "stack.h"

#define BUDGET 256u /* packets of a queue in a poll: as xdpstack.native.core.BUDGET */

/* ---- the thread ---- */

static bool is_stopping(const struct xs_worker *w) {
    return atomic_load_explicit(&w->stopping, memory_order_acquire);
}

/* Nothing of this worker moves until Python has said where the packets go; who resumes the last of them wakes us. What else
 * wakes us is no harm. */
static void await_python(struct xs_worker *w) {
    xs_stack_wake_hooks(w->stack);
    struct pollfd wake = {.fd = w->wake_fd, .events = POLLIN};
    while (xs_walk_parked(&w->walk) && !is_stopping(w)) {
        uint64_t drained;
        if (poll(&wake, 1, -1) > 0 && read(w->wake_fd, &drained, sizeof drained) < 0) continue;
    }
}

/* Says that it sleeps, then looks: xs_worker_hand_over(). What waits for room in a TX ring, a timer tries again. */
static void sleep_until_work(struct xs_worker *w) {
    atomic_store_explicit(&w->asleep, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    if (!xs_worker_is_waited_for(w)) xs_worker_wait(w, XS_TICK_MS);
    atomic_store_explicit(&w->asleep, 0, memory_order_relaxed);
}

static void *drive(void *argument) {
    struct xs_worker *w = argument;
    uint64_t idle = 0;
    while (!is_stopping(w)) {
        int got = xs_worker_poll(w, BUDGET);
        if (xs_walk_parked(&w->walk))
            await_python(w);
        else if (got == -EBUSY)
            sched_yield();
        else if (got < 0 || xs_worker_goes_on(w, got, &idle))
            xs_worker_give_way(w);
        else
            sleep_until_work(w);
    }
    return NULL;
}

/* ---- control ---- */

/* Signals are the business of the program's own threads. */
static int start(struct xs_worker *w, int cpu) {
    pthread_attr_t attributes;
    cpu_set_t cpus;
    sigset_t all, before;
    CPU_ZERO(&cpus);
    if (cpu >= 0) CPU_SET((size_t)cpu, &cpus);
    sigfillset(&all);
    pthread_attr_init(&attributes);
    int rc = cpu < 0 ? 0 : pthread_attr_setaffinity_np(&attributes, sizeof cpus, &cpus);
    atomic_store(&w->stopping, 0);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (!rc) rc = pthread_create(&w->thread, &attributes, drive, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (rc) return -rc;
    atomic_store(&w->threaded, 1);
    char name[16];
    snprintf(name, sizeof name, "xdpstack/%u", w->index);
    pthread_setname_np(w->thread, name);
    return 0;
}

int xs_stack_start_threads(struct xs_stack *s, const int *cpus) {
    for (uint32_t i = 0; i < s->nworkers; i++) {
        int rc = start(s->worker[i], cpus ? cpus[i] : -1);
        if (!rc) continue;
        xs_stack_stop_threads(s);
        return rc;
    }
    return 0;
}

void xs_stack_stop_threads(struct xs_stack *s) {
    if (xs_stack_forked(s)) return; /* they are the parent's */
    for (uint32_t i = 0; i < s->nworkers; i++) {
        struct xs_worker *w = s->worker[i];
        if (!w || !atomic_load(&w->threaded)) continue;
        atomic_store(&w->stopping, 1);
        xs_worker_wake(w);
    }
    for (uint32_t i = 0; i < s->nworkers; i++) {
        struct xs_worker *w = s->worker[i];
        if (w && atomic_exchange(&w->threaded, 0)) pthread_join(w->thread, NULL);
    }
}

/* ---- who runs Python hooks ---- */

void xs_stack_wake_hooks(struct xs_stack *s) {
    uint64_t one = 1;
    if (write(s->hooks_fd, &one, sizeof one) < 0) return; /* full: it is readable */
}

int xs_stack_wait_hooks(struct xs_stack *s, int timeout_ms) {
    struct pollfd parked = {.fd = s->hooks_fd, .events = POLLIN};
    int n = poll(&parked, 1, timeout_ms);
    uint64_t count;
    if (n <= 0) return n < 0 && errno != EINTR ? -errno : 0;
    return read(s->hooks_fd, &count, sizeof count) > 0; /* of several who wait, one has it */
}
