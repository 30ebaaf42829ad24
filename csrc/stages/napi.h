/* napi: between the rings and the walk. Contract: xdpstack/stages/napi.py.
 *
 *      napi.rx   napi_rx.c       RX rings, fill rings, descriptors
 *                napi_plain.h    what a plain packet is, and all that is found out of one at once
 *                napi_run.h      others of one frame, in a row
 *                napi_hints.c    what the device has said of a frame
 *      napi.tx   napi_tx.c       TX rings, the queue behind a full one, completions
 *                napi_cross.c    to queues that another worker has
 *                napi_offload.c  what the device is asked to do
 */
#ifndef XS_STAGES_NAPI_H
#define XS_STAGES_NAPI_H

#include "base/crossing.h"
#include "base/pool.h"
#include "include/xdpstack_stage.h"
#include "tables/config.h"
#include "xsk/xsk.h"

#include "ffi/18_offload.cdef.h"

#define XS_QUEUES_MAX 64u /* queues of a device that the choice of a TX queue tells apart */
#define XS_NO_PORT 255u
#define XS_NO_WORKER 255u
#define XS_TX_BACKLOG \
    1024u /* packets that wait for room in a TX ring, per queue: the length of a pfifo qdisc */

enum { XS_NAPI_RX_RECEIVE };
enum xs_napi_rx_counter { XS_NAPI_RX_BYTES, XS_NAPI_RX_TRUNCATED, XS_NAPI_RX_PLAIN, XS_NAPI_RX_COUNTERS };
enum xs_napi_tx_counter {
    XS_NAPI_TX_BYTES,
    XS_NAPI_TX_BACKLOGGED,
    XS_NAPI_TX_HANDED_OVER,
    XS_NAPI_TX_CSUM_COMPLETED
};

/* One queue of one device. A worker has one or more of each device (or none: then it sends through another worker). */
struct xs_port {
    struct xs_xsk *xsk; /* NULL: the place is free */
    uint32_t backlog_head, backlog_n;
    uint32_t backlog[XS_TX_BACKLOG]; /* FIFO of packets, owner HELD */
    /* Packets of other workers that came when the backlog was full: linked by `seg`, oldest first. Then those for this device
     * are told, so that there are no more of them than were on their way. Empty while the backlog has room. */
    uint32_t late_head, late_tail;
};

/* Which worker has which queue of which device; written while queues come and go, read by all. */
struct xs_queue_owners {
    _Atomic(uint8_t) worker[XS_DEVICES_MAX][XS_QUEUES_MAX]; /* or XS_NO_WORKER */
    _Atomic(uint64_t) full[XS_DEVICES_MAX]; /* bit per worker: it takes no more of others for this device */
};

/* When frames were sent that somebody wants to know of: the worker writes, one reader takes. */
#define XS_SENT_STAMPS 4096u
struct xs_sent_stamps {
    _Atomic(uint32_t) producer, consumer;
    uint64_t lost; /* for want of room */
    struct xs_sent_stamp slot[XS_SENT_STAMPS];
};

struct xs_napi {
    const struct xs_mem *mem;
    struct xs_pool *pool;
    const struct xs_tables *tables;
    struct xs_queue_owners *owners;
    struct xs_crossing *crossing;       /* to whom has a queue of a device that we have none of */
    uint32_t nports;                    /* ports[0..nports) may have a queue */
    uint32_t next_port;                 /* round robin of polls */
    bool taking_over;                   /* what is walked was handed over by another worker */
    struct xs_sent_stamps *sent_stamps; /* NULL: nobody asked */
    bool hints; /* the stack asked for what devices say of frames: csrc/stages/napi_hints.c */
    /* What napi.rx counts of the batch that was polled last, when all of it was read while it was polled */
    uint64_t polled[XS_NAPI_RX_COUNTERS];
    uint64_t
        starved; /* bit per port: its fill ring has less than half of what it should, for want of free frames */
    uint8_t tx_port[XS_DEVICES_MAX]
                   [XS_QUEUES_MAX]; /* device and queue -> the port to send by, or XS_NO_PORT */
    struct xs_port port[XS_PORTS_MAX];
};

void xs_napi_init(struct xs_napi *self, const struct xs_mem *mem, struct xs_pool *pool,
                  const struct xs_tables *tables);
/* Puts a queue into a free place; returns its port, or -ENOSPC. */
int xs_napi_attach(struct xs_napi *self, struct xs_xsk *x, uint32_t device);
/* The port is empty from now on; its backlog must be. */
void xs_napi_detach(struct xs_napi *self, uint32_t port);

/* Asks for the headers of the first packets that have come by a queue: well before xs_napi_poll(), which is to follow. */
void xs_napi_ask(const struct xs_napi *self, uint32_t port);
/* Takes up to `budget` packets of one queue into the empty batch `b`. Returns how many descriptors were taken. */
uint32_t xs_napi_poll(struct xs_napi *self, uint32_t port, uint32_t budget, struct xs_batch *b);
/* What the devices have said of the packets of `b`, as they came from `x`, into their descriptors. */
void xs_napi_hints(const struct xs_napi *self, const struct xs_xsk *x, struct xs_batch *b);
/* What the device is asked to do with a packet is written before its first frame; the options of its descriptor. */
uint32_t xs_napi_request(const struct xs_mem *mem, const struct xs_xsk *x, uint32_t frame);
/* The next `n` frames on the completion ring were sent: when, of those of which that was asked. */
void xs_napi_note_sent(struct xs_napi *self, const struct xs_xsk *x, uint32_t n);
/* Puts free frames on the fill ring, up to the target; wakes the kernel when it asks for it. */
void xs_napi_refill(struct xs_napi *self, uint32_t port);
/* Takes sent frames back from the completion ring. */
void xs_napi_complete(struct xs_napi *self, uint32_t port);
/* Tells the kernel of what was put on the TX ring since the last time. */
void xs_napi_kick(struct xs_napi *self, uint32_t port);
/* Takes note of what a system call on a socket said, unless it was "later". */
void xs_napi_fault(struct xs_xsk *x, int rc);
/* True when there is something left that only another poll can do, though no packet may come to cause one: packets wait to be
 * sent, or fill rings wait for frames. */
bool xs_napi_unfinished(const struct xs_napi *self);
/* Packets that could be sent on the device now without being dropped (ring and backlog). */
uint32_t xs_napi_tx_room(struct xs_napi *self, uint32_t device);

/* napi_cross.c: sending by another worker's queue. */
void xs_queue_owners_init(struct xs_queue_owners *self);
/* The packet at `i` is for a device that this worker has no queue of: it is kept for who has, or dropped. */
void xs_napi_hand_over(struct xs_napi *self, struct xs_batch *b, uint32_t i);
/* How many that would be possible for. */
uint32_t xs_napi_hand_over_room(const struct xs_napi *self, uint32_t device, uint32_t queue);
/* The packet was handed over, and the backlog of the port is full: it waits behind it. */
void xs_napi_keep_late(struct xs_napi *self, uint32_t port, uint32_t frame);
/* Takes the packet off the backlog of a port that has waited longest, and those that came late move up. */
uint32_t xs_napi_pop_backlog(struct xs_napi *self, uint32_t port);

void xs_napi_rx(struct xs_napi *self, struct xs_batch *b); /* parses Ethernet and VLAN into the descriptor */
void xs_napi_tx(struct xs_napi *self, struct xs_batch *b);
void xs_napi_tx_tick(struct xs_napi *self, struct xs_batch *b);

extern const struct xs_stage_def xs_napi_rx_def, xs_napi_tx_def;

#endif
