/* The stack: the UMEM, the tables that control publishes, the workers. Who may touch what is said in worker.h. */
#ifndef XS_STACK_H
#define XS_STACK_H

#include <pthread.h>

#include "base/pool.h"
#include "tables/config.h"
#include "worker.h"

struct xs_stack_options;

struct xs_stack {
    struct xs_mem mem;
    size_t data_bytes;
    size_t mapped_bytes; /* whole pages, which may be huge */
    uint32_t nworkers;
    uint32_t frames_per_worker;
    struct xs_tables tables;
    int event_fd;      /* workers wake control: base/events.h */
    int hooks_fd;      /* threads of workers wake who runs Python hooks: worker_thread.c */
    bool hints;        /* metadata was asked for: xs_meta.hints of what napi received is valid */
    uint64_t spin_ns;  /* xs_worker_goes_on() */
    bool manual_clock; /* the memory device's: time is what the caller says */
    _Atomic(uint64_t) manual_now_ns;
    pid_t pid; /* a forked child must not touch the rings */
    /* Held while a worker's queues change; the watchdog looks at them under it. Taken before any worker is entered. */
    pthread_mutex_t ports_lock;
    struct xs_queue_owners owners;
    bool steering; /* rps is on */
    _Atomic(struct xs_rfs *)
        rfs; /* what readers say of flows, or NULL; the last of those that were ever made */
    struct xs_rfs *rfs_made;
    struct xs_worker *worker[XS_WORKERS_MAX];
    struct xs_stack *next; /* of the process */
};

uint64_t xs_stack_now_ns(const struct xs_stack *s);
void xs_stack_destroy_rps(struct xs_stack *s); /* stack_rps.c */

/* Its memory: -ENOMEM, -ENOBUFS (too few huge pages). stack_memory.c */
int xs_stack_map(struct xs_stack *s, const struct xs_stack_options *o);
void xs_stack_unmap(struct xs_stack *s);

/* From when the memory is there until it goes: a forked child has zeros in its place. stack_fork.c */
void xs_fork_guard(struct xs_stack *s);
void xs_fork_unguard(struct xs_stack *s);

/* After queues were taken out of a table that workers put packets by: what was put is published, and no worker remembers a
 * queue as one to be flushed. Then the queue may go. */
void xs_stack_flush(struct xs_stack *s);

#endif
