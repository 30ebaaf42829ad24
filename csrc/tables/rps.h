/* What rps steers by: published by control (ffi/72_rps.cdef.h), replaced whole. */
#ifndef XS_TABLES_RPS_H
#define XS_TABLES_RPS_H

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "tables/config.h"

#include "ffi/72_rps.cdef.h"

#define XS_RPS_WORKERS 64u                /* as many as there can be: the low bits of a reader's entry */
#define XS_RPS_NOBODY 255u                /* no worker */
#define XS_FLOW_LIMIT_HISTORY 128u        /* include/linux/netdevice.h */
#define XS_FLOW_LIMIT_BUCKETS (1u << 12u) /* net.core.flow_limit_table_len */

/* Where a flow was steered to last, and the number of its last packet: of the worker that steers in the upper bits, and then counted.
 * One table a worker, written by it: struct rps_dev_flow. */
struct xs_rps_flow {
    uint32_t last;
    uint8_t worker; /* or XS_RPS_NOBODY */
};
#define XS_RPS_COUNT ((1u << 26) - 1)

/* Of the last packets that found a backlog half full, how many were of which flow: struct sd_flow_limit. */
struct xs_flow_limit {
    uint32_t head;
    uint16_t history[XS_FLOW_LIMIT_HISTORY];
    uint8_t bucket[XS_FLOW_LIMIT_BUCKETS];
};

/* The queues of a device that a worker sends by. */
struct xs_xps {
    uint8_t n;
    uint8_t queue[63];
};

/* What readers say of flows, under the GIL: by which worker they are read (rps_sock_flow_table), and how far. Readers know no
 * quiescent point: it lasts as long as the stack, and so do those that it has replaced. */
struct xs_rfs {
    struct xs_rfs *replaced;
    uint32_t nworkers;
    uint32_t mask,
        first; /* of flows; with which number they begin, another than those of the table that was replaced */
    _Atomic(uint32_t)
        *read; /* [nworkers][mask + 1]: the number of the last packet that was read, by who has steered it */
    uint8_t worker_of_cpu[XS_RPS_CPUS];
    _Atomic(uint32_t) reader[]; /* the flow's hash, but for its low bits, which are the worker */
};

struct xs_rps_table {
    uint64_t key[2];
    uint32_t nworkers;
    uint32_t nmap, max_backlog;
    uint8_t map[XS_RPS_MAP];
    struct xs_rfs *rfs;          /* or NULL */
    struct xs_rps_flow *flow;    /* [nworkers][rfs->mask + 1] */
    struct xs_flow_limit *limit; /* [nworkers], or NULL */
    struct xs_xps *xps;          /* [nworkers][XS_DEVICES_MAX] */
};

/* A share of `of` by a hash, evenly: reciprocal_scale(). */
static inline uint32_t xs_scale(uint32_t hash, uint32_t of) { return (uint32_t)((uint64_t)hash * of >> 32); }

/* Packet `number` of a flow has been read, by the thread that calls, on whichever CPU that is: sock_rps_record_flow_hash(). A
 * packet that was queued before flows were steered has whatever was in its place: it may say a flow to be read further than it is,
 * until the next packet of that flow is. */
static inline void xs_rfs_record(struct xs_rfs *self, uint32_t hash, uint32_t number) {
    uint32_t by = number / (XS_RPS_COUNT + 1);
    if (by >= self->nworkers) return;
    atomic_store_explicit(&self->read[by * (self->mask + 1) + (hash & self->mask)], number,
                          memory_order_release);
    int cpu = sched_getcpu();
    uint32_t worker = cpu >= 0 && cpu < XS_RPS_CPUS ? self->worker_of_cpu[cpu] : XS_RPS_NOBODY;
    if (worker == XS_RPS_NOBODY) return;
    uint32_t value = (hash & ~(XS_RPS_WORKERS - 1)) | worker;
    _Atomic(uint32_t) *entry = &self->reader[hash & self->mask];
    if (atomic_load_explicit(entry, memory_order_relaxed) != value)
        atomic_store_explicit(entry, value, memory_order_relaxed);
}

#endif
