/* AF_XDP sockets of the real kernel. Order of the calls, and what each may refuse: Documentation/networking/af_xdp.rst,
 * net/xdp/xsk.c. Who retries, falls back or explains is xdpstack/device/umem.py: nothing here is tried twice. */
#include "xsk/xsk.h"

#include <errno.h>
#include <poll.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SOL_XDP
#define SOL_XDP 283
#endif
#ifndef AF_XDP
#define AF_XDP 44
#endif

/* Bytes the kernel leaves before each received frame: uapi/linux/bpf.h has no newer value, drivers rely on it. */
#define XDP_PACKET_HEADROOM 256u

/* ---- what needs a system call while packets flow ---- */

static int kick_tx(struct xs_xsk *x) {
    if (sendto(x->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0) return -errno;
    if (!x->busy_poll || !x->zero_copy || atomic_load(x->tx.consumer) == x->tx.prod) return 0;
    /* Of a socket that prefers busy polling sendto(2) polls the NAPI that receives, and wakes nobody (xsk_no_wakeup()). Drivers
     * that send in another one, as virtio_net, would never send: those poll(2) wakes. */
    struct pollfd tx = {.fd = x->fd, .events = POLLOUT};
    return poll(&tx, 1, 0) < 0 ? -errno : 0;
}

static int kick_rx(struct xs_xsk *x) {
    return recvfrom(x->fd, NULL, 0, MSG_DONTWAIT, NULL, NULL) < 0 ? -errno : 0;
}

static int stats(struct xs_xsk *x, struct xs_xsk_stats *out) {
    struct xdp_statistics s = {0}; /* an old kernel knows the first three only */
    socklen_t bytes = sizeof s;
    if (getsockopt(x->fd, SOL_XDP, XDP_STATISTICS, &s, &bytes)) return -errno;
    *out = (struct xs_xsk_stats){
        .rx_dropped = s.rx_dropped,
        .rx_invalid_descs = s.rx_invalid_descs,
        .tx_invalid_descs = s.tx_invalid_descs,
        .rx_ring_full = s.rx_ring_full,
        .rx_fill_ring_empty_descs = s.rx_fill_ring_empty_descs,
        .tx_ring_empty_descs = s.tx_ring_empty_descs,
    };
    return 0;
}

/* Every mapping goes before the descriptor: a mapping keeps the socket alive, and a socket that lives has its queue. */
static void close_socket(struct xs_xsk *x) {
    if (x->fd < 0) return;
    stats(x, &x->last_stats);
    for (int i = 0; i < 4; i++)
        if (x->map[i].addr) munmap(x->map[i].addr, x->map[i].bytes);
    memset(x->map, 0, sizeof x->map);
    close(x->fd);
    x->fd = -1;
}

static const struct xs_xsk_ops kernel_ops = {
    .kick_tx = kick_tx, .kick_rx = kick_rx, .stats = stats, .close = close_socket};

int xs_xsk_watch(struct xs_xsk *x) {
    struct epoll_event e = {.events = EPOLLIN, .data.fd = x->fd};
    x->unwatched = x->fd >= 0 && epoll_ctl(x->epoll_fd, EPOLL_CTL_ADD, x->fd, &e) < 0;
    return x->unwatched ? -errno : 0;
}

void xs_xsk_unwatch(struct xs_xsk *x) {
    if (x->fd >= 0) epoll_ctl(x->epoll_fd, EPOLL_CTL_DEL, x->fd, NULL);
    x->unwatched = 1;
}

/* ---- opening ---- */

static int set(int fd, int option, const void *value, socklen_t bytes) {
    return setsockopt(fd, SOL_XDP, option, value, bytes) ? -errno : 0;
}

static int register_memory(int fd, const struct xs_xsk_options *o) {
    struct xs_uapi_xdp_umem_reg r = {
        .addr = (uint64_t)(uintptr_t)o->memory, .len = o->memory_bytes, .chunk_size = o->frame_bytes};
    if (o->tx_metadata) {
        r.flags = XS_UAPI_XDP_UMEM_TX_METADATA_LEN;
        if (o->bind_flags & XDP_COPY)
            r.flags |= XS_UAPI_XDP_UMEM_TX_SW_CSUM; /* by the kernel, for any device */
        r.tx_metadata_len = sizeof(struct xs_uapi_xsk_tx_metadata);
    }
    return set(fd, XDP_UMEM_REG, &r, sizeof r);
}

/* One ring of `slots` entries of `slot_bytes`, made by `option` and mapped at `page_offset`. */
static int map_ring(struct xs_xsk *x, int which, uint32_t slots, size_t slot_bytes, off_t page_offset,
                    const struct xdp_ring_offset *at, struct xs_ring *r) {
    size_t bytes = at->desc + slots * slot_bytes;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, x->fd, page_offset);
    if (p == MAP_FAILED) return -errno;
    madvise(p, bytes, MADV_DONTFORK); /* two processes on one ring would corrupt it */
    x->map[which].addr = p;
    x->map[which].bytes = bytes;
    r->producer = (_Atomic(uint32_t) *)((char *)p + at->producer);
    r->consumer = (_Atomic(uint32_t) *)((char *)p + at->consumer);
    r->flags = (_Atomic(uint32_t) *)((char *)p + at->flags);
    r->slots = (char *)p + at->desc;
    r->size = slots;
    r->mask = slots - 1;
    r->prod = atomic_load_explicit(r->producer, memory_order_acquire);
    r->cons = atomic_load_explicit(r->consumer, memory_order_acquire);
    return 0;
}

static int make_rings(struct xs_xsk *x, const struct xs_xsk_options *o) {
    const struct {
        int option;
        uint32_t slots;
        size_t slot_bytes;
        off_t page_offset;
        struct xs_ring *ring;
    } rings[4] = {
        {XDP_RX_RING, o->rx_slots, sizeof(struct xdp_desc), XDP_PGOFF_RX_RING, &x->rx},
        {XDP_TX_RING, o->tx_slots, sizeof(struct xdp_desc), XDP_PGOFF_TX_RING, &x->tx},
        {XDP_UMEM_FILL_RING, o->fill_slots, sizeof(uint64_t), (off_t)XDP_UMEM_PGOFF_FILL_RING, &x->fill},
        {XDP_UMEM_COMPLETION_RING, o->completion_slots, sizeof(uint64_t),
         (off_t)XDP_UMEM_PGOFF_COMPLETION_RING, &x->comp},
    };
    int rc;
    for (int i = 0; i < 4; i++)
        if ((rc = set(x->fd, rings[i].option, &rings[i].slots, sizeof rings[i].slots))) return rc;
    struct xdp_mmap_offsets offsets;
    socklen_t bytes = sizeof offsets;
    if (getsockopt(x->fd, SOL_XDP, XDP_MMAP_OFFSETS, &offsets, &bytes)) return -errno;
    const struct xdp_ring_offset *at[4] = {&offsets.rx, &offsets.tx, &offsets.fr, &offsets.cr};
    for (int i = 0; i < 4; i++)
        if ((rc = map_ring(x, i, rings[i].slots, rings[i].slot_bytes, rings[i].page_offset, at[i],
                           rings[i].ring)))
            return rc;
    return 0;
}

/* In copy mode one system call sends at most 32 packets, and no more than the socket's send buffer has room for. Both are
 * raised as far as this kernel and our privileges allow; what is left takes more calls. After the TX ring is made, whose slots
 * are the most that the kernel allows. */
static void raise_tx_limits(struct xs_xsk *x, const struct xs_xsk_options *o) {
    int bytes = (int)((o->tx_slots < 1u << 18 ? o->tx_slots : 1u << 18) * 4096u);
    x->tx_budget = XS_UAPI_TX_BATCH_SIZE;
    if (o->tx_budget && o->tx_budget != x->tx_budget) {
        int rc = set(x->fd, XS_UAPI_XDP_MAX_TX_SKB_BUDGET, &o->tx_budget, sizeof o->tx_budget);
        if (!rc) x->tx_budget = o->tx_budget;
        x->tx_budget_error = (uint8_t)-rc;
    }
    if (setsockopt(x->fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes))
        setsockopt(x->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
}

static int set_socket(int fd, int option, int value) {
    return setsockopt(fd, SOL_SOCKET, option, &value, sizeof value) ? errno : 0;
}

/* Which NAPI the socket's packets come from; 0 = the kernel does not know. */
static int napi_id(int fd) {
    int id = 0;
    socklen_t bytes = sizeof id;
    return getsockopt(fd, SOL_SOCKET, XS_UAPI_SO_INCOMING_NAPI_ID, &id, &bytes) ? 0 : id;
}

/* All of it or nothing; of a socket that is bound. Documentation/networking/napi.rst, Busy polling. */
static void ask_for_busy_polling(struct xs_xsk *x, const struct xs_xsk_options *o) {
    if (!o->busy_poll_us) return;
    int error = set_socket(x->fd, XS_UAPI_SO_PREFER_BUSY_POLL, (int)o->prefer_busy_poll);
    if (!error) error = set_socket(x->fd, XS_UAPI_SO_BUSY_POLL_BUDGET, (int)o->busy_poll_budget);
    if (!error) error = set_socket(x->fd, XS_UAPI_SO_BUSY_POLL, (int)o->busy_poll_us);
    if (!error && !o->napi_is_learnt && !napi_id(x->fd)) error = ENODEV;
    if (error) {
        set_socket(x->fd, XS_UAPI_SO_BUSY_POLL, 0);
        set_socket(x->fd, XS_UAPI_SO_PREFER_BUSY_POLL, 0);
    }
    x->busy_poll_error = (uint8_t)error;
    x->busy_poll = !error;
    x->always_kick |= !error;
}

static int bind_queue(struct xs_xsk *x, const struct xs_xsk_options *o) {
    bool shared = o->share >= 0;
    struct sockaddr_xdp a = {
        .sxdp_family = AF_XDP,
        .sxdp_flags = (uint16_t)(shared ? XDP_SHARED_UMEM : o->bind_flags),
        .sxdp_ifindex = o->ifindex,
        .sxdp_queue_id = o->queue,
        .sxdp_shared_umem_fd = shared ? (uint32_t)o->share : 0,
    };
    if (bind(x->fd, (struct sockaddr *)&a, sizeof a)) return -errno;
    struct xdp_options granted = {0};
    socklen_t bytes = sizeof granted;
    if (getsockopt(x->fd, SOL_XDP, XDP_OPTIONS, &granted, &bytes)) return -errno;
    x->zero_copy = granted.flags & XDP_OPTIONS_ZEROCOPY ? 1 : 0;
    x->multi = o->bind_flags & XS_UAPI_XDP_USE_SG ? 1 : 0;
    x->frags_max = xs_xsk_frags_max(x, o->zc_max_segs);
    return 0;
}

int xs_xsk_open(const struct xs_xsk_options *o, uint32_t *step, struct xs_xsk **out) {
    *step = XS_XSK_SOCKET;
    struct xs_xsk *x = aligned_alloc(64, (sizeof *x + 63) & ~(size_t)63);
    if (!x) {
        if (o->made > 0) close(o->made);
        return -ENOMEM;
    }
    *x = (struct xs_xsk){.ops = &kernel_ops, .queue = (uint8_t)o->queue, .headroom = XDP_PACKET_HEADROOM};
    x->rx_head = x->rx_tail = UINT32_MAX;
    x->tx_metadata = o->tx_metadata != 0;
    x->always_kick = !(o->bind_flags & XDP_USE_NEED_WAKEUP);
    x->fill_target = o->fill_target && o->fill_target < o->fill_slots ? o->fill_target : o->fill_slots;
    int rc = 0;
    x->fd = o->made > 0 ? o->made : socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (x->fd < 0) rc = -errno;
    if (!rc && o->share < 0) {
        *step = XS_XSK_MEMORY;
        rc = register_memory(x->fd, o);
    }
    if (!rc) {
        *step = XS_XSK_RINGS;
        rc = make_rings(x, o);
    }
    if (!rc) {
        raise_tx_limits(x, o);
        *step = XS_XSK_BIND;
        rc = bind_queue(x, o);
    }
    if (rc) {
        xs_xsk_free(x);
        return rc;
    }
    ask_for_busy_polling(x, o);
    *step = XS_XSK_DONE;
    *out = x;
    return 0;
}

void xs_xsk_set_tx_offloads(struct xs_xsk *x, uint32_t offloads) { x->tx_offloads = (uint8_t)offloads; }

void xs_xsk_set_hints(struct xs_xsk *x, uint32_t options) { x->hints = (uint8_t)options; }

void xs_xsk_close(struct xs_xsk *x) { x->ops->close(x); }

void xs_xsk_free(struct xs_xsk *x) {
    x->ops->close(x);
    free(x);
}

/* ---- reading ---- */

int xs_xsk_read_stats(struct xs_xsk *x, struct xs_xsk_stats *out) {
    if (x->fd >= 0 || x->kernel) return x->ops->stats(x, out);
    *out = x->last_stats;
    return 0;
}

int xs_xsk_fd(struct xs_xsk *x) { return x->fd; }

void xs_xsk_read(struct xs_xsk *x, struct xs_xsk_values *out) {
    bool open = x->fd >= 0 || x->kernel; /* else the rings are not mapped any more */
    *out = (struct xs_xsk_values){
        .fd = x->fd,
        .queue = x->queue,
        .device = x->device,
        .zero_copy = x->zero_copy,
        .multi = x->multi,
        .frags_max = x->frags_max,
        .always_kick = x->always_kick,
        .tx_budget = x->tx_budget,
        .tx_budget_error = x->tx_budget_error,
        .busy_poll = x->busy_poll,
        .busy_poll_error = x->busy_poll_error,
        .dead = x->dead,
        .error = x->error,
        .filled = x->filled,
        .transmitting = x->transmitting,
        .unkicked = x->unkicked,
        .kicks = x->kicks,
        .kicks_spared = x->kicks_spared,
        .kick_errors = x->kick_errors,
        .rx_wakeups = x->rx_wakeups,
        .busy_polls = x->busy_polls,
        .rx_bad_descs = x->rx_bad_descs,
        .bad_completions = x->bad_completions,
        .completed = x->comp.cons,
        .reported = open ? atomic_load_explicit(x->comp.producer, memory_order_relaxed) : x->comp.cons,
    };
}
