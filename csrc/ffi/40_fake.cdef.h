/* The memory device: an AF_XDP socket whose kernel is a fake one, in plain memory (csrc/fake/fake.h).
 * Functions return 0 or a count, or a negative errno; out-parameters come last and are untouched on failure. */

struct xs_fake_options {
    uint32_t rx_size; /* slots of each ring, powers of two */
    uint32_t tx_size;
    uint32_t fill_size;
    uint32_t comp_size;
    uint32_t fill_target; /* frames to keep with the kernel; 0 = fill_size */
    uint32_t first_index; /* where the indices of all four rings start: 0xfffffff0 makes them wrap soon */
    uint32_t queue;       /* number of the queue on its device */
    uint32_t headroom;    /* bytes asked for beyond the kernel's own 256 */
    uint8_t multi;        /* bound with XDP_USE_SG: frames larger than a chunk arrive in several */
    uint8_t zero_copy;    /* what is reported as granted; the fake copies either way */
    uint8_t
        zc_max_segs; /* in zero-copy: descriptors of a packet that the driver sends; 0 = it does not say */
};

/* What goes wrong. All zero, but for the first two: a sound kernel in copy mode. May be changed at any time. */
struct xs_fake_faults {
    uint32_t kick_budget;   /* descriptors sent by one kick, then -EAGAIN: 32 in copy mode; 0 = no limit */
    uint8_t need_wakeup;    /* TX: 1 = sends only when kicked; 0 = sends by itself, and says so in the ring */
    uint8_t gone;           /* the device was deleted: kicks return -ENXIO, nothing arrives or completes */
    uint8_t down;           /* the device is down: kicks return -ENETDOWN, nothing arrives */
    uint8_t fill_empty;     /* the kernel sees no frame in the fill ring */
    uint8_t rx_full;        /* the kernel sees no room in the RX ring */
    uint8_t rx_need_wakeup; /* a driver that found the fill ring empty sleeps until it is woken */
    uint8_t completions_reversed; /* those that are due together are reported last sent first */
    uint32_t kick_again;          /* so many kicks do nothing and return -EAGAIN */
    uint32_t kick_errno;          /* each kick does nothing and returns minus this */
    uint32_t completions_lost;    /* so many completions never come */
    uint64_t completion_delay_ns; /* by the stack's clock; UINT64_MAX = until it is changed */
    uint32_t rx_bad_addresses; /* so many received frames are announced at an address outside of the UMEM */
    uint32_t rx_bad_lengths;   /* so many are announced with the length `rx_bad_length` */
    uint32_t rx_bad_length;
    uint32_t completions_bad; /* so many completions name an address outside of the UMEM */
};

/* `frames` are those of the stack's UMEM. The socket outlives xs_worker_detach(), which only closes it, and the stack. */
int xs_fake_create(struct xs_stack *stack, const struct xs_fake_options *options, struct xs_xsk **out);
void xs_fake_destroy(struct xs_xsk *xsk);

void xs_fake_set_faults(struct xs_xsk *xsk, const struct xs_fake_faults *faults);
void xs_fake_get_faults(struct xs_xsk *xsk, struct xs_fake_faults *out);

/* A frame arrives at the device: `bytes` from the Ethernet header on, without FCS. What the kernel would return:
 *  -ENXIO      the device is gone, or the socket closed      -ENETDOWN  the device is down
 *  -ENOSPC     larger than a chunk, and not bound with XDP_USE_SG
 *  -ENOMEM     no frame in the fill ring                     -ENOBUFS   no room in the RX ring
 * all but the first two counted in the statistics as the kernel does. -EINVAL for 0 bytes. */
int xs_fake_inject(struct xs_xsk *xsk, const uint8_t *bytes, uint32_t length, uint32_t flags);
#define XS_FAKE_PARTIAL \
    1 /* as from a sender that leaves checksums to its NIC: only the pseudo-header's sum is there */
/* Several at once, one behind the other in `bytes`. Stops at none. Returns how many arrived. */
int xs_fake_inject_many(struct xs_xsk *xsk, const uint8_t *bytes, const uint32_t *lengths, uint32_t n,
                        uint32_t flags);

/* What arrives from now on was lifted by this claim; 0 = by a socket's, or any that nobody reads whole. */
void xs_fake_set_claim(struct xs_xsk *xsk, uint32_t claim_id);

/* What the device says of frames that arrive from now on. Whether it is read is said by xs_xsk_set_hints(). */
void xs_fake_set_hints(struct xs_xsk *xsk, const struct xs_xdp_hints *hints);

/* What the kernel does without being asked: sends if it needs no kick, reports completions that are due. */
void xs_fake_service(struct xs_xsk *xsk);

/* Frames sent and not yet taken: bytes of them all, each behind its length (uint32_t, host order). */
uint64_t xs_fake_sent_bytes(struct xs_xsk *xsk);
/* Takes them: copies as many whole records as fit into `cap` bytes. Returns the bytes written. */
uint64_t xs_fake_take_sent(struct xs_xsk *xsk, uint8_t *out, uint64_t cap);

struct xs_fake_values {
    uint64_t received;   /* packets put on the RX ring */
    uint64_t sent;       /* packets taken from the TX ring whole */
    uint64_t tx_dropped; /* packets taken from it and thrown away: more buffers than the kernel allows */
    uint64_t completed;  /* descriptors reported on the completion ring */
    uint64_t lost;       /* descriptors that never will be */
    uint64_t pending;    /* descriptors sent whose completion is not due yet */
    uint64_t kicks;      /* system calls made to send */
};
void xs_fake_values(struct xs_xsk *xsk, struct xs_fake_values *out);

/* The four rings as the user side sees them, for tests: producer and consumer index of rx, tx, fill, completion. */
void xs_fake_indices(struct xs_xsk *xsk, uint32_t *out);

/* Makes the UDP or TCP checksum of a frame partial: the field then holds the folded sum of the pseudo-header, for hardware
 * to go on from. Leaves alone what has none. */
void xs_fake_make_partial(uint8_t *frame, uint32_t length);
/* out[0]: offset of the transport header in the frame, out[1]: of the checksum in that header. -EINVAL when there is none. */
int xs_fake_checksum_field(const uint8_t *frame, uint32_t length, uint32_t *out);
