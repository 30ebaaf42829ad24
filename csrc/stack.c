/* The stack: memory, tables, clock, ledger of frames. See stack.h. */
#include "stack.h"
#include "tables/sockets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "ffi/10_core.cdef.h"
#include "ffi/17_threads.cdef.h"
#include "tables/fib.h"
#include "tables/neigh.h"

static const struct xs_config no_devices;

static int connect_workers(struct xs_stack *s) {
    struct xs_crossing *sending[XS_WORKERS_MAX];
    for (uint32_t i = 0; i < s->nworkers; i++) {
        sending[i] = &s->worker[i]->sending;
        for (uint32_t j = 0; j < s->nworkers; j++) {
            s->worker[i]->pool.pool[j] = &s->worker[j]->pool;
            s->worker[i]->rps.crossing[j] = &s->worker[j]->backlog;
        }
    }
    return s->nworkers > 1 ? xs_crossing_connect(sending, s->nworkers, XS_TX_BACKLOG) : 0;
}

int xs_stack_create(const struct xs_stack_options *o, struct xs_stack **out) {
    if (!o->workers || o->workers > XS_WORKERS_MAX || (o->frame_bytes != 2048 && o->frame_bytes != 4096) ||
        o->frames_per_worker < 64 || (o->frames_per_worker & (o->frames_per_worker - 1)))
        return -EINVAL;
    struct xs_stack *s = calloc(1, sizeof *s);
    if (!s) return -ENOMEM;
    s->nworkers = o->workers;
    s->frames_per_worker = o->frames_per_worker;
    s->hints = o->hints;
    s->manual_clock = o->manual_clock;
    s->spin_ns = o->spin_us * 1000ull;
    s->pid = getpid();
    pthread_mutex_init(&s->ports_lock, NULL);
    xs_queue_owners_init(&s->owners);
    atomic_init(&s->tables.config, &no_devices);
    atomic_init(&s->tables.fib, &xs_fib_empty);
    s->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->hooks_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = s->event_fd < 0 || s->hooks_fd < 0 ? -errno : xs_stack_map(s, o);
    for (uint32_t i = 0; rc == 0 && i < s->nworkers; i++) {
        s->worker[i] = aligned_alloc(64, (sizeof *s->worker[i] + 63) & ~(size_t)63);
        rc = s->worker[i] ? xs_worker_init(s->worker[i], s, i) : -ENOMEM;
        if (rc) {
            free(s->worker[i]);
            s->worker[i] = NULL;
        }
    }
    if (!rc) rc = connect_workers(s);
    if (rc) {
        xs_stack_destroy(s);
        return rc;
    }
    *out = s;
    return 0;
}

static void close_fds(struct xs_stack *s) {
    if (s->event_fd >= 0) close(s->event_fd);
    if (s->hooks_fd >= 0) close(s->hooks_fd);
    s->event_fd = s->hooks_fd = -1;
}

void xs_stack_close(struct xs_stack *s) {
    if (xs_stack_forked(s)) return;
    xs_stack_stop_threads(s);
    for (uint32_t i = 0; i < s->nworkers; i++) {
        xs_worker_hold(s->worker[i]); /* a poll that began before is over */
        xs_worker_close(s->worker[i]);
        xs_worker_unhold(s->worker[i]);
    }
    close_fds(s);
}

void xs_stack_destroy(struct xs_stack *s) {
    if (xs_stack_forked(s)) return; /* the child has neither the memory nor a right to the rings */
    xs_stack_stop_threads(s);
    for (uint32_t i = 0; i < s->nworkers; i++)
        for (uint32_t d = 0; s->worker[i] && d < XS_DEVICES_MAX; d++) xs_worker_detach(s->worker[i], d);
    for (uint32_t i = 0; i < s->nworkers; i++) {
        if (!s->worker[i]) continue;
        xs_worker_deinit(s->worker[i]);
        free(s->worker[i]);
    }
    const struct xs_config *config = atomic_load(&s->tables.config);
    if (config != &no_devices) free((void *)config);
    xs_fib_destroy((struct xs_fib *)atomic_load(&s->tables.fib));
    free((void *)atomic_load(&s->tables.frame_claims));
    free((void *)atomic_load(&s->tables.redirects));
    xs_stack_destroy_rps(s);
    xs_socket_table_destroy((struct xs_socket_table *)atomic_load(&s->tables.sockets));
    xs_neigh_table_destroy(atomic_load(&s->tables.neigh));
    close_fds(s);
    xs_stack_unmap(s);
    pthread_mutex_destroy(&s->ports_lock);
    free(s);
}

int xs_stack_forked(struct xs_stack *s) { return getpid() != s->pid; }

void *xs_stack_umem(struct xs_stack *s) { return s->mem.data; }
uint64_t xs_stack_umem_bytes(struct xs_stack *s) { return s->data_bytes; }
uint32_t xs_stack_frame_shift(struct xs_stack *s) { return s->mem.frame_shift; }
uint32_t xs_stack_frame_count(struct xs_stack *s) { return s->mem.nframes; }
void *xs_stack_pkts(struct xs_stack *s) { return s->mem.pkt; }
void *xs_stack_metas(struct xs_stack *s) { return s->mem.meta; }
struct xs_worker *xs_stack_worker(struct xs_stack *s, uint32_t i) {
    return i < s->nworkers ? s->worker[i] : NULL;
}

void xs_stack_set_now(struct xs_stack *s, uint64_t now_ns) { atomic_store(&s->manual_now_ns, now_ns); }
uint64_t xs_stack_clock(struct xs_stack *s) { return xs_stack_now_ns(s); }

uint64_t xs_stack_now_ns(const struct xs_stack *s) {
    if (s->manual_clock) return atomic_load_explicit(&s->manual_now_ns, memory_order_relaxed);
    return xs_monotonic_ns();
}

void xs_stack_synchronize(struct xs_stack *s) {
    for (uint32_t i = 0; i < s->nworkers; i++) xs_epoch_wait(&s->worker[i]->epoch);
}

void xs_stack_flush(struct xs_stack *s) {
    for (uint32_t i = 0; i < s->nworkers; i++) {
        xs_worker_hold(s->worker[i]);
        xs_inbox_flush(&s->worker[i]->inbox);
        xs_worker_unhold(s->worker[i]);
    }
}

int xs_stack_set_devices(struct xs_stack *s, const struct xs_device_values *v, uint32_t n) {
    if (n > XS_DEVICES_MAX) return -EINVAL;
    struct xs_config *config = calloc(1, sizeof *config);
    if (!config) return -ENOMEM;
    config->ndevices = n;
    for (uint32_t i = 0; i < n; i++) {
        struct xs_device_config *d = &config->device[i];
        d->ifindex = v[i].ifindex;
        d->mtu = v[i].mtu;
        d->flags = v[i].flags;
        d->rp_filter = v[i].rp_filter;
        d->nqueues = v[i].nqueues;
        memcpy(d->mac, v[i].mac, 6);
        d->ttl = v[i].ttl;
        d->hop_limit = v[i].hop_limit;
    }
    const struct xs_config *old = atomic_exchange(&s->tables.config, config);
    xs_stack_synchronize(s);
    if (old != &no_devices) free((void *)old);
    return 0;
}

void xs_stack_frames(struct xs_stack *s, uint64_t *out) {
    for (uint32_t i = 0; i < 8; i++) out[i] = 0;
    for (uint32_t f = 0; f < s->mem.nframes; f++) out[s->mem.pkt[f].owner & 7]++;
}
