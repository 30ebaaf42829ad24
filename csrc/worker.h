/* A worker: one partition of the UMEM, its queue of every device, its own walk through the stages.
 *
 * One thread at a time drives a worker, one of its own (worker_thread.c) or any other: xs_worker_poll() takes the `driver`
 * flag by compare-and-swap and gives it back at the end, so any thread may poll, and two never do at once. Everything below
 * `driver` belongs to whoever holds it, but for what is atomic: that is how others speak to him, or see how he is.
 * Other threads reach a worker through: published tables (tables/config.h), the pool's return rings, socket queues,
 * the wake-up eventfd, and counters, which others read as they are at the moment.
 *
 *      poll:  frames come home -> per device: completions, RX ring -> walk -> refill -> what other workers hand over
 *             -> ticks (readers are woken) -> kicks -> events to control
 */
#ifndef XS_WORKER_H
#define XS_WORKER_H

#include <pthread.h>

#include "base/epoch.h"
#include "base/pool.h"
#include "stages/ip.h"
#include "stages/napi.h"
#include "stages/neigh.h"
#include "stages/routing.h"
#include "stages/rps.h"
#include "stages/taps.h"
#include "stages/udp.h"
#include "stages/xdp.h"
#include "tables/config.h"
#include "tables/path_mtu.h"
#include "walk.h"

struct xs_stack;

/* The longest that a driven worker sleeps: timers of stages are no finer than this. */
#define XS_TICK_MS 10

struct xs_worker {
    struct xs_epoch epoch;           /* odd while polling */
    alignas(64) _Atomic(int) driver; /* 1 while a thread drives */
    _Atomic(uint32_t) wanted;        /* threads that wait until they may drive: xs_worker_give_way() */
    _Atomic(int) threaded, stopping; /* a thread of its own drives it, which is to end: worker_thread.c */
    _Atomic(int) asleep;             /* that thread is, or is about to be */
    pthread_t thread;
    _Atomic(uint64_t) polls; /* finished polls; the watchdog looks at it */
    struct xs_stack *stack;
    uint32_t index;
    int wake_fd;              /* eventfd: control wakes a worker that sleeps in xs_worker_wait() */
    int epoll_fd;             /* RX rings, wake_fd, timer_fd, and what sockets add */
    int timer_fd;             /* see finish_later() */
    uint64_t timer_ns;        /* when it goes off; 0 = not set */
    uint64_t faults_ns;       /* when sockets were last asked for errors */
    _Atomic(bool) drained;    /* the last poll left nothing that another would find: who drives may sleep */
    uint32_t rx_entry;        /* node of napi.rx */
    uint32_t tx_entry;        /* node of routing.tx */
    uint32_t frames_tx_entry; /* where whole frames from the user enter: tc.tx or what stands for it */
    uint32_t steered_entry;   /* where packets enter that another worker has steered here: behind rps.rx */
    uint32_t napi_tx;         /* node of napi.tx: where packets enter that another worker wants sent */
    struct xs_pool pool;
    struct xs_walk walk;
    struct xs_events events;    /* what it asks of control */
    struct xs_inbox inbox;      /* what this worker puts on the queues of sockets */
    struct xs_crossing sending; /* packets for queues of other workers, and theirs for ours */
    struct xs_crossing backlog; /* received packets that were steered to other workers, and theirs to us */
    /* the stages' state, one field a stem */
    struct xs_napi napi;
    struct xs_xdp xdp;
    struct xs_ip ip;
    struct xs_routing routing;
    struct xs_udp udp;
    struct xs_rps rps;
    struct xs_taps taps;
    struct xs_neigh neigh;
    struct xs_path_mtus paths; /* udp learns them, ip heeds them */
};

/* What readers may hold of a worker's frames follows from its queues, and from rps: worker_ports.c. While nobody drives it. */
void xs_worker_share_out(struct xs_worker *w);

int xs_worker_init(struct xs_worker *w, struct xs_stack *stack, uint32_t index);
/* Closes its descriptors: nobody drives it or sleeps on it any more. Frames still come home. */
void xs_worker_close(struct xs_worker *w);
void xs_worker_deinit(struct xs_worker *w);

/* Whether who has polled and got so much is to poll again, or else to sleep. `idle_ns` is his: since when nothing has come. */
bool xs_worker_goes_on(const struct xs_worker *w, int got, uint64_t *idle_ns);

/* Tries to become the one who drives; xs_worker_leave() ends it. Enter also marks the worker as not quiescent. */
bool xs_worker_enter(struct xs_worker *w);
void xs_worker_leave(struct xs_worker *w);
/* Who could not enter wants to, until he has; meanwhile whoever drives all the time gives way between two polls. */
void xs_worker_want(struct xs_worker *w);
void xs_worker_unwant(struct xs_worker *w);
void xs_worker_give_way(struct xs_worker *w);
void xs_worker_wake_waiting(struct xs_worker *w); /* it was left: one of those who sleep until it is */
/* After walks outside of a poll: kicks what they put on rings, and sees to it that what had no room is sent later. */
void xs_worker_finish(struct xs_worker *w);

/* worker_cross.c: what was pushed for other workers is theirs, and they wake up. */
void xs_worker_hand_over(struct xs_worker *w);
/* Walks what other workers have pushed for this one, about `budget` packets; returns how many. */
uint32_t xs_worker_take_over(struct xs_worker *w, uint32_t budget, uint64_t now);
/* Whether there is any. Any thread may ask. */
bool xs_worker_is_waited_for(const struct xs_worker *w);

#endif
