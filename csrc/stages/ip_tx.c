/* ip.tx: puts the IP header before what this host sends. Contract: xdpstack/stages/ip.py.
 * Mirrors __ip_make_skb, ip_select_ident, ip_local_out, __ip6_make_skb, ip6_make_flowlabel.
 * Path: udp.tx > ip.tx > neigh.tx. */
#include "stages/ip.h"

#include <errno.h>
#include <unistd.h>

#include "base/likely.h"
#include "base/siphash.h"
#include "tables/fib.h"
#include "wire/eth.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

/* ---- numbers that nobody outside can guess ---- */

/* xorshift64*, of Vigna: for jumps, which need not be unguessable one by one. */
static inline uint32_t next_random(struct xs_ip *self) {
    uint64_t x = self->random;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    self->random = x;
    return (uint32_t)(x * 0x2545f4914f6cdd1du >> 32);
}

int xs_ip_init(struct xs_ip *self, const struct xs_tables *tables, struct xs_pool *pool,
               const struct xs_ip *first) {
    *self = (struct xs_ip){.tables = tables, .pool = pool};
    if (getentropy(self->secret, sizeof self->secret) || getentropy(&self->random, sizeof self->random))
        return -errno;
    if (first) memcpy(self->secret, first->secret, sizeof self->secret);
    self->random |= 1; /* the generator stays at zero */
    for (uint32_t i = 0; i < XS_IP_IDENTS; i++) self->ident[i].id = next_random(self);
    return 0;
}

/* __ip_select_ident, ip_idents_reserve: the next id of the counter that this pair of addresses has. */
static uint16_t select_ident(struct xs_ip *self, const struct xs_pkt *p, const struct xs_meta *m,
                             uint32_t now_ms) {
    uint64_t word[2] = {(uint64_t)xs_addr_get4(m->src) << 32 | xs_addr_get4(m->dst), p->l4_proto};
    struct xs_ip_ident *ident = &self->ident[xs_siphash(self->secret, word, 2) & (XS_IP_IDENTS - 1)];
    uint32_t idle_ms = now_ms - ident->used_ms;
    ident->used_ms = now_ms;
    if (idle_ms) ident->id += (uint32_t)((uint64_t)idle_ms * next_random(self) >> 32); /* below idle_ms */
    ident->id++;
    return (uint16_t)ident->id;
}

/* ip6_make_flowlabel, with net.ipv6.auto_flowlabels at its default: the same for all packets of a flow. RFC 6437. */
static uint32_t flow_label(const struct xs_ip *self, const struct xs_pkt *p, const struct xs_meta *m) {
    uint64_t word[5];
    memcpy(word, m->src, 16);
    memcpy(word + 2, m->dst, 16);
    word[4] = (uint64_t)p->sport << 32 | (uint64_t)p->dport << 16 | p->l4_proto;
    return (uint32_t)xs_siphash(self->secret, word, 5) & XS_IPV6_FLOW_LABEL;
}

/* ---- the headers ---- */

/* Makes room for `bytes` before the transport header; they become the start of the packet. */
static inline uint8_t *push(const struct xs_mem *mem, uint32_t frame, uint32_t bytes) {
    struct xs_pkt *p = &mem->pkt[frame];
    uint32_t start = p->data_off - bytes;
    p->data_off = p->l3_off = (uint16_t)start;
    p->len = (uint16_t)(p->len + bytes);
    p->pkt_len += bytes;
    return xs_frame_data(mem, frame) + start;
}

/* What the route says of the way, or else the device: dst_mtu(), ip4_dst_hoplimit(), ip6_dst_hoplimit(). */
struct way {
    uint32_t mtu; /* the smaller of both: what is larger is the kernel's */
    uint8_t ttl, hop_limit;
    bool mtu_locked;
};

static inline struct way way_of(const struct xs_fib *fib, const struct xs_device_config *device,
                                uint32_t nexthop) {
    struct way way = {.mtu = device->mtu, .ttl = device->ttl, .hop_limit = device->hop_limit};
    const struct xs_nexthop *hop = xs_fib_nexthop(fib, nexthop);
    if (!hop || !hop->id) return way; /* a packet that was not routed, or whose route has gone meanwhile */
    if (hop->mtu && hop->mtu < way.mtu) way.mtu = hop->mtu;
    if (hop->hop_limit) way.ttl = way.hop_limit = hop->hop_limit;
    way.mtu_locked = hop->flags & XS_NEXTHOP_MTU_LOCKED;
    return way;
}

/* ip_dont_fragment(): IP_PMTUDISC_WANT, the default, sets DF unless the route's MTU is locked. */
static inline bool may_fragment(const struct xs_pkt *p, const struct way *way) {
    return p->flags & XS_PKT_NO_DF || (way->mtu_locked && !(p->flags & XS_PKT_DF));
}

static inline void write4(struct xs_ip *self, const struct xs_mem *mem, uint32_t frame, const struct way *way,
                          uint32_t now_ms) {
    struct xs_pkt *p = &mem->pkt[frame];
    const struct xs_meta *m = &mem->meta[frame];
    struct xs_ipv4_values v = {
        .total = (uint16_t)(p->pkt_len + XS_IPV4_BYTES),
        .id = p->flags & XS_PKT_DF ? 0 : select_ident(self, p, m, now_ms), /* ip_sk_ignore_df() */
        .frag = may_fragment(p, way) ? 0 : XS_IPV4_DF,
        .tos = p->tos,
        .ttl = m->ttl ? m->ttl : way->ttl,
        .protocol = p->l4_proto,
        .src = m->src,
        .dst = m->dst,
    };
    p->l3_proto = XS_ETHERTYPE_IPV4;
    xs_ipv4_write(push(mem, frame, XS_IPV4_BYTES), &v);
}

static inline void write6(struct xs_ip *self, const struct xs_mem *mem, uint32_t frame,
                          const struct way *way) {
    struct xs_pkt *p = &mem->pkt[frame];
    const struct xs_meta *m = &mem->meta[frame];
    struct xs_ipv6_values v = {
        .flow_label = flow_label(self, p, m),
        .payload = (uint16_t)p->pkt_len,
        .traffic_class = p->tos,
        .hop_limit = m->ttl ? m->ttl : way->hop_limit,
        .next = p->l4_proto,
        .src = m->src,
        .dst = m->dst,
    };
    p->l3_proto = XS_ETHERTYPE_IPV6;
    xs_ipv6_write(push(mem, frame, XS_IPV6_BYTES), &v);
}

void xs_ip_tx(struct xs_ip *self, struct xs_batch *b) {
    const struct xs_config *config = xs_table(self->tables, config);
    const struct xs_fib *fib = xs_table(self->tables, fib);
    const struct xs_mem mem = *b->mem; /* a copy: no store to a packet can change it */
    uint32_t n = b->n, now_ms = (uint32_t)(b->now_ns / 1000000u);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t frame = b->frame[i];
        const struct xs_pkt *p = &mem.pkt[frame];
        struct way way = way_of(fib, &config->device[p->device], p->nexthop);
        if (unlikely(self->paths->any))
            way.mtu = xs_path_mtu_bound(self->paths, xs_addr_load(mem.meta[frame].dst), way.mtu, b->now_ns);
        bool ipv6 = p->flags & XS_PKT_IPV6;
        if (p->pkt_len + (ipv6 ? XS_IPV6_BYTES : XS_IPV4_BYTES) > way.mtu) {
            xs_drop(b, i,
                    XS_REASON_TX_FRAGMENT); /* the shadow socket fragments it, or has the error for it */
            continue;
        }
        if (ipv6)
            write6(self, &mem, frame, &way);
        else
            write4(self, &mem, frame, &way, now_ms);
        b->next[i] = XS_IP_TX_OUTPUT;
    }
}

const struct xs_stage_def xs_ip_tx_def = {
    .name = "ip.tx",
    .fn = (xs_stage_fn *)xs_ip_tx,
    .edges = {"output"},
    .counters = {0},
};
