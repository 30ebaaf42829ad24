/* UDP sockets as the data plane knows them: who is bound to what (the lookup table), and each socket's receive queue.
 *
 *      worker 0 -- feed[0]: ring of frames, bytes charged --+
 *      worker 1 -- feed[1] ---------------------------------+--> one reader (Python, under the GIL) -- bytes released
 *
 * The table is immutable and replaced whole (base/epoch.h). A socket outlives the tables that name it. Nothing here is
 * ever read, changed and written back by two threads: the memory in use is what the feeds have charged less what the reader
 * has released, all of them counters that only grow and have one writer each.
 *
 * Field groups of struct xs_socket say who writes. Addresses are 16 bytes, IPv4 mapped (::ffff:a.b.c.d).
 */
#ifndef XS_TABLES_SOCKETS_H
#define XS_TABLES_SOCKETS_H

#include <string.h>

#include "base/likely.h"
#include "base/ring.h"
#include "include/xdpstack_stage.h"
#include "tables/filter.h"

#include "ffi/60_udp.cdef.h"

#define XS_SOCKET_ERRORS \
    64u /* errors that wait for the reader; older ones stay, newer ones are counted as lost */

/* An ICMP error about something that the socket sent (struct sock_extended_err, in host order). */
struct xs_socket_error_ring {
    alignas(64) _Atomic(uint32_t) producer;
    _Atomic(uint64_t) lost;
    alignas(64) _Atomic(uint32_t) consumer;
    struct xs_socket_error slot[XS_SOCKET_ERRORS];
};

/* Flags by which each datagram is marked when it is queued. */
#define XS_SOCKET_MARKS (XS_SOCKET_STAMP | XS_SOCKET_RXQ_OVFL)

/* What one worker feeds into one socket. Written by that worker; the reader takes from `ring`, and bystanders (who waits, who
 * asks for statistics) look how much it holds. */
struct xs_feed {
    alignas(
        64) _Atomic(struct xs_spsc *) ring; /* packets, by their first frame; what rcvbuf can hold, or more */
    struct xs_socket *socket;
    struct xs_feed *next_dirty; /* chain of the feeds that this poll pushed to */
    uint64_t charged;           /* truesize of all that was ever queued, in bytes */
    uint64_t charged_end;       /* how far that may go, when the reader was last asked; 0 = ask */
    uint64_t datagrams;         /* ever queued */
    uint64_t drops_rcvbuf, drops_memory, drops_filter; /* refused: struct xs_socket_stats */
    bool dirty;
    alignas(64) _Atomic(uint64_t) charged_seen; /* `charged`, as of the last flush, for everyone else */
    /* Rings that were too small, by log2 of their slots: a bystander may still look at one. Each has at least twice the slots
     * of the one before, so all of them are smaller than the one in use; they go with the socket. */
    struct xs_spsc *outgrown[32];
};

static inline struct xs_spsc *xs_feed_ring(const struct xs_feed *f) {
    return atomic_load_explicit(&f->ring, memory_order_acquire);
}

struct xs_socket {
    /* control's, constant while a table names the socket, except where atomic */
    uint32_t index;
    uint16_t port;
    uint8_t family; /* 4 or 6 */
    uint8_t nfeeds;
    uint8_t address[16];
    _Atomic(uint32_t) flags;  /* XS_SOCKET_* of ffi/60_udp.cdef.h */
    _Atomic(uint32_t) rcvbuf; /* bytes, as the kernel's sk_rcvbuf: what was asked for, doubled */
    _Atomic(const struct xs_filter *) filter; /* SO_ATTACH_FILTER, or NULL; with XS_SOCKET_FILTER */
    int shadow_fd;                            /* kernel socket that backs this one, or -1 */
    _Atomic(uint32_t) drops_kernel;           /* what that has refused, as it has said last */
    _Atomic(int) event_fd;                    /* wakes the reader; -1: closed */
    struct xs_feed *feed;                     /* [nfeeds] */

    struct xs_socket_sending sending; /* control's, under the GIL; the sender reads it under the GIL */

    /* the reader's */
    alignas(64) _Atomic(uint64_t) released; /* truesize of all that was ever taken out, in bytes */
    uint64_t deficit;   /* taken out and not yet released: udp_rmem_release() does it in lumps */
    uint32_t next_feed; /* where to look first */

    /* both sides: 1 while the reader wants event_fd to be written when something comes */
    alignas(64) _Atomic(uint32_t) armed;
    _Atomic(uint32_t)
        exported; /* fileno() was handed out: event_fd is readable while the queue is not empty */
    _Atomic(uint32_t) waiting; /* threads that sleep on event_fd, or are about to */
    _Atomic(int) error;        /* errno of an ICMP error that the next call raises; 0 = none */
    struct xs_socket_error_ring errors;
};

/* One key (address and port) and the sockets bound to it. `only` is set when it is one that takes untagged ones of anyone. */
struct xs_socket_slot {
    uint64_t high, low; /* the address, as loaded from memory */
    uint16_t port;
    uint16_t n;     /* 0: an empty slot */
    uint32_t first; /* into entry[] */
    struct xs_socket *only;
};

struct xs_socket_entry {
    struct xs_socket *socket;
    uint64_t peer_high, peer_low; /* 0, 0: any */
    uint32_t vlan;                /* xs_vlan_number(): 0: untagged */
    uint16_t peer_port;           /* 0: any */
    uint8_t device;               /* XS_NO_DEVICE: any */
    uint8_t family;
    uint8_t only_joined; /* XS_SOCKET_ONLY_JOINED_* */
    uint8_t reconnected;
    uint16_t ngroups;
    uint32_t first_group; /* into group[] */
};

struct xs_socket_table {
    uint64_t seed;
    uint32_t mask, shift, nentries;
    struct xs_socket_entry *entry; /* per key in order of precedence: on equal scores the first wins */
    struct xs_socket_group *group; /* what sockets have joined; NULL: none anything */
    struct xs_socket_slot slot[];
};

/* What is looked up. */
struct xs_socket_key {
    uint64_t high, low, peer_high, peer_low;
    uint32_t vlan;
    uint16_t port, peer_port;
    uint8_t device, family;
};

static inline void xs_load_address(const uint8_t *p, uint64_t *high, uint64_t *low) {
    memcpy(high, p, 8);
    memcpy(low, p + 8, 8);
}

static inline uint64_t xs_mapped_low(const uint8_t *v4) {
    uint8_t low[8] = {0, 0, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3]};
    uint64_t out;
    memcpy(&out, low, 8);
    return out;
}

static inline uint64_t xs_wildcard_low(uint8_t family) {
    static const uint8_t zero[4];
    return family == 6 ? 0 : xs_mapped_low(zero);
}

/* The slot where the key is looked for first: the upper bits of a product, which all bits of the key have a part in. */
static inline uint32_t xs_socket_hash(const struct xs_socket_table *t, uint64_t high, uint64_t low,
                                      uint16_t port) {
    uint64_t key = (low ^ t->seed) + (high << 32 | high >> 32) + port;
    return (uint32_t)(key * 0x9e3779b97f4a7c15ull >> t->shift);
}

static inline bool xs_socket_slot_is(const struct xs_socket_slot *s, uint64_t high, uint64_t low,
                                     uint16_t port) {
    return s->low == low && s->high == high && s->port == port;
}

/* The slot of a key whose own place has another; NULL when there is none. */
const struct xs_socket_slot *xs_socket_slot_beyond(const struct xs_socket_table *t, uint32_t hash,
                                                   uint64_t high, uint64_t low, uint16_t port);

/* The slot of a key; NULL, or an empty one, when nothing is bound to it. */
static inline const struct xs_socket_slot *xs_socket_slot(const struct xs_socket_table *t, uint32_t hash,
                                                          uint64_t high, uint64_t low, uint16_t port) {
    const struct xs_socket_slot *s = &t->slot[hash];
    if (likely(xs_socket_slot_is(s, high, low, port))) return s;
    return xs_socket_slot_beyond(t, hash, high, low, port);
}

/* Connected sockets are found by all four of their numbers before any score is asked for (udp4_lib_lookup4): of several with
 * the same four the order decides, not the device. Not so those that have another peer than at first, nor one that is connected
 * to port 0, which takes any, for what comes from another port. */
#define XS_SOCKET_SCORE_CONNECTED 16

/* Does the socket take what `k` says? Its score (compute_score of net/ipv4/udp.c), or -1. */
static inline int xs_socket_score(const struct xs_socket_entry *e, const struct xs_socket_key *k) {
    int score = e->family == k->family;
    if (e->vlan != k->vlan) return -1;
    if (e->peer_high | e->peer_low) {
        if (e->peer_high != k->peer_high || e->peer_low != k->peer_low) return -1;
        score += 4;
    }
    if (e->peer_port) {
        if (e->peer_port != k->peer_port) return -1;
        score += 4;
    }
    if (e->device != XS_ANY_DEVICE) {
        if (e->device != k->device) return -1;
        score += 4;
    }
    if (e->peer_port == k->peer_port && (e->peer_high | e->peer_low) && !e->reconnected)
        return XS_SOCKET_SCORE_CONNECTED;
    return score;
}

/* Slots that the receive queue of a worker needs, so that the bytes run out before the slots do. */
uint32_t xs_feed_slots(uint32_t rcvbuf, uint32_t frames);

/* Has a feed hold `rcvbuf` bytes, and the socket have that receive buffer: 0, or -ENOMEM and nothing is changed. While nobody
 * feeds it (its worker is the caller's) nor reads it; `frames` is how many the worker has. */
int xs_feed_resize(struct xs_feed *f, uint32_t rcvbuf, uint32_t frames);

/* The table before the first socket is bound. */
extern const struct xs_socket_table xs_no_sockets;

/* Builds a table of `n` bindings; NULL when there is no memory. */
struct xs_socket_table *xs_socket_table_create(const struct xs_socket_binding *bindings, uint32_t n);
void xs_socket_table_destroy(struct xs_socket_table *t);

bool xs_socket_queued(const struct xs_socket *s);
/* A datagram, an error, or the news that it was closed. */
bool xs_socket_has_something(const struct xs_socket *s);

/* The reader found nothing: have it woken by event_fd. True when something came meanwhile; then event_fd is readable, too,
 * if it was handed out. */
bool xs_socket_arm(struct xs_socket *s);

/* Wakes the reader if it has asked for it. Call after what it is to see has been published. */
void xs_socket_wake(struct xs_socket *s);

/* sk_drops: all that was refused so far, as far as the one who asks knows; it wraps. */
uint32_t xs_socket_drops(const struct xs_socket *s);

/* Bytes of the receive buffer in use, as seen by anyone but the feeding workers. */
uint64_t xs_socket_rmem(const struct xs_socket *s);

/* The socket that a unicast datagram is for, or NULL: exact address before wildcard, then the score, then the order. */
struct xs_socket *xs_socket_lookup(const struct xs_socket_table *t, uint32_t hash,
                                   const struct xs_socket_key *k);

/* What a datagram costs a socket: the truesize of the skb that a local sender's packet is on the receiving side, so that a
 * receive buffer holds as many as Linux' does. The data (with the sender's head room) rounded up to cache lines, with
 * struct skb_shared_info (320) behind it, comes out of a slab of 576 bytes or of a power of two; the skb itself is 256.
 * `bytes` counts from the UDP header on. Source: __alloc_skb(), __ip_append_data(), __ip6_append_data(). */
static inline uint32_t xs_truesize(uint32_t bytes, bool ipv6) {
    uint32_t head =
        ipv6 ? 40 + 16 + 8 : 20 + 16 + 15; /* IP header, Ethernet, then room for a fragment header or slack */
    if (bytes + head <= 576 - 320) return 576 + 256; /* nearly all */
    uint32_t size = ((bytes + head + 63) & ~63u) + 320;
    uint32_t slab = size <= 1024 ? 1024 : 1u << (32 - __builtin_clz(size - 1));
    return slab + 256;
}

/* The same for what came through a shadow socket: larger than 1500 bytes with its IP header, it was fragments once. */
static inline uint32_t xs_truesize_slow(uint32_t bytes, bool ipv6) {
    uint32_t most = ipv6 ? 1448 : 1480; /* bytes of the datagram in a full fragment */
    if (bytes <= (ipv6 ? 1460u : 1480u)) return xs_truesize(bytes, ipv6);
    uint32_t total = bytes / most * xs_truesize(most, ipv6);
    return bytes % most ? total + xs_truesize(bytes % most, ipv6) : total;
}

#endif
