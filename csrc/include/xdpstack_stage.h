/* xdpstack_stage.h: what a stage sees. The public header for C stages, and the one our own stages are built on.
 *
 *      RX ring                                                     socket queue, TX ring
 *         |                                                              ^
 *         v          struct xs_batch                                     |
 *      +------+   n, frame[], next[], reason[]   +------+            +------+
 *      | napi | ------------ walk -------------> | ip   | -- walk -> | udp  |
 *      +------+                                  +------+            +------+
 *                        |  frame[i] is an index into three arrays of the UMEM:
 *                        +--> struct xs_pkt   hot descriptor, one cache line
 *                        +--> struct xs_meta  cold descriptor, one cache line
 *                        +--> the frame's bytes
 *
 * A packet is a frame number. A batch is a vector of frame numbers. A stage looks at every packet of a batch and says
 * where each goes next: it sets next[i] to one of its edges, or to XS_DROP with reason[i]. The walk (csrc/walk.c) does the
 * rest: it groups packets by next, calls the stages that follow, counts reasons and returns the frames of dropped packets.
 * So a stage never frees (but further frames of a packet that it shortens), never blocks, never calls another stage, and has no
 * error to return.
 *
 * Ownership: while a stage runs, the packets of its batch are its own and nobody else looks at them. Setting next[i] gives
 * the packet away when the function returns:
 *      an edge      to the next stage
 *      XS_DROP      to the walk, which counts reason[i] and frees the frame
 *      XS_KEPT      to the stage itself, which has set owner (HELD, QUEUED, TRANSMITTING) and must account for the packet
 *
 * All multi-byte values in the descriptors are in host order; only the frame's bytes are in network order.
 */
#ifndef XDPSTACK_STAGE_H
#define XDPSTACK_STAGE_H

#include <stddef.h>
#include <stdint.h>

#define XS_STAGE_ABI 3u   /* bumped when a structure of this header changes, or the number of a drop reason */
#define XS_BATCH_CAP 256u /* packets in a batch, emitted ones included */
#define XS_WEIGHT 64u     /* packets taken from a ring, or from a caller, per batch: leaves room to emit */
#define XS_NO_FRAME UINT32_MAX

/* Where a frame is. Every frame has exactly one owner; the frame ledger is the count of each. */
enum xs_owner {
    XS_FREE = 0,     /* in its worker's pool, or on its way back there */
    XS_FILLED,       /* in a fill ring or the RX ring: the kernel's, or not read yet */
    XS_WALKING,      /* in a batch; none is left in this state when a poll returns */
    XS_HELD,         /* kept by a stage: unresolved neighbour, transmit backlog; parked for a Python hook; or
                  * on a ring between two workers (rps.rx, napi.tx) */
    XS_QUEUED,       /* on a socket's receive queue */
    XS_LENT,         /* with a Python reader */
    XS_TRANSMITTING, /* in a TX ring, or sent and not completed */
    XS_OWNERS
};

/* The three states of a transport checksum, and unknown. */
enum xs_csum {
    XS_CSUM_NONE = 0, /* nobody looked yet */
    XS_CSUM_VERIFIED, /* correct, or the sender sent none and may */
    XS_CSUM_PARTIAL,  /* only the pseudo-header sum is in the field: from a local sender, payload intact */
    XS_CSUM_BAD
};

/* How the frame was addressed at layer 2 (the kernel's PACKET_* of skb->pkt_type). */
enum xs_pkt_type {
    XS_PACKET_HOST = 0,
    XS_PACKET_BROADCAST,
    XS_PACKET_MULTICAST,
    XS_PACKET_OTHERHOST,
    XS_PACKET_OUTGOING
};

/* flags of struct xs_pkt */
#define XS_PKT_IPV6 0x0001u     /* l3 is IPv6; else IPv4 once l3_proto says so */
#define XS_PKT_FRAGMENT 0x0002u /* an IP fragment */
#define XS_PKT_VLAN \
    0x0004u /* xs_meta.vlan_* are of the outermost tags; before neigh.tx: of those to be put on */
#define XS_PKT_TRUNC 0x0008u            /* napi met the end of the frame inside a header */
#define XS_PKT_ROUTED_LOCAL 0x0010u     /* routing: for this host */
#define XS_PKT_ROUTED_BROADCAST 0x0020u /* routing: to a broadcast address */
#define XS_PKT_ROUTED_MULTICAST 0x0040u /* routing: to a multicast address */
#define XS_PKT_SLOW 0x0080u  /* came through a shadow socket: payload only, no headers in the frame */
#define XS_PKT_DF 0x0100u    /* transmit: never fragment (IP_PMTUDISC_DO, IP_PMTUDISC_PROBE) */
#define XS_PKT_TRACE 0x0200u /* the walk records this packet's way */
#define XS_PKT_MULTI 0x0400u /* has further frames in `frag` */
#define XS_PKT_TAIL 0x0800u  /* not the first frame of its packet: reached through `frag` only */
#define XS_PKT_NO_DF 0x1000u /* transmit: routers may fragment (IP_PMTUDISC_DONT, _INTERFACE, _OMIT) */
#define XS_PKT_USER 0xe000u  /* free for custom stages */

/* Hot descriptor: 64 bytes. Written by napi on receive and by the sender on transmit; a later stage may change what it
 * says it does in its contract. What is said to be set by ip or udp, napi has set already for plain packets, as which
 * most are recognised by one look (XS_ALL_PLAIN): lengths, offsets, protocol, ports, TOS. Offsets are from the start of
 * the frame (the chunk), so that headers can be put before data. */
struct xs_pkt {
    uint32_t pkt_len;     /* bytes of the whole packet, all frames, from the Ethernet header on */
    uint16_t data_off;    /* first byte (Ethernet header) */
    uint16_t len;         /* bytes in this frame */
    uint16_t l3_off;      /* IP header; valid once napi has run */
    uint16_t l4_off;      /* transport header, past options and extension headers; 0 = not found. By ip */
    uint16_t payload_off; /* first byte of the datagram's payload; set by udp */
    uint16_t payload_len; /* its length in bytes (over all frames) */
    uint16_t l3_proto;    /* ethertype, host order, behind VLAN tags */
    uint8_t l4_proto;     /* IPPROTO_*; set by ip */
    uint8_t csum;         /* enum xs_csum, of the transport checksum */
    uint16_t flags;       /* XS_PKT_* */
    uint8_t pkt_type;     /* enum xs_pkt_type */
    uint8_t tos;          /* IPv4 TOS / IPv6 traffic class; set by ip */
    uint32_t mark;        /* skb->mark */
    uint32_t hash;        /* flow hash, 0 = not computed; the device's, with XS_HINT_HASH */
    union {
        uint32_t nexthop;  /* id of the next hop, by routing */
        uint32_t truesize; /* QUEUED, LENT: what the queue was charged for the packet, bytes */
    };
    uint32_t ct;    /* conntrack entry, 0 = none */
    uint32_t frag;  /* next frame of the same packet, or XS_NO_FRAME */
    uint32_t seg;   /* next packet of a GRO chain, or XS_NO_FRAME */
    uint16_t sport; /* transport ports, host order; set by udp */
    uint16_t dport;
    uint8_t owner;        /* enum xs_owner; written by whoever takes the frame */
    uint8_t owner_device; /* FILLED, TRANSMITTING: device of the ring. QUEUED, LENT: worker that queued it */
    uint8_t device;       /* stack's device index: where it came from; on transmit, where it goes */
    uint8_t queue;        /* RX queue; on transmit the TX queue */
    uint32_t socket;      /* socket index: receiving, or sending */
    uint32_t priority;    /* skb->priority */
};

/* hints of struct xs_meta: what of it is there */
#define XS_HINT_HASH 0x2u
#define XS_HINT_TIMESTAMP 0x4u
#define XS_HINT_VLAN 0x8u /* the device had taken the tag off; napi has put it back */

/* Cold descriptor: 64 bytes beside the hot one. */
struct xs_meta {
    uint64_t
        stamp_ns; /* when received, CLOCK_REALTIME; 0 = unknown. Transmit, whole frames of a user: the id by which it
                        * wants to know when this one was sent; 0 = does not */
    union {
        uint8_t src[16];  /* receive, XS_PKT_SLOW: peer; transmit: source. IPv4 is mapped (::ffff:a.b.c.d) */
        uint32_t steered; /* received by AF_XDP: its number among those of its flow, with RFS. By rps */
    };
    union {
        uint8_t dst[16]; /* transmit: destination. XS_PKT_SLOW: our address */
        struct {         /* received by AF_XDP, on a stack that asked for it: what the device has said */
            uint64_t device_ns; /* when received, by the device's own clock; with XS_HINT_TIMESTAMP */
            uint32_t
                hash_type;  /* enum xdp_rss_hash_type; with XS_HINT_HASH, and the hash is the descriptor's */
            uint32_t hints; /* XS_HINT_* */
        };
    };
    uint16_t reason;         /* set to 0 by who sends; after a synchronous walk, why it was dropped */
    uint16_t vlan_tci;       /* host order */
    uint16_t vlan_proto;     /* 0x8100 or 0x88a8, host order */
    uint16_t vlan_inner_tci; /* host order; of the 802.1Q tag behind an 802.1ad one; 0 = there is none */
    uint8_t reserved;
    uint8_t ttl;    /* transmit: 0 = the default of the device */
    uint16_t trace; /* slot of the trace, with XS_PKT_TRACE */
    uint32_t scratch
        [3]; /* of the stage that holds or runs. QUEUED: [0] = ifindex of a link-local peer, [1] = what the
                          * socket had refused by then, of sockets that want to know (SO_RXQ_OVFL) */
};

/* Where the frames of a stack are. One per stack; constant while it is open. */
struct xs_mem {
    struct xs_pkt *pkt;
    struct xs_meta *meta;
    uint8_t *data;
    uint32_t frame_shift; /* log2 of the frame size in bytes */
    uint32_t nframes;
};

struct xs_walk;
struct xs_batch;

/* What a stage may ask of the walk; called through xs_emit() and xs_release(). */
struct xs_batch_ops {
    int (*emit)(struct xs_batch *b, uint8_t next);
    int (*release)(struct xs_batch *b, uint32_t frame, uint8_t next);
};

/* The packet ledger of a worker: received + created + split = delivered + sent + merged + punted + dropped + held.
 * Whoever ends or begins a packet's way counts it here: napi (received, sent), udp and taps (delivered), who sends (created),
 * gro (merged, split), the walk (dropped, punted, and created for emitted packets). Held is counted from the owners. */
struct xs_ledger {
    uint64_t received, created, split;
    uint64_t delivered, sent, merged, punted, dropped;
};

/* Facts: what is known to hold for every packet of a batch, so that a stage need not look at each. napi says what it has
 * seen; a stage that makes one untrue clears it; a batch that was put together anew, or that a hook has had, has none. */
#define XS_ALL_PARSED 1u /* what napi.rx writes is written */
#define XS_ALL_PLAIN 2u /* a UDP datagram as nearly all are, and its headers are right: stages/napi_plain.h */
#define XS_ALL_TRIMMED 4u   /* ends where its IP packet ends: no padding behind it */
#define XS_ALL_VERIFIED 8u  /* its UDP checksum is right, or it has none and needs none */
#define XS_ALL_TO_ONE 16u   /* to the same address and port, by one device */
#define XS_ALL_ONE_FLOW 32u /* and from the same */
#define XS_ALL_OUTGOING 64u /* made here, not received: pkt_type is XS_PACKET_OUTGOING */

struct xs_batch {
    uint32_t n;     /* packets; grows when a stage emits */
    uint32_t node;  /* which node of the walk is running */
    uint32_t facts; /* XS_ALL_* */
    const struct xs_mem *mem;
    struct xs_walk *walk;
    const struct xs_batch_ops *ops;
    struct xs_ledger *ledger;
    uint64_t *count; /* counters of the running stage, in the order it declared their names */
    uint64_t now_ns; /* CLOCK_MONOTONIC (or the caller's clock) at the start of the poll */
    uint32_t frame[XS_BATCH_CAP];
    uint16_t reason[XS_BATCH_CAP];
    uint8_t next[XS_BATCH_CAP];
};

/* values of next[i] that are not edges */
#define XS_DROP 255u
#define XS_KEPT 254u

/* Drop reasons: enum xs_reason { XS_REASON_NOT_SPECIFIED = 0, XS_REASON_NO_SOCKET = 1, ... }; XS_REASONS is how many. */
enum xs_reason {
#define XS_REASON(name, number, error, text) XS_REASON_##name = number,
#include "reasons.def"
#undef XS_REASON
};
enum {
    XS_REASONS = 0
#define XS_REASON(name, number, error, text) +1
#include "reasons.def"
#undef XS_REASON
};

typedef void xs_stage_fn(void *self, struct xs_batch *b);
/* Once per poll, for stages that hold packets or keep timers; `b` is empty: release held packets by xs_release(). */
typedef void xs_tick_fn(void *self, struct xs_batch *b);

/* What the walk needs to know of a stage. `name` is the row of the path table (xdpstack/path.py); `edges` are the names of
 * its edges there, in the order of the numbers the code uses. A stage that Linux has at several hooks has several. */
struct xs_stage_def {
    const char *name;
    xs_stage_fn *fn;
    xs_tick_fn *tick;         /* or NULL */
    const char *edges[8];     /* NULL-terminated when fewer */
    const char *counters[16]; /* likewise */
};

static inline struct xs_pkt *xs_pkt(const struct xs_batch *b, uint32_t i) {
    return &b->mem->pkt[b->frame[i]];
}
static inline struct xs_meta *xs_meta(const struct xs_batch *b, uint32_t i) {
    return &b->mem->meta[b->frame[i]];
}
static inline uint8_t *xs_frame_data(const struct xs_mem *m, uint32_t frame) {
    return m->data + ((size_t)frame << m->frame_shift);
}
static inline uint8_t *xs_data(const struct xs_batch *b, uint32_t i) {
    return xs_frame_data(b->mem, b->frame[i]);
}

/* Writes the owner of all frames of a packet, and of the packets chained to it. A stage that keeps packet i says so by
 * xs_own(b->mem, b->frame[i], XS_HELD) before it sets next[i] = XS_KEPT. */
static inline void xs_own(const struct xs_mem *m, uint32_t frame, enum xs_owner owner) {
    for (uint32_t packet = frame; packet != XS_NO_FRAME; packet = m->pkt[packet].seg)
        for (uint32_t f = packet; f != XS_NO_FRAME; f = m->pkt[f].frag) m->pkt[f].owner = (uint8_t)owner;
}

/* Every packet takes the same edge. */
static inline void xs_next_all(struct xs_batch *b, uint8_t next) { __builtin_memset(b->next, next, b->n); }

static inline void xs_drop(struct xs_batch *b, uint32_t i, enum xs_reason why) {
    b->next[i] = XS_DROP;
    b->reason[i] = (uint16_t)why;
}

/* A new packet of one empty frame from the worker's pool, appended to the batch with edge `next`. Returns its index in
 * the batch, or -1 when there is no frame or no room: no packet yet, so none to drop; the stage counts what was lost in a
 * counter of its own. */
static inline int xs_emit(struct xs_batch *b, uint8_t next) { return b->ops->emit(b, next); }

/* From a tick: gives a packet that this stage held back to the walk, by edge (or XS_DROP, then set reason[]).
 * Returns its index in the batch, or -1 when the batch is full: keep it and try at the next tick. */
static inline int xs_release(struct xs_batch *b, uint32_t frame, uint8_t next) {
    return b->ops->release(b, frame, next);
}

/* What a user's shared object exports for xdpstack.load_stage():
 *      XS_EXPORT_STAGE(my_def, &my_state)
 */
struct xs_stage_export {
    uint32_t abi;
    const struct xs_stage_def *def;
    void *self;
};
#define XS_EXPORT_STAGE(definition, state) \
    __attribute__((visibility("default"))) \
    const struct xs_stage_export xs_stage_export = {XS_STAGE_ABI, &(definition), (state)};

#endif
