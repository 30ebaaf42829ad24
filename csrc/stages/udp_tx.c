/* udp.tx: the UDP header and its checksum. Contract: xdpstack/udp/layer.py.
 * Path: routing.tx > udp.tx > ip.tx. */
#include <netinet/in.h>

#include "base/csum_frames.h"
#include "base/likely.h"
#include "stages/udp.h"
#include "wire/udp.h"

/* Both addresses are summed as 16 bytes: a mapped IPv4 address is 0xffff more than the bare one, which is zero to a
 * one's complement sum. */
static inline __attribute__((always_inline)) uint64_t pseudo_sum(const struct xs_meta *m, uint32_t ulen) {
    uint8_t rest[4] = {0, IPPROTO_UDP, (uint8_t)(ulen >> 8), (uint8_t)ulen};
    uint64_t sum = xs_csum_add(0, m->src, 16);
    sum = xs_csum_add(sum, m->dst, 16);
    return xs_csum_add(sum, rest, 4);
}

static inline uint16_t checksum(const struct xs_batch *b, uint32_t i, const uint8_t *uh, uint32_t ulen) {
    const struct xs_pkt *p = xs_pkt(b, i);
    uint64_t sum = pseudo_sum(xs_meta(b, i), ulen);
    if (likely(p->frag == XS_NO_FRAME))
        sum = xs_csum_add(sum, uh, ulen);
    else
        sum = xs_csum_add_frames(sum, b->mem, b->frame[i], p->l4_off, ulen);
    uint16_t field = xs_csum_finish(sum);
    return field ? field : 0xffff; /* zero would mean that there is none (RFC 768) */
}

/* udp4_hwcsum(), udp6_hwcsum_outgoing(): the device goes on from the sum of the pseudo-header. */
static __attribute__((noinline)) void leave_checksum(const struct xs_batch *b, uint32_t i, uint8_t *uh,
                                                     uint32_t ulen) {
    struct xs_pkt *p = xs_pkt(b, i);
    xs_udp_put_csum(uh, xs_csum_fold(pseudo_sum(xs_meta(b, i), ulen)));
    p->csum = XS_CSUM_PARTIAL;
    p->pkt_type = XS_PACKET_OUTGOING; /* and not received so */
}

/* Compiled for each, so that one is not the slower for the other. */
static inline __attribute__((always_inline)) void transmit(struct xs_batch *b, bool leaves) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < b->n; i++) {
        struct xs_pkt *p = xs_pkt(b, i);
        uint32_t ulen = p->payload_len + XS_UDP_BYTES;
        p->data_off = p->l4_off = p->payload_off - XS_UDP_BYTES;
        p->len = (uint16_t)(p->len + XS_UDP_BYTES);
        p->pkt_len += XS_UDP_BYTES;
        p->l4_proto = IPPROTO_UDP;
        uint8_t *uh = xs_data(b, i) + p->l4_off;
        xs_udp_write(uh, p->sport, p->dport, (uint16_t)ulen);
        if (leaves) {
            leave_checksum(b, i, uh, ulen);
        } else {
            xs_udp_put_csum(uh, checksum(b, i, uh, ulen));
            p->csum = XS_CSUM_VERIFIED;
        }
        bytes += p->payload_len;
        b->next[i] = XS_UDP_TX_OUTPUT;
    }
    b->count[XS_UDP_TX_BYTES] += bytes;
}

void xs_udp_tx(struct xs_udp *self, struct xs_batch *b) {
    if (unlikely(self->leaves_checksum))
        transmit(b, true);
    else
        transmit(b, false);
}

const struct xs_stage_def xs_udp_tx_def = {
    .name = "udp.tx",
    .fn = (xs_stage_fn *)xs_udp_tx,
    .edges = {"output"},
    .counters = {"bytes"},
};
