/* The fake kernel: the other side of the four rings, for a device that is plain memory.
 *
 *      production code                      the rings               fake kernel
 *      struct xs_ring of struct xs_xsk    (struct fake_rings)    struct xs_ring of struct xs_fake
 *
 *      napi refill   --- producer --->  fill        --- consumer --->  takes frames for what is injected
 *      napi poll     <-- consumer ---   RX          <-- producer ---   xs_fake_inject()
 *      napi tx       --- producer --->  TX          --- consumer --->  kick_tx: "sends", xs_fake_take_sent()
 *      napi complete <-- consumer ---   completion  <-- producer ---   when it is due
 *
 * Above the operations of struct xs_xsk everything is the production code; the rings are real ones, with indices that
 * start where the test wants. What the fake does follows net/xdp/xsk.c and xsk_queue.h of Linux in copy mode, which is what
 * veth has; each function names the one that it mirrors. It is deterministic: it acts only inside kick_tx, kick_rx,
 * inject and service, and knows no time but the stack's clock. What may go wrong is a parameter (struct xs_fake_faults).
 *
 * Threads: every entry takes `lock`, so a test may inject while a worker thread polls, as a NIC does.
 *
 * Frames the kernel has but that are in no ring, as in Linux: one taken from the fill ring for a packet that then
 * found the RX ring full waits in `spare` for the next packet; sent ones wait in `pending` for their completion.
 */
#ifndef XS_FAKE_FAKE_H
#define XS_FAKE_FAKE_H

#include <pthread.h>

#include "stack.h"
#include "xsk/xsk.h"

#include "bpf/xdpstack_maps.h"

#include "ffi/40_fake.cdef.h"

#define XS_FAKE_HEADROOM 256u /* XDP_PACKET_HEADROOM: what the kernel leaves before a received frame */
#define XS_FAKE_FRAGS_MAX 18u /* descriptors of a packet: one, and MAX_SKB_FRAGS more */

/* A descriptor that was sent and waits for its completion. */
struct xs_fake_pending {
    uint64_t address;
    uint64_t sent_ns;
};

/* Bytes that grow at the end; what was taken is cut off at the front. */
struct xs_fake_bytes {
    uint8_t *at;
    size_t n, cap;
};

struct xs_fake {
    pthread_mutex_t lock;
    struct xs_xsk *xsk;
    struct xs_stack *stack;            /* not looked at any more once `closed` */
    struct xs_ring rx, tx, fill, comp; /* the kernel's side */
    struct xs_fake_faults faults;
    struct xs_xsk_stats stats;
    struct xs_fake_values values;
    struct xs_xdp_hints hints; /* what the device says of frames that arrive */
    uint32_t claim_id;         /* which claim lifts what arrives; 0 = none that is read whole */
    bool closed;
    bool asleep;          /* fault rx_need_wakeup: found the fill ring empty, waits for kick_rx */
    uint32_t frame_bytes; /* most that one chunk takes of a received packet */
    uint32_t nspare;
    uint64_t spare[XS_FAKE_FRAGS_MAX];
    uint32_t npending;
    uint32_t open_pending;           /* the last so many belong to a packet whose end is not read yet */
    struct xs_fake_pending *pending; /* comp_size of them, oldest first */
    struct xs_fake_bytes sent;       /* records for xs_fake_take_sent() */
    size_t open_at;                  /* where the record of a packet whose end is not read yet starts */
    uint64_t memory_bytes;           /* of the UMEM: valid addresses are below */
    uint32_t chunk_bytes;
    uint32_t zc_max_segs; /* descriptors of a packet, in zero-copy; 0 = as many as an skb has */
};

/* rx.c */
int xs_fake_receive(struct xs_fake *f, const uint8_t *bytes, uint32_t length, uint32_t flags);
void xs_fake_wake_rx(struct xs_fake *f);

/* tx.c: __xsk_generic_xmit; 0 or -EAGAIN, when it stopped with descriptors left to send */
int xs_fake_transmit(struct xs_fake *f, uint32_t budget);
void xs_fake_complete(struct xs_fake *f);

#endif
