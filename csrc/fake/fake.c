/* The fake kernel: making it, its operations, and what tests ask of it. See fake.h. */
#include "fake/fake.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* What the mapping of one ring holds. */
struct fake_ring {
    alignas(64) _Atomic(uint32_t) producer;
    alignas(64) _Atomic(uint32_t) consumer;
    alignas(64) _Atomic(uint32_t) flags;
    alignas(64) uint8_t slots[];
};

static void *make_ring(uint32_t size, size_t slot_bytes, uint32_t first, struct xs_ring *user,
                       struct xs_ring *kernel) {
    struct fake_ring *shared = aligned_alloc(64, (sizeof *shared + size * slot_bytes + 63) & ~(size_t)63);
    if (!shared) return NULL;
    memset(shared, 0, sizeof *shared + size * slot_bytes);
    atomic_init(&shared->producer, first);
    atomic_init(&shared->consumer, first);
    *user = *kernel = (struct xs_ring){
        .prod = first,
        .cons = first,
        .mask = size - 1,
        .size = size,
        .producer = &shared->producer,
        .consumer = &shared->consumer,
        .flags = &shared->flags,
        .slots = shared->slots,
    };
    return shared;
}

static struct xs_fake *lock(struct xs_xsk *x) {
    struct xs_fake *f = x->kernel;
    pthread_mutex_lock(&f->lock);
    return f;
}

/* Level-triggered readiness, as POLLIN of an AF_XDP socket: readable while the RX ring has something. */
static void update_readiness(struct xs_fake *f) {
    uint64_t value = 1;
    bool waiting = atomic_load(f->rx.consumer) != f->rx.prod;
    ssize_t done = waiting ? write(f->xsk->fd, &value, sizeof value) : read(f->xsk->fd, &value, sizeof value);
    (void)done; /* EAGAIN: it is as wanted already */
}

static void unlock(struct xs_fake *f) {
    if (!f->closed) update_readiness(f);
    pthread_mutex_unlock(&f->lock);
}

static void service(struct xs_fake *f) {
    if (f->closed || f->faults.gone) return;
    if (!f->faults.need_wakeup && !f->faults.down) xs_fake_transmit(f, UINT32_MAX);
    xs_fake_complete(f);
}

/* ---- the operations: what needs a system call ---- */

/* xsk_sendmsg() */
static int kick_tx(struct xs_xsk *x) {
    struct xs_fake *f = lock(x);
    f->values.kicks++;
    int rc = 0;
    if (f->closed || f->faults.gone) {
        rc = -ENXIO;
    } else if (f->faults.down) {
        rc = -ENETDOWN;
    } else if (f->faults.kick_errno) {
        rc = -(int)f->faults.kick_errno;
    } else if (f->faults.kick_again) {
        f->faults.kick_again--;
        rc = -EAGAIN;
    } else {
        rc = xs_fake_transmit(f, f->faults.kick_budget ? f->faults.kick_budget : UINT32_MAX);
    }
    xs_fake_complete(f);
    unlock(f);
    return rc;
}

static int kick_rx(struct xs_xsk *x) {
    struct xs_fake *f = lock(x);
    int rc = f->closed || f->faults.gone ? -ENXIO : f->faults.down ? -ENETDOWN : 0;
    if (!rc) xs_fake_wake_rx(f);
    unlock(f);
    return rc;
}

static int statistics(struct xs_xsk *x, struct xs_xsk_stats *out) {
    struct xs_fake *f = lock(x);
    *out = f->stats;
    unlock(f);
    return 0;
}

/* Frees neither the rings nor what was sent: a test may look at a device after its stack is closed. */
static void close_socket(struct xs_xsk *x) {
    struct xs_fake *f = lock(x);
    if (!f->closed) close(x->fd);
    x->fd = -1;
    f->closed = true;
    unlock(f);
}

static const struct xs_xsk_ops fake_ops = {
    .kick_tx = kick_tx, .kick_rx = kick_rx, .stats = statistics, .close = close_socket};

/* ---- making it ---- */

static bool power_of_two(uint32_t n) { return n && !(n & (n - 1)); }

/* need_wakeup is the kernel's word in the TX ring's flags (xsk_set_tx_need_wakeup). */
static void publish_need_wakeup(struct xs_fake *f) {
    if (f->faults.need_wakeup)
        atomic_fetch_or(f->tx.flags, XDP_RING_NEED_WAKEUP);
    else
        atomic_fetch_and(f->tx.flags, ~(uint32_t)XDP_RING_NEED_WAKEUP);
}

static int make(struct xs_stack *stack, const struct xs_fake_options *o, struct xs_xsk *x,
                struct xs_fake *f) {
    x->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (x->fd < 0) return -errno;
    f->pending = calloc(o->comp_size, sizeof *f->pending);
    x->map[0].addr = make_ring(o->rx_size, sizeof(struct xdp_desc), o->first_index, &x->rx, &f->rx);
    x->map[1].addr = make_ring(o->tx_size, sizeof(struct xdp_desc), o->first_index, &x->tx, &f->tx);
    x->map[2].addr = make_ring(o->fill_size, sizeof(uint64_t), o->first_index, &x->fill, &f->fill);
    x->map[3].addr = make_ring(o->comp_size, sizeof(uint64_t), o->first_index, &x->comp, &f->comp);
    if (!f->pending || !x->map[0].addr || !x->map[1].addr || !x->map[2].addr || !x->map[3].addr)
        return -ENOMEM;
    pthread_mutex_init(&f->lock, NULL);
    x->ops = &fake_ops;
    x->kernel = f;
    x->queue = (uint8_t)o->queue;
    x->zero_copy = o->zero_copy;
    x->multi = o->multi;
    x->frags_max = xs_xsk_frags_max(x, o->zc_max_segs);
    f->zc_max_segs = x->zero_copy ? o->zc_max_segs : 0;
    x->headroom = XS_FAKE_HEADROOM + o->headroom;
    x->fill_target = o->fill_target;
    x->rx_head = x->rx_tail = XS_NO_FRAME;
    f->xsk = x;
    f->stack = stack;
    f->chunk_bytes = 1u << stack->mem.frame_shift;
    f->frame_bytes = f->chunk_bytes - x->headroom;
    f->memory_bytes = (uint64_t)stack->mem.nframes << stack->mem.frame_shift;
    f->faults =
        (struct xs_fake_faults){.kick_budget = 32, .need_wakeup = 1}; /* TX_BATCH_SIZE; XDP_USE_NEED_WAKEUP */
    publish_need_wakeup(f);
    return 0;
}

int xs_fake_create(struct xs_stack *stack, const struct xs_fake_options *o, struct xs_xsk **out) {
    if (!power_of_two(o->rx_size) || !power_of_two(o->tx_size) || !power_of_two(o->fill_size) ||
        !power_of_two(o->comp_size) || o->queue > UINT8_MAX ||
        o->headroom >= (1u << stack->mem.frame_shift) - XS_FAKE_HEADROOM)
        return -EINVAL;
    struct xs_xsk *x = calloc(1, sizeof *x);
    struct xs_fake *f = calloc(1, sizeof *f);
    int rc = x && f ? make(stack, o, x, f) : -ENOMEM;
    if (!rc) {
        *out = x;
        return 0;
    }
    for (int i = 0; x && i < 4; i++) free(x->map[i].addr);
    if (x && x->fd > 0) close(x->fd);
    if (f) free(f->pending);
    free(f);
    free(x);
    return rc;
}

void xs_fake_destroy(struct xs_xsk *x) {
    struct xs_fake *f = x->kernel;
    close_socket(x);
    pthread_mutex_destroy(&f->lock);
    for (int i = 0; i < 4; i++) free(x->map[i].addr);
    free(f->pending);
    free(f->sent.at);
    free(f);
    free(x);
}

/* ---- what tests ask ---- */

void xs_fake_set_faults(struct xs_xsk *x, const struct xs_fake_faults *faults) {
    struct xs_fake *f = lock(x);
    f->faults = *faults;
    if (!faults->rx_need_wakeup) xs_fake_wake_rx(f);
    publish_need_wakeup(f);
    unlock(f);
}

void xs_fake_get_faults(struct xs_xsk *x, struct xs_fake_faults *out) {
    struct xs_fake *f = lock(x);
    *out = f->faults;
    unlock(f);
}

int xs_fake_inject(struct xs_xsk *x, const uint8_t *bytes, uint32_t length, uint32_t flags) {
    struct xs_fake *f = lock(x);
    int rc = xs_fake_receive(f, bytes, length, flags);
    unlock(f);
    return rc;
}

int xs_fake_inject_many(struct xs_xsk *x, const uint8_t *bytes, const uint32_t *lengths, uint32_t n,
                        uint32_t flags) {
    struct xs_fake *f = lock(x);
    int arrived = 0;
    for (uint32_t i = 0; i < n; bytes += lengths[i++])
        arrived += xs_fake_receive(f, bytes, lengths[i], flags) == 0;
    unlock(f);
    return arrived;
}

void xs_fake_set_claim(struct xs_xsk *x, uint32_t claim_id) {
    struct xs_fake *f = lock(x);
    f->claim_id = claim_id;
    unlock(f);
}

void xs_fake_set_hints(struct xs_xsk *x, const struct xs_xdp_hints *hints) {
    struct xs_fake *f = lock(x);
    f->hints = *hints;
    unlock(f);
}

void xs_fake_service(struct xs_xsk *x) {
    struct xs_fake *f = lock(x);
    service(f);
    unlock(f);
}

/* Records up to a packet whose end was not read yet. */
static size_t whole_records(const struct xs_fake *f) { return f->open_pending ? f->open_at : f->sent.n; }

uint64_t xs_fake_sent_bytes(struct xs_xsk *x) {
    struct xs_fake *f = lock(x);
    uint64_t n = whole_records(f);
    unlock(f);
    return n;
}

uint64_t xs_fake_take_sent(struct xs_xsk *x, uint8_t *out, uint64_t cap) {
    struct xs_fake *f = lock(x);
    size_t end = whole_records(f), n = 0;
    for (uint32_t length; n < end; n += sizeof length + length) {
        memcpy(&length, f->sent.at + n, sizeof length);
        if (n + sizeof length + length > cap) break;
    }
    if (n) {
        memcpy(out, f->sent.at, n);
        memmove(f->sent.at, f->sent.at + n, f->sent.n - n);
        f->sent.n -= n;
        f->open_at -= f->open_pending ? n : 0;
    }
    unlock(f);
    return n;
}

void xs_fake_values(struct xs_xsk *x, struct xs_fake_values *out) {
    struct xs_fake *f = lock(x);
    *out = f->values;
    out->pending = f->npending;
    unlock(f);
}

void xs_fake_indices(struct xs_xsk *x, uint32_t *out) {
    const struct xs_ring *ring[] = {&x->rx, &x->tx, &x->fill, &x->comp};
    for (int i = 0; i < 4; i++) {
        out[2 * i] = atomic_load(ring[i]->producer);
        out[2 * i + 1] = atomic_load(ring[i]->consumer);
    }
}
