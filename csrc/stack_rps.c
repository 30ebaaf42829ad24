/* Control's side of rps: publishing what it steers by. See ffi/72_rps.cdef.h. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "stack.h"

#include "ffi/10_core.cdef.h"

static void destroy(struct xs_rps_table *t) {
    if (!t) return;
    free(t->flow);
    free(t->limit);
    free(t->xps);
    free(t);
}

static uint32_t next_pow2(uint32_t n) {
    uint32_t p = 1;
    while (p < n) p <<= 1;
    return p;
}

/* ---- making one ---- */

static void rfs_destroy(struct xs_rfs *rfs) {
    if (rfs) free(rfs->read);
    free(rfs);
}

static struct xs_rfs *rfs_create(const struct xs_stack *s, const struct xs_rps_options *o) {
    struct xs_rfs *rfs = malloc(sizeof *rfs + o->flows * sizeof rfs->reader[0]);
    if (!rfs) return NULL;
    rfs->replaced = NULL;
    rfs->nworkers = s->nworkers;
    rfs->mask = o->flows - 1;
    rfs->first = s->rfs_made ? s->rfs_made->first + (XS_RPS_COUNT + 1) / 64 : 0;
    rfs->read = calloc((size_t)s->nworkers * o->flows, sizeof rfs->read[0]);
    if (!rfs->read) {
        free(rfs);
        return NULL;
    }
    memcpy(rfs->worker_of_cpu, o->worker_of_cpu, sizeof rfs->worker_of_cpu);
    for (uint32_t i = 0; i < o->flows; i++)
        atomic_init(&rfs->reader[i], UINT32_MAX); /* nobody's: RPS_NO_CPU */
    return rfs;
}

/* The queues that a worker has, or all of the device when it has none: netif_set_xps_queue(). */
static void choose_queues(const struct xs_stack *s, uint32_t worker, uint32_t device, struct xs_xps *out) {
    const _Atomic(uint8_t) *owner = s->owners.worker[device];
    for (int all = 0; all < 2 && !out->n; all++)
        for (uint32_t q = 0; q < XS_QUEUES_MAX && out->n < sizeof out->queue; q++)
            if (all ? atomic_load(&owner[q]) != XS_NO_WORKER : atomic_load(&owner[q]) == worker)
                out->queue[out->n++] = (uint8_t)q;
}

static int create(struct xs_stack *s, const struct xs_rps_options *o, struct xs_rfs *rfs,
                  struct xs_rps_table **out) {
    struct xs_rps_table *t = calloc(1, sizeof *t);
    if (!t) return -ENOMEM;
    t->nworkers = s->nworkers;
    t->nmap = o->nmap;
    t->max_backlog = o->max_backlog;
    memcpy(t->map, o->map, sizeof t->map);
    memcpy(t->key, s->worker[0]->ip.secret, sizeof t->key);
    t->rfs = rfs;
    size_t flows = rfs ? (size_t)s->nworkers * (rfs->mask + 1) : 0;
    t->xps = calloc(s->nworkers * XS_DEVICES_MAX, sizeof *t->xps);
    if (rfs) t->flow = malloc(flows * sizeof *t->flow);
    if (o->flow_limit) t->limit = calloc(s->nworkers, sizeof *t->limit);
    if (!t->xps || (rfs && !t->flow) || (o->flow_limit && !t->limit)) {
        destroy(t);
        return -ENOMEM;
    }
    for (size_t i = 0; i < flows; i++)
        t->flow[i] = (struct xs_rps_flow){.last = rfs->first & XS_RPS_COUNT, .worker = XS_RPS_NOBODY};
    for (uint32_t w = 0; w < s->nworkers; w++)
        for (uint32_t d = 0; d < XS_DEVICES_MAX; d++) choose_queues(s, w, d, &t->xps[w * XS_DEVICES_MAX + d]);
    *out = t;
    return 0;
}

static bool is_sound(const struct xs_stack *s, const struct xs_rps_options *o) {
    if (!o->nmap || o->nmap > XS_RPS_MAP || !o->max_backlog || o->max_backlog > XS_RPS_BACKLOG) return false;
    if (o->flows & (o->flows - 1) || (o->flows && o->flows < XS_RPS_WORKERS)) return false;
    for (uint32_t i = 0; i < o->nmap; i++)
        if (o->map[i] >= s->nworkers) return false;
    for (uint32_t i = 0; i < XS_RPS_CPUS; i++)
        if (o->worker_of_cpu[i] >= s->nworkers && o->worker_of_cpu[i] != XS_RPS_NOBODY) return false;
    return true;
}

/* ---- publishing it ---- */

/* The rings between the workers, once: they are as large as a backlog may be. While nobody drives, nor watches. */
static int connect_backlogs(struct xs_stack *s) {
    struct xs_crossing *all[XS_WORKERS_MAX];
    if (s->worker[0]->backlog.slots) return 0;
    for (uint32_t i = 0; i < s->nworkers; i++) all[i] = &s->worker[i]->backlog;
    return xs_crossing_connect(all, s->nworkers, next_pow2(XS_RPS_BACKLOG));
}

/* With rps a worker puts other workers' frames on queues too, and they together have no more of a partition than each alone. */
static int prepare_workers(struct xs_stack *s, bool steering) {
    pthread_mutex_lock(&s->ports_lock);
    for (uint32_t i = 0; i < s->nworkers; i++) xs_worker_hold(s->worker[i]);
    int rc = steering ? connect_backlogs(s) : 0;
    if (!rc) s->steering = steering;
    for (uint32_t i = 0; i < s->nworkers; i++) {
        if (!rc) xs_worker_share_out(s->worker[i]);
        xs_worker_unhold(s->worker[i]);
    }
    pthread_mutex_unlock(&s->ports_lock);
    return rc;
}

int xs_stack_set_rps(struct xs_stack *s, const struct xs_rps_options *o) {
    struct xs_rps_table *t = NULL;
    struct xs_rfs *rfs = NULL;
    if (o && !is_sound(s, o)) return -EINVAL;
    int rc = o && o->flows && !(rfs = rfs_create(s, o)) ? -ENOMEM : 0;
    if (!rc && o) rc = create(s, o, rfs, &t);
    if (!rc) rc = prepare_workers(s, o); /* last: nothing is changed when there is no memory */
    if (rc) {
        destroy(t);
        rfs_destroy(rfs);
        return rc;
    }
    if (rfs) rfs->replaced = s->rfs_made;
    if (rfs) s->rfs_made = rfs;
    atomic_store_explicit(&s->rfs, rfs, memory_order_release);
    const struct xs_rps_table *old = atomic_exchange(&s->tables.rps, t);
    xs_stack_synchronize(s);
    destroy((struct xs_rps_table *)old);
    return 0;
}

void xs_stack_destroy_rps(struct xs_stack *s) {
    destroy((struct xs_rps_table *)atomic_load(&s->tables.rps));
    for (struct xs_rfs *rfs = s->rfs_made, *next; rfs; rfs = next) {
        next = rfs->replaced;
        rfs_destroy(rfs);
    }
}

void xs_rfs_set_cpus(struct xs_stack *s, const uint8_t *worker_of_cpu) {
    struct xs_rfs *rfs = atomic_load(&s->rfs);
    for (uint32_t i = 0; rfs && i < XS_RPS_CPUS; i++)
        __atomic_store_n(&rfs->worker_of_cpu[i], worker_of_cpu[i], __ATOMIC_RELAXED);
}

uint32_t xs_rps_hash_of(struct xs_stack *s, const uint8_t *frame, uint32_t bytes, uint32_t l3_off,
                        uint16_t l3_proto) {
    struct xs_pkt p = {.len = (uint16_t)bytes, .l3_off = (uint16_t)l3_off, .l3_proto = l3_proto};
    return xs_flow_hash(s->worker[0]->ip.secret, &p, frame);
}
