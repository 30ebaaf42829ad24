/* udp.rx: header, checksum, socket, receive queue. Contract: xdpstack/udp/layer.py. What each check means, in plain words
 * and in the same order: xdpstack/udp/semantics.py. */
#include "stages/udp.h"

#include <unistd.h>

#include "base/csum.h"
#include "wire/wire.h"

#define PROTO_UDP 17u

/* A 16-bit value as it would be loaded from a packet. */
static inline uint16_t as_loaded(uint32_t v) {
    uint8_t b[2] = {(uint8_t)(v >> 8), (uint8_t)v};
    uint16_t out;
    memcpy(&out, b, 2);
    return out;
}

static inline uint16_t load16(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}

/* ---- checksum ---- */

/* The sum of the pseudo header (RFC 768, RFC 8200 8.1): addresses, protocol, length. */
static inline uint64_t pseudo_sum(const uint8_t *ip, bool ipv6, uint32_t ulen) {
    uint64_t sum = (uint64_t)as_loaded(PROTO_UDP) + as_loaded(ulen);
    return ipv6 ? xs_csum_add(sum, ip + 8, 32) : xs_csum_add(sum, ip + 12, 8);
}

/* Adds `bytes` of a packet of several frames, from `off` in its first frame on. A frame that begins at an odd byte of the
 * packet adds its bytes the other way round (RFC 1071, 2 B). */
static uint64_t add_frames(const struct xs_mem *mem, uint32_t frame, uint32_t off, uint32_t bytes,
                           uint64_t sum) {
    bool odd = false;
    while (frame != XS_NO_FRAME && bytes) {
        const struct xs_pkt *p = &mem->pkt[frame];
        uint32_t here = (uint32_t)p->data_off + p->len - off;
        if (here > bytes) here = bytes;
        uint16_t part = xs_csum_fold(xs_csum_add(0, xs_frame_data(mem, frame) + off, here));
        sum += odd ? (uint16_t)(part << 8 | part >> 8) : part;
        odd ^= here & 1;
        bytes -= here;
        frame = p->frag;
        if (frame != XS_NO_FRAME) off = mem->pkt[frame].data_off;
    }
    return sum;
}

/* The state of the checksum of one packet that carries one (the field is not zero). */
static inline uint8_t checksum(const struct xs_batch *b, uint32_t i, const struct xs_pkt *p,
                               const uint8_t *uh, uint32_t ulen, bool partial) {
    uint64_t sum = pseudo_sum(xs_data(b, i) + p->l3_off, p->flags & XS_PKT_IPV6, ulen);
    /* a local sender left it to the device: the field is the folded pseudo-header sum, the payload was never summed */
    if (partial && load16(uh + 6) == xs_csum_fold(sum)) return XS_CSUM_PARTIAL;
    if (__builtin_expect(p->frag == XS_NO_FRAME, 1))
        sum = xs_csum_add(sum, uh, ulen);
    else
        sum = add_frames(b->mem, b->frame[i], p->l4_off, ulen, sum);
    return xs_csum_fold(sum) == 0xffff ? XS_CSUM_VERIFIED : XS_CSUM_BAD;
}

/* ---- header ---- */

/* Checks length and checksum, and sets ports, payload and csum. Returns 0 or why the packet is dropped. */
static inline uint16_t check(const struct xs_batch *b, uint32_t i, struct xs_pkt *p,
                             const struct xs_config *config) {
    const uint8_t *uh = xs_data(b, i) + p->l4_off;
    uint32_t before = (uint32_t)p->l4_off - p->data_off;
    bool ipv6 = p->flags & XS_PKT_IPV6;
    if (p->len < before + XS_UDP_HEADER_BYTES) return XS_REASON_PKT_TOO_SMALL;
    uint32_t have = p->pkt_len - before; /* up to the end of the IP packet: ip.rx trimmed what is behind */
    uint32_t ulen = xs_get16(uh + 4);
    if (ulen == 0 && ipv6)
        ulen = have; /* as for a jumbogram (RFC 2675), which Linux does not check further */
    if (ulen > have || ulen < XS_UDP_HEADER_BYTES) return XS_REASON_PKT_TOO_SMALL;
    p->sport = xs_get16(uh);
    p->dport = xs_get16(uh + 2);
    p->payload_off = p->l4_off + XS_UDP_HEADER_BYTES;
    p->payload_len = (uint16_t)(ulen - XS_UDP_HEADER_BYTES);
    if (p->csum == XS_CSUM_NONE && load16(uh + 6)) {
        bool partial = config->device[p->device].flags & XS_DEV_PARTIAL_CSUM;
        p->csum = checksum(b, i, p, uh, ulen, partial);
        if (p->csum == XS_CSUM_PARTIAL) b->count[XS_UDP_RX_PARTIAL]++;
    }
    return p->csum == XS_CSUM_BAD ? XS_REASON_UDP_CSUM : 0;
}

/* No checksum at all: over IPv4 the sender may (RFC 768), over IPv6 only the socket can allow it (RFC 6935). */
static inline bool refuses(const struct xs_socket *s, const struct xs_batch *b, uint32_t i) {
    const struct xs_pkt *p = xs_pkt(b, i);
    return p->flags & XS_PKT_IPV6 && !load16(xs_data(b, i) + p->l4_off + 6) &&
           !(atomic_load_explicit(&s->flags, memory_order_relaxed) & XS_SOCKET_NO_CHECK6_RX);
}

static inline void destination(const struct xs_batch *b, uint32_t i, const struct xs_pkt *p, uint64_t *high,
                               uint64_t *low) {
    const uint8_t *ip = xs_data(b, i) + p->l3_off;
    if (p->flags & XS_PKT_IPV6) {
        xs_load_address(ip + 24, high, low);
    } else {
        *high = 0;
        *low = xs_mapped_low(ip + 16);
    }
}

static inline struct xs_socket_key key_of(const struct xs_batch *b, uint32_t i, const struct xs_pkt *p) {
    const uint8_t *ip = xs_data(b, i) + p->l3_off;
    struct xs_socket_key k = {.port = p->dport, .peer_port = p->sport, .device = p->device, .family = 4};
    destination(b, i, p, &k.high, &k.low);
    if (p->flags & XS_PKT_IPV6) {
        k.family = 6;
        xs_load_address(ip + 8, &k.peer_high, &k.peer_low);
    } else {
        k.peer_low = xs_mapped_low(ip + 12);
    }
    return k;
}

/* ---- delivery ---- */

static inline void stamp(struct xs_udp *self, const struct xs_batch *b, uint32_t i,
                         const struct xs_socket *s) {
    if (!(atomic_load_explicit(&s->flags, memory_order_relaxed) & XS_SOCKET_STAMP)) return;
    xs_meta(b, i)->stamp_ns = b->now_ns + self->stamp_offset_ns;
}

/* A link-local peer is only named together with the device it is on (sin6_scope_id). */
static inline void note_scope(struct xs_udp *self, const struct xs_batch *b, uint32_t i,
                              const struct xs_pkt *p) {
    const uint8_t *source = xs_data(b, i) + p->l3_off + 8;
    if (source[0] != 0xfe || (source[1] & 0xc0) != 0x80) return;
    xs_meta(b, i)->scratch[0] = xs_table(self->tables, config)->device[p->device].ifindex;
}

static inline void deliver(struct xs_udp *self, struct xs_batch *b, uint32_t i, struct xs_socket *s) {
    struct xs_pkt *p = xs_pkt(b, i);
    bool ipv6 = p->flags & XS_PKT_IPV6;
    if (ipv6) note_scope(self, b, i, p);
    uint16_t why =
        xs_inbox_put(self->inbox, s, b->frame[i], xs_truesize(p->payload_len + XS_UDP_HEADER_BYTES, ipv6));
    if (__builtin_expect(why, 0)) {
        xs_drop(b, i, why);
        return;
    }
    stamp(self, b, i, s);
    b->next[i] = XS_KEPT;
    b->ledger->delivered++;
    b->count[XS_UDP_RX_BYTES] += p->payload_len;
}

/* Another socket wants the packet too: it gets a copy, as skb_clone() gives it one. The copy has all that the reader looks
 * at: the headers and the payload, over as many frames. */
static bool clone_for(struct xs_udp *self, struct xs_batch *b, uint32_t i, struct xs_socket *s) {
    int at = xs_emit(b, XS_KEPT);
    if (at < 0) return false;
    const struct xs_mem *mem = self->mem;
    uint32_t from = b->frame[i], to = b->frame[at];
    for (;;) {
        struct xs_pkt *p = &mem->pkt[to];
        *p = mem->pkt[from];
        p->frag = XS_NO_FRAME;
        memcpy(xs_frame_data(mem, to) + p->data_off, xs_frame_data(mem, from) + p->data_off, p->len);
        mem->meta[to] = mem->meta[from];
        from = mem->pkt[from].frag;
        if (from == XS_NO_FRAME) break;
        uint32_t next = xs_pool_get(self->pool, mem);
        if (next == XS_NO_FRAME) {
            xs_drop(b, (uint32_t)at, XS_REASON_NOMEM);
            return false;
        }
        p->frag = next;
        to = next;
    }
    deliver(self, b, (uint32_t)at, s);
    b->count[XS_UDP_RX_CLONES]++;
    return true;
}

/* IP_MULTICAST_ALL is on, so that no socket need have joined; but never on an IPv6 socket for an IPv4 group. */
static inline bool not_joined(const struct xs_socket_entry *e, const struct xs_batch *b, uint32_t i) {
    const struct xs_pkt *p = xs_pkt(b, i);
    return e->family == 6 && !(p->flags & XS_PKT_IPV6) && xs_data(b, i)[p->l3_off + 16] >> 4 == 0xe;
}

/* __udp4_lib_mcast_deliver(): every socket that takes it gets one; the last one the packet itself. */
static void deliver_to_all(struct xs_udp *self, struct xs_batch *b, uint32_t i,
                           const struct xs_socket_table *t) {
    struct xs_socket_key k = key_of(b, i, xs_pkt(b, i));
    struct xs_socket *previous = NULL;
    uint64_t any = xs_wildcard_low(k.family);
    const struct xs_socket_slot *slot[2] = {
        xs_socket_slot(t, xs_socket_hash(t, k.high, k.low, k.port), k.high, k.low, k.port),
        xs_socket_slot(t, xs_socket_hash(t, 0, any, k.port), 0, any, k.port),
    };
    for (uint32_t which = 0; which < 2; which++) {
        for (uint32_t j = 0; slot[which] && j < slot[which]->n; j++) {
            const struct xs_socket_entry *e = &t->entry[slot[which]->first + j];
            if (xs_socket_score(e, &k) < 0 || not_joined(e, b, i) || refuses(e->socket, b, i)) continue;
            if (previous && !clone_for(self, b, i, previous)) b->count[XS_UDP_RX_CLONES_LOST]++;
            previous = e->socket;
        }
    }
    if (previous)
        deliver(self, b, i, previous);
    else
        xs_drop(b, i, XS_REASON_NO_SOCKET);
}

static inline void deliver_to_one(struct xs_udp *self, struct xs_batch *b, uint32_t i,
                                  const struct xs_socket_table *t, uint32_t hash) {
    struct xs_pkt *p = xs_pkt(b, i);
    uint64_t high, low;
    destination(b, i, p, &high, &low);
    const struct xs_socket_slot *slot = xs_socket_slot(t, hash, high, low, p->dport);
    struct xs_socket *s;
    if (__builtin_expect(slot && slot->only, 1)) {
        s = slot->only;
    } else {
        struct xs_socket_key k = key_of(b, i, p);
        s = xs_socket_lookup(t, hash, &k);
    }
    if (!s)
        xs_drop(b, i, XS_REASON_NO_SOCKET);
    else if (__builtin_expect(refuses(s, b, i), 0))
        xs_drop(b, i, XS_REASON_UDP_CSUM);
    else
        deliver(self, b, i, s);
}

void xs_udp_rx(struct xs_udp *self, struct xs_batch *b) {
    const struct xs_socket_table *t = xs_table(self->tables, sockets);
    const struct xs_config *config = xs_table(self->tables, config);
    uint32_t hash[XS_BATCH_CAP], n = b->n; /* clones are appended behind n */
    self->busy = true;
    for (uint32_t i = 0; i < n; i++) {
        struct xs_pkt *p = xs_pkt(b, i);
        uint16_t why = check(b, i, p, config);
        b->next[i] = XS_KEPT;
        if (__builtin_expect(why || !t, 0)) {
            xs_drop(b, i, why ? why : XS_REASON_NO_SOCKET);
            continue;
        }
        uint64_t high, low;
        destination(b, i, p, &high, &low);
        hash[i] = xs_socket_hash(t, high, low, p->dport);
        __builtin_prefetch(&t->slot[hash[i] & t->mask]);
    }
    for (uint32_t i = 0; i < n; i++) {
        if (b->next[i] == XS_DROP) continue;
        if (__builtin_expect(xs_pkt(b, i)->flags & (XS_PKT_ROUTED_BROADCAST | XS_PKT_ROUTED_MULTICAST), 0))
            deliver_to_all(self, b, i, t);
        else
            deliver_to_one(self, b, i, t, hash[i]);
    }
}
