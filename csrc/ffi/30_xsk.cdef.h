/* AF_XDP sockets: opening, reading and closing them. Read by cffi and by C; plain declarations only.
 * Functions return 0 or a count, or a negative errno; out-parameters come last and are untouched on failure. */

struct xs_xsk;

#define XS_PORTS_MAX 64 /* queues, of all devices, that one worker polls: xs_worker_attach() */

/* What xs_xsk_open() was doing when it failed: which system call the errno is of. */
enum xs_xsk_step {
    XS_XSK_SOCKET, /* socket(AF_XDP) */
    XS_XSK_MEMORY, /* XDP_UMEM_REG: the memory is pinned */
    XS_XSK_RINGS,  /* making and mapping the four rings */
    XS_XSK_BIND,   /* bind to the queue */
    XS_XSK_DONE,
};

struct xs_xsk_options {
    /* Frames; page aligned. Stays the caller's, who keeps it mapped until the socket is closed. */
    void *memory;
    uint64_t memory_bytes;
    uint32_t frame_bytes;
    uint32_t ifindex; /* in the network namespace of the calling thread */
    uint32_t queue;
    uint32_t rx_slots; /* ring sizes are powers of two */
    uint32_t tx_slots;
    uint32_t fill_slots;
    uint32_t completion_slots;
    uint32_t fill_target; /* frames to keep with the kernel; 0 = fill_slots */
    uint32_t bind_flags;  /* XDP_COPY, XDP_ZEROCOPY, XDP_USE_NEED_WAKEUP, XDP_USE_SG */
    /* A socket whose registered memory, and with it mode and flags, this one shares: bind_flags are to be what that one
     * was bound with. -1: registers `memory` anew. */
    int32_t share;
    uint32_t
        tx_metadata; /* 1: frames to send may have metadata before them (Linux 6.11); also of one that shares */
    uint32_t
        zc_max_segs; /* frames of a packet that the driver sends in zero-copy mode; 0 = it does not say */
    int32_t made; /* an AF_XDP socket that somebody else has made, taken over in any case; 0: one is made */
    /* What follows is granted or not, and no reason to fail: xs_xsk_read() says. */
    uint32_t
        tx_budget; /* packets that one system call may send in copy mode, 32 to tx_slots; 0 = the kernel's 32 */
    /* Busy polling: how long one may last (us; 0 = none), how many packets it may take, and whether the NIC's interrupts are
     * to be held back for it. SO_BUSY_POLL, SO_BUSY_POLL_BUDGET, SO_PREFER_BUSY_POLL. */
    uint32_t busy_poll_us;
    uint32_t busy_poll_budget;
    uint32_t prefer_busy_poll;
    /* Before Linux 6.14 a socket learns from its first packet which NAPI there is to poll. Since then bind(2) says it or nobody. */
    uint32_t napi_is_learnt;
};

/* `step` is written in any case. */
int xs_xsk_open(const struct xs_xsk_options *options, uint32_t *step, struct xs_xsk **out);
/* Before it is attached: what the device does with a frame to send, if it is asked by the metadata before it. */
#define XS_TX_CHECKSUM 1
#define XS_TX_TIMESTAMP 2
void xs_xsk_set_tx_offloads(struct xs_xsk *xsk, uint32_t offloads);
/* Before it is attached: what its program puts before each frame beside struct xs_xdp_metadata, XS_XDP_OPTION_*. */
void xs_xsk_set_hints(struct xs_xsk *xsk, uint32_t options);
/* Unmaps the rings, then closes the descriptor; idempotent. Detaching from a worker does it too. */
void xs_xsk_close(struct xs_xsk *xsk);
/* Closes and frees. It must not be attached to a worker. */
void xs_xsk_free(struct xs_xsk *xsk);

/* The six counters of XDP_STATISTICS. */
struct xs_xsk_stats {
    uint64_t rx_dropped;
    uint64_t rx_invalid_descs;
    uint64_t tx_invalid_descs;
    uint64_t rx_ring_full;
    uint64_t rx_fill_ring_empty_descs;
    uint64_t tx_ring_empty_descs;
};
/* The kernel's; of a closed socket what it counted last. */
int xs_xsk_read_stats(struct xs_xsk *xsk, struct xs_xsk_stats *out);

/* State and counters of our side. Counters of a running worker may be a poll behind. */
struct xs_xsk_values {
    int32_t fd; /* -1: closed, or a memory device */
    uint32_t queue;
    uint32_t device;    /* the stack's device index */
    uint32_t zero_copy; /* granted */
    uint32_t multi;     /* takes packets of several frames */
    uint32_t frags_max; /* frames of a packet that it sends, at most */
    uint32_t
        always_kick;    /* told of every batch: it was bound without XDP_USE_NEED_WAKEUP, or is busy polled */
    uint32_t tx_budget; /* packets that one system call sends at most, in copy mode */
    uint32_t tx_budget_error; /* errno with which another budget was refused, 0 = none */
    uint32_t busy_poll;       /* granted */
    uint32_t
        busy_poll_error;   /* errno with which it was refused, 0 = none; ENODEV: there is no NAPI to poll */
    uint32_t dead;         /* not polled any more */
    uint32_t error;        /* errno of the fault, 0 = none */
    uint32_t filled;       /* frames with the kernel to receive into, or received and not read */
    uint32_t transmitting; /* frames with the kernel to send, or sent and not taken back */
    uint32_t unkicked;     /* of those, the kernel was not told yet */
    uint64_t kicks;        /* system calls that told the kernel to send */
    uint64_t kicks_spared; /* batches for which it needed none */
    uint64_t kick_errors;  /* kicks that failed otherwise than by "later" */
    uint64_t rx_wakeups;   /* system calls that told the kernel of new empty frames */
    uint64_t busy_polls;   /* system calls that had the driver polled */
    uint64_t rx_bad_descs; /* descriptors outside the memory: never from a sound kernel */
    uint64_t bad_completions; /* of frames that the kernel did not have: never from a sound kernel */
    uint32_t completed;       /* completions taken back so far, modulo 2^32 */
    uint32_t reported; /* and those that the kernel has put onto the ring; of a closed socket the former */
};
void xs_xsk_read(struct xs_xsk *xsk, struct xs_xsk_values *out);
/* The descriptor, -1 once closed. Looks at no ring, which a forked child does not have. */
int xs_xsk_fd(struct xs_xsk *xsk);
