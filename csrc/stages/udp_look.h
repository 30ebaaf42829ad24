/* One received datagram while udp.rx looks at it: where its headers are, what they say, which sockets would take it.
 * Internal to udp_rx.c, udp_many.c and udp_decided.c. */
#ifndef XS_STAGES_UDP_LOOK_H
#define XS_STAGES_UDP_LOOK_H

#include "base/likely.h"
#include "include/xdpstack_vlan.h"
#include "stages/udp.h"
#include "wire/eth.h"
#include "wire/udp.h"

/* Given to inline functions alone, so that it stays in registers. */
struct look {
    struct xs_pkt *p;
    const uint8_t *ip, *uh;
    uint32_t i;    /* in the batch */
    uint32_t ulen; /* of the datagram, its header included; once it was checked */
    bool ipv6;
};

static inline __attribute__((always_inline)) struct look
look_at(const struct xs_mem *mem, const struct xs_batch *b, uint32_t i, bool ipv6) {
    uint32_t frame = b->frame[i];
    struct xs_pkt *p = &mem->pkt[frame];
    const uint8_t *data = xs_frame_data(mem, frame);
    return (struct look){.p = p, .ip = data + p->l3_off, .uh = data + p->l4_off, .i = i, .ipv6 = ipv6};
}

static inline bool is_ipv6(const struct xs_batch *b, uint32_t i) { return xs_pkt(b, i)->flags & XS_PKT_IPV6; }

/* At one that was checked. */
static inline struct look look_again(const struct xs_batch *b, uint32_t i) {
    struct look k = look_at(b->mem, b, i, is_ipv6(b, i));
    k.ulen = k.p->payload_len + XS_UDP_BYTES;
    return k;
}

static inline uint32_t flags_of(const struct xs_socket *s) {
    return atomic_load_explicit(&s->flags, memory_order_relaxed);
}

/* No checksum at all: over IPv4 the sender may (RFC 768), over IPv6 only the socket can allow it (RFC 6935). */
static inline bool refuses(uint32_t socket_flags, const struct look *k) {
    return k->ipv6 && !xs_udp_csum(k->uh) && !(socket_flags & XS_SOCKET_NO_CHECK6_RX);
}

/* The socket's filter does not want it. */
static inline void refuse(struct xs_udp *self, struct xs_batch *b, uint32_t i, struct xs_socket *s) {
    s->feed[self->inbox->worker].drops_filter++;
    xs_drop(b, i, XS_REASON_SOCKET_FILTER);
}

static inline void destination(const struct look *k, uint64_t *high, uint64_t *low) {
    if (k->ipv6) {
        xs_load_address(k->ip + 24, high, low);
    } else {
        *high = 0;
        *low = xs_mapped_low(k->ip + 16);
    }
}

/* Which VLAN the packet is in. A tag with a priority alone is of none: vlan_do_receive(). */
static inline uint32_t vlan_of(const struct xs_batch *b, const struct look *k) {
    return unlikely(k->p->flags & XS_PKT_VLAN) ? xs_vlan_number(k->p, xs_meta(b, k->i)) : 0;
}

static inline struct xs_socket_key key_of(const struct xs_batch *b, const struct look *k) {
    const struct xs_pkt *p = k->p;
    struct xs_socket_key key = {.port = p->dport,
                                .peer_port = p->sport,
                                .vlan = vlan_of(b, k),
                                .device = p->device,
                                .family = k->ipv6 ? 6 : 4};
    destination(k, &key.high, &key.low);
    if (k->ipv6)
        xs_load_address(k->ip + 8, &key.peer_high, &key.peer_low);
    else
        key.peer_low = xs_mapped_low(k->ip + 12);
    return key;
}

/* One packet to one of several sockets: queued, or dropped for want of room. udp_rx.c */
void xs_udp_deliver(struct xs_udp *self, struct xs_batch *b, uint32_t i, struct xs_socket *s);
/* The same when its filter has been run: payload_len is what that has left of `ulen` bytes. udp_rx.c */
void xs_udp_deliver_filtered(struct xs_udp *self, struct xs_batch *b, uint32_t i, struct xs_socket *s,
                             uint32_t ulen);
/* A copy of a packet for one more socket: its index in the batch, or -1 when it was lost or dropped for want of frames, and
 * counted. udp_many.c */
int xs_udp_clone(struct xs_udp *self, struct xs_batch *b, uint32_t i);
/* A broadcast or multicast packet to every socket that takes it. udp_many.c */
void xs_udp_deliver_to_all(struct xs_udp *self, struct xs_batch *b, uint32_t i,
                           const struct xs_socket_table *t);

#endif
