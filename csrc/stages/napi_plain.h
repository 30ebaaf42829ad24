/* The packet that nearly all are, recognised by one look at its headers while they are at hand:
 *
 *      to our own MAC, untagged | IPv4 without options, or IPv6 from host to host without extension headers | UDP
 *
 * in one frame, no fragment, the IPv4 header checksum right, the lengths of Ethernet, IP and UDP in agreement. Nothing that
 * any stage up to the socket could object to but by its tables, or by the UDP checksum. When a whole batch is plain, napi.rx,
 * ip.rx, ip.local and udp.rx need not look at each header again (XS_ALL_PLAIN). What is not plain is no worse: each stage then
 * looks for itself, in the kernel's order.
 */
#ifndef XS_STAGES_NAPI_PLAIN_H
#define XS_STAGES_NAPI_PLAIN_H

#include "base/likely.h"
#include "include/xdpstack_stage.h"
#include "stages/napi_run.h"
#include "wire/eth.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/udp.h"

/* ---- what the headers say ---- */

static inline uint32_t xs_plain_load32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

/* A header without options has the sum of its five words a multiple of 0xffff: xs_ipv4_csum_ok(). */
static inline bool xs_plain_csum4(const uint8_t *l3) {
    uint64_t sum = 0;
    for (uint32_t at = 0; at < XS_IPV4_BYTES; at += 4) sum += xs_plain_load32(l3 + at);
    return sum % 0xffffu == 0;
}

/* `l3` has at least an IPv4 and a UDP header behind the ethertype that precedes it. */
static inline bool xs_plain4(const uint8_t *l3) {
    /* ethertype, version and length, TOS; and fragment, TTL, protocol: as loaded by a little-endian machine */
    return likely((xs_plain_load32(l3 - 2) & 0x00ffffffu) == 0x00450008u) &&
           likely((xs_plain_load32(l3 + XS_IPV4_FRAG) & 0xff00ff3fu) == (uint32_t)IPPROTO_UDP << 24) &&
           likely(xs_plain_csum4(l3));
}

/* `l3` has at least an IPv6 and a UDP header behind the ethertype. Neither address is loopback, mapped, unspecified or multicast. */
static inline bool xs_plain6(const uint8_t *l3) {
    uint64_t src_high, dst_high;
    memcpy(&src_high, xs_ipv6_src(l3), 8);
    memcpy(&dst_high, xs_ipv6_dst(l3), 8);
    return (xs_plain_load32(l3 - 2) & 0x00f0ffffu) == 0x0060dd86u && xs_ipv6_next(l3) == IPPROTO_UDP &&
           src_high && dst_high && (uint8_t)src_high != 0xff && (uint8_t)dst_high != 0xff &&
           (src_high & 0xc0ff) != 0x80fe;
}

/* ---- the descriptor it comes to ---- */

/* What is the same for all plain packets of a batch. */
struct xs_plain {
    struct xs_pkt fresh4, fresh6; /* the descriptor but for lengths, ports and TOS */
    uint64_t own;                 /* xs_mac_number() */
    uint32_t off;                 /* where in its frame a packet begins */
    bool ipv6;                    /* enabled on the device */
    bool partial;                 /* frames may come with only the pseudo header summed */
};

/* What is found out of a batch on the way. */
struct xs_plain_facts {
    const uint8_t *first; /* IP header of the first packet */
    uint64_t
        addresses; /* bits in which addresses differ from the first's: sources in the lower half, destinations in the upper */
    uint32_t ports;      /* and ports, likewise */
    uint32_t n, ipv6;    /* packets, and those of IPv6 */
    uint32_t padding;    /* bytes behind the IP packets */
    uint32_t unverified; /* packets whose checksum is not known to be right */
};

static inline uint32_t xs_plain_facts(const struct xs_plain_facts *f) {
    bool to_one = !(f->addresses >> 32 | f->ports >> 16) && (!f->ipv6 || f->ipv6 == f->n);
    bool one_flow = to_one && !f->addresses && !f->ports;
    return XS_ALL_PARSED | XS_ALL_PLAIN | (f->padding ? 0 : XS_ALL_TRIMMED) |
           (f->unverified ? 0 : XS_ALL_VERIFIED) | (to_one ? XS_ALL_TO_ONE : 0) |
           (one_flow ? XS_ALL_ONE_FLOW : 0);
}

static inline struct xs_pkt xs_plain_fresh(struct xs_pkt fresh, uint32_t off, uint32_t header,
                                           uint16_t l3_proto) {
    fresh.data_off = (uint16_t)off;
    fresh.l3_off = (uint16_t)(off + XS_ETH_BYTES);
    fresh.l4_off = (uint16_t)(off + XS_ETH_BYTES + header);
    fresh.payload_off = (uint16_t)(off + XS_ETH_BYTES + header + XS_UDP_BYTES);
    fresh.l3_proto = l3_proto;
    fresh.l4_proto = IPPROTO_UDP;
    fresh.pkt_type = XS_PACKET_HOST;
    return fresh;
}

/* `fresh` is the descriptor of any packet of the queue before anything is known of it. */
static inline void xs_plain_init(struct xs_plain *self, struct xs_pkt fresh, uint32_t off, const uint8_t *mac,
                                 bool ipv6, bool partial) {
    self->fresh4 = xs_plain_fresh(fresh, off, XS_IPV4_BYTES, XS_ETHERTYPE_IPV4);
    fresh.flags |= XS_PKT_IPV6;
    self->fresh6 = xs_plain_fresh(fresh, off, XS_IPV6_BYTES, XS_ETHERTYPE_IPV6);
    self->own = xs_mac_number(mac);
    self->off = off;
    self->ipv6 = ipv6;
    self->partial = partial;
}

/* Both lengths agree on `payload` bytes, and they are there. */
static inline bool xs_plain_fits(const uint8_t *uh, uint32_t payload, uint32_t room) {
    return payload <= room && xs_udp_length(uh) - XS_UDP_BYTES == payload;
}

static inline void xs_plain_write(struct xs_pkt *p, const struct xs_pkt *fresh, const uint8_t *uh,
                                  uint32_t len, uint32_t payload, uint8_t tos) {
    *p = *fresh;
    p->pkt_len = len;
    p->len = (uint16_t)len;
    p->payload_len = (uint16_t)payload;
    p->tos = tos;
    uint32_t ports = xs_get32(uh); /* the source port in the upper half; in memory it comes first */
    ports = ports << 16 | ports >> 16;
    memcpy(&p->sport, &ports, sizeof ports);
}

/* xs_pseudo_sum() of a datagram whose own length is the right one. */
static inline uint64_t xs_plain_pseudo(const uint8_t *src_dst, uint32_t addr_bytes, const uint8_t *uh) {
    uint16_t length;
    memcpy(&length, uh + XS_UDP_LENGTH, sizeof length);
    return xs_csum_add(length + (uint64_t)__builtin_bswap16(IPPROTO_UDP), src_dst, 2 * (size_t)addr_bytes);
}

/* Where two IPv4 packets' addresses and ports differ: they lie side by side, as loaded the source's is the lower half. */
static inline void xs_plain_compare4(struct xs_plain_facts *facts, const uint8_t *l3) {
    const uint8_t *a = l3 + XS_IPV4_SRC, *b = facts->first + XS_IPV4_SRC;
    facts->addresses |= xs_csum_load64(a) ^ xs_csum_load64(b);
    facts->ports |= xs_plain_load32(a + 8) ^ xs_plain_load32(b + 8);
}

static inline uint64_t xs_plain_differ16(const uint8_t *a, const uint8_t *b) {
    return (xs_csum_load64(a) ^ xs_csum_load64(b)) | (xs_csum_load64(a + 8) ^ xs_csum_load64(b + 8));
}

/* The first may be a shorter IPv4 packet: then nothing is read of it, and the batch is of more than one flow anyway. */
static inline void xs_plain_compare6(struct xs_plain_facts *facts, const uint8_t *l3) {
    if (unlikely(xs_ipv6_version(facts->first) != 6)) return;
    const uint8_t *a = l3 + XS_IPV6_SRC, *b = facts->first + XS_IPV6_SRC;
    uint64_t from = xs_plain_differ16(a, b) != 0, to = xs_plain_differ16(a + 16, b + 16) != 0;
    facts->addresses |= from | to << 32;
    facts->ports |= xs_plain_load32(a + 32) ^ xs_plain_load32(b + 32);
}

/* Fills the descriptor of a plain packet of `len` bytes at `eth`; false, and nothing done, when it is not one. */
static inline __attribute__((always_inline)) bool xs_plain_fill(const struct xs_plain *self, struct xs_pkt *p,
                                                                const uint8_t *eth, uint32_t len,
                                                                struct xs_plain_facts *facts) {
    const uint8_t *l3 = eth + XS_ETH_BYTES, *uh;
    uint32_t room = len - (XS_ETH_BYTES + XS_IPV4_BYTES + XS_UDP_BYTES), payload;
    uint64_t pseudo;
    if (unlikely((int32_t)room < 0 || xs_mac_number(eth) != self->own)) return false;
    if (likely(xs_plain4(l3))) {
        uh = l3 + XS_IPV4_BYTES;
        payload = xs_ipv4_total(l3) - (XS_IPV4_BYTES + XS_UDP_BYTES);
        if (unlikely(!xs_plain_fits(uh, payload, room))) return false;
        xs_plain_write(p, &self->fresh4, uh, len, payload, xs_ipv4_tos(l3));
        pseudo = xs_plain_pseudo(l3 + XS_IPV4_SRC, 4, uh);
        xs_plain_compare4(facts, l3);
    } else {
        room -= XS_IPV6_BYTES - XS_IPV4_BYTES;
        if (unlikely((int32_t)room < 0 || !self->ipv6 || !xs_plain6(l3))) return false;
        uh = l3 + XS_IPV6_BYTES;
        payload = xs_ipv6_payload(l3) - XS_UDP_BYTES;
        if (unlikely(!xs_plain_fits(uh, payload, room))) return false;
        xs_plain_write(p, &self->fresh6, uh, len, payload, xs_ipv6_traffic_class(l3));
        pseudo = xs_plain_pseudo(l3 + XS_IPV6_SRC, 16, uh);
        xs_plain_compare6(facts, l3);
        facts->ipv6++;
    }
    facts->padding += room - payload;
    if (likely(xs_udp_csum(uh))) {
        uint8_t csum = xs_udp_verify(uh, payload + XS_UDP_BYTES, pseudo, self->partial);
        if (likely(csum != XS_CSUM_BAD)) p->csum = csum; /* a bad one is left to udp.rx, as by a NIC */
        facts->unverified += csum != XS_CSUM_VERIFIED;
    } else {
        facts->unverified += p->l3_proto == XS_ETHERTYPE_IPV6; /* RFC 6935: the socket is asked */
    }
    return true;
}

#endif
