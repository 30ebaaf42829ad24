/* One AF_XDP socket: the four rings of one queue of one device, and what is known of the kernel on their other side.
 *
 *   us                                   kernel (or the fake one of csrc/fake/)
 *   fill        -- empty frames ------>  takes them for what it receives
 *   rx          <-- received frames ---
 *   tx          -- frames to send ---->
 *   completion  <-- sent frames -------
 *
 * `ops` is what needs a system call. The real kernel's are in csrc/xsk/socket.c, the fake kernel's in csrc/fake/; all else,
 * rings included, is the same code for both.
 *
 * Who may touch it: the thread that drives the worker it is attached to. Exceptions: control reads counters, which may be
 * a poll behind; the watchdog reads the shared indices of the RX ring under the stack's ports_lock (csrc/stack.h), under
 * which a worker attaches and detaches.
 */
#ifndef XS_XSK_XSK_H
#define XS_XSK_XSK_H

#include "base/ring.h"
#include "base/uapi.h"
#include "ffi/30_xsk.cdef.h"

#define XS_FRAGS_MAX 18u /* frames of a packet: MAX_SKB_FRAGS + 1 */

struct xs_xsk_ops {
    /* Both return 0 or a negative errno. -EAGAIN, -EBUSY, -ENOBUFS: later. -ENETDOWN: the device is down, or resets.
     * -ENXIO, -ENODEV: the queue is not ours any more. */
    int (*kick_tx)(struct xs_xsk *x);
    int (*kick_rx)(struct xs_xsk *x);
    int (*stats)(struct xs_xsk *x, struct xs_xsk_stats *out);
    void (*close)(struct xs_xsk *x); /* unmaps the rings, closes the descriptor */
};

struct xs_xsk {
    struct xs_ring rx, tx, fill, comp;
    const struct xs_xsk_ops *ops;
    int fd;         /* -1: closed, or a memory device */
    int epoll_fd;   /* what its worker sleeps on: tells of received frames */
    void *kernel;   /* the fake kernel's side, for a memory device */
    uint8_t device; /* the stack's device index */
    uint8_t queue;
    uint8_t zero_copy; /* granted */
    uint8_t multi;     /* bound with XDP_USE_SG: packets of several frames come, and may be sent */
    uint8_t frags_max; /* frames of a packet to send: 1 without `multi`; in zero-copy what the driver takes */
    uint8_t
        always_kick;   /* need_wakeup does not say when: bound without it, or nobody else polls the driver */
    uint8_t busy_poll; /* granted: whoever polls an empty RX ring has the driver polled, by a system call */
    uint8_t dead;      /* the device is gone or the queue was taken away: not polled any more */
    uint8_t error;     /* errno of the last fault, 0 = none. ENETDOWN without `dead` may pass */
    uint8_t unwatched; /* it is not in epoll_fd: not for the moment, or there was no memory to put it back */
    uint8_t hints; /* XS_XDP_OPTION_*: what its program puts before frames, struct xs_xdp_hints; 0 = none */
    uint8_t tx_metadata; /* frames to send may have struct xs_uapi_xsk_tx_metadata before them */
    uint8_t tx_offloads; /* XS_TX_*: what of it the device does */
    uint32_t headroom;   /* bytes the kernel leaves before a received frame, ours included */
    uint32_t
        fill_target; /* frames that the fill and RX ring should have between them; 0 = as many as fill has slots */
    uint32_t filled; /* frames in fill and RX ring, or with the kernel for them */
    uint32_t transmitting;
    uint32_t unkicked;         /* TX descriptors submitted since the kernel was last told */
    uint64_t kicked_ns;        /* when the kernel was last told */
    uint32_t rx_head, rx_tail; /* packet whose frames are still arriving (multi-buffer), or XS_NO_FRAME */
    /* counters */
    uint64_t kicks, kicks_spared, rx_wakeups, kick_errors, rx_bad_descs, bad_completions, busy_polls;
    /* asked of the kernel when it was opened, and with which errno refused */
    uint32_t tx_budget;
    uint8_t tx_budget_error, busy_poll_error;
    struct xs_xsk_stats last_stats; /* of a closed socket */
    struct {
        void *addr;
        size_t bytes;
    } map[4]; /* the rings' mappings: rx, tx, fill, completion */
};

/* Puts the socket into epoll_fd, where it is looked at at once. Returns 0, or -errno and it is `unwatched`. */
int xs_xsk_watch(struct xs_xsk *x);
void xs_xsk_unwatch(struct xs_xsk *x);

/* How many frames a packet to send may have. Of a longer one in zero-copy the kernel takes the descriptors off the ring and sends
 * none of them, and gives none of their frames back: xskq_cons_read_desc_batch(). What a driver takes that does not say is
 * one: the kernel's own default. */
static inline uint8_t xs_xsk_frags_max(const struct xs_xsk *x, uint32_t zc_max_segs) {
    if (!x->multi || (x->zero_copy && !zc_max_segs)) return 1;
    return x->zero_copy && zc_max_segs < XS_FRAGS_MAX ? (uint8_t)zc_max_segs : XS_FRAGS_MAX;
}

#endif
