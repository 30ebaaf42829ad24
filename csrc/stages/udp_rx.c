/* udp.rx: socket, receive queue; before that header and checksum, of packets of which napi.rx has not said that they are right
 * (XS_ALL_PLAIN, XS_ALL_VERIFIED). Contract: xdpstack/udp/layer.py. What each check means, in plain words
 * and in the same order: xdpstack/udp/semantics.py. What is queued (tables/inbox.h) readers see when the poll ends
 * (udp_tick.c), and take by views/receive.c. Datagrams to many sockets: udp_many.c; in a run to one: udp_decided.c.
 * Path: ip.local > udp.rx. */
#include <netinet/in.h>

#include "base/csum_frames.h"
#include "stages/udp_look.h"

#define MANY_SLOTS 1024u /* a table larger than this is not in the cache: its slots are fetched ahead */

/* Counted in registers, added to the counters once per batch. */
struct sums {
    uint64_t bytes, delivered, partial;
};

/* ---- checksum ---- */

/* The sum of the pseudo header (RFC 768, RFC 8200 8.1): addresses, protocol, length. */
static inline uint64_t pseudo_sum(const struct look *k) {
    return k->ipv6 ? xs_pseudo_sum(k->ip + 8, 16, IPPROTO_UDP, k->ulen)
                   : xs_pseudo_sum(k->ip + 12, 4, IPPROTO_UDP, k->ulen);
}

/* The state of a checksum that is there (the field is not zero). */
static inline uint8_t checksum(const struct xs_batch *b, const struct look *k, bool partial) {
    uint64_t sum = pseudo_sum(k);
    if (likely(k->p->frag == XS_NO_FRAME)) return xs_udp_verify(k->uh, k->ulen, sum, partial);
    if (partial && xs_udp_csum(k->uh) == xs_csum_fold(sum)) return XS_CSUM_PARTIAL;
    sum = xs_csum_add_frames(sum, b->mem, b->frame[k->i], k->p->l4_off, k->ulen);
    return xs_csum_is_right(sum) ? XS_CSUM_VERIFIED : XS_CSUM_BAD;
}

/* ---- header ---- */

/* Bytes before the UDP header, and whether all of it is in the first frame. */
static inline uint32_t before_header(const struct xs_pkt *p) { return (uint32_t)p->l4_off - p->data_off; }
static inline bool has_header(const struct xs_pkt *p) { return p->len >= before_header(p) + XS_UDP_BYTES; }

/* Checks the length, and sets ports and payload. */
static inline uint16_t check_header(struct look *k) {
    struct xs_pkt *p = k->p;
    if (unlikely(!has_header(p))) return XS_REASON_PKT_TOO_SMALL;
    /* up to the end of the IP packet: ip.rx trimmed what is behind */
    uint32_t have = p->pkt_len - before_header(p);
    k->ulen = xs_udp_length(k->uh);
    /* as for a jumbogram (RFC 2675), which Linux does not check further */
    if (unlikely(k->ulen == 0 && k->ipv6)) k->ulen = have;
    if (unlikely(k->ulen > have || k->ulen < XS_UDP_BYTES)) return XS_REASON_PKT_TOO_SMALL;
    p->sport = xs_udp_sport(k->uh);
    p->dport = xs_udp_dport(k->uh);
    p->payload_off = p->l4_off + XS_UDP_BYTES;
    p->payload_len = (uint16_t)(k->ulen - XS_UDP_BYTES);
    return 0;
}

/* Header and checksum. Returns 0 or why the packet is dropped. */
static inline __attribute__((always_inline)) uint16_t check(const struct xs_batch *b, struct look *k,
                                                            bool plain, const struct xs_config *config,
                                                            struct sums *sums) {
    struct xs_pkt *p = k->p;
    if (plain) {
        k->ulen = p->payload_len + XS_UDP_BYTES;
    } else {
        uint16_t why = check_header(k);
        if (unlikely(why)) return why;
    }
    if (p->csum == XS_CSUM_NONE && xs_udp_csum(k->uh))
        p->csum = checksum(b, k, config->device[p->device].flags & XS_DEV_PARTIAL_CSUM);
    sums->partial += p->csum == XS_CSUM_PARTIAL;
    return unlikely(p->csum == XS_CSUM_BAD) ? XS_REASON_UDP_CSUM : 0;
}

/* ---- delivery ---- */

static inline bool is_link_local(const uint8_t *address) {
    return address[0] == 0xfe && (address[1] & 0xc0) == 0x80;
}

/* A link-local peer is only named together with the device it is on (sin6_scope_id). */
static inline void note_scope(struct xs_udp *self, const struct xs_batch *b, const struct look *k) {
    if (!is_link_local(k->ip + 8)) return;
    xs_meta(b, k->i)->scratch[0] = xs_table(self->tables, config)->device[k->p->device].ifindex;
}

/* sk_filter_trim_cap(): what the socket's filter leaves of the payload; false when it refuses the datagram. */
static __attribute__((noinline)) bool filtered(struct xs_udp *self, const struct xs_batch *b, uint32_t i,
                                               struct xs_socket *s) {
    struct look k = look_again(b, i);
    const struct xs_filter *filter = atomic_load_explicit(&s->filter, memory_order_acquire);
    if (!filter) return true; /* it is just being attached, or was just detached */
    struct xs_filter_packet packet = {.mem = b->mem,
                                      .frame = b->frame[i],
                                      .length = k.ulen,
                                      .ifindex = xs_table(self->tables, config)->device[k.p->device].ifindex};
    uint32_t keep = xs_filter_run(filter, &packet);
    if (!keep) return false;
    if (keep < XS_UDP_BYTES) keep = XS_UDP_BYTES; /* the header is never cut */
    if (keep < k.ulen) k.p->payload_len = (uint16_t)(keep - XS_UDP_BYTES);
    return true;
}

/* What a socket has asked to have noted with each datagram: when it came, and what was refused before it
 * (sock_skb_set_dropcount()). The reader sees it with the next flush. */
static __attribute__((noinline)) void mark(struct xs_udp *self, const struct xs_batch *b, uint32_t i,
                                           const struct xs_socket *s, uint32_t flags) {
    struct xs_meta *m = xs_meta(b, i);
    if (flags & XS_SOCKET_STAMP) m->stamp_ns = b->now_ns + self->stamp_offset_ns;
    if (flags & XS_SOCKET_RXQ_OVFL) m->scratch[1] = xs_socket_drops(s);
}

static inline __attribute__((always_inline)) void deliver(struct xs_udp *self, struct xs_batch *b,
                                                          const struct look *k, struct xs_socket *s,
                                                          uint32_t flags, struct sums *sums) {
    if (k->ipv6) note_scope(self, b, k);
    if (unlikely(flags & XS_SOCKET_FILTER) && !filtered(self, b, k->i, s)) {
        refuse(self, b, k->i, s);
        return;
    }
    uint16_t why = xs_inbox_put(self->inbox, s, b->frame[k->i], xs_truesize(k->ulen, k->ipv6));
    if (unlikely(why)) {
        xs_drop(b, k->i, why);
        return;
    }
    if (unlikely(flags & XS_SOCKET_MARKS)) mark(self, b, k->i, s, flags);
    sums->delivered++;
    sums->bytes += k->ulen - XS_UDP_BYTES;
}

void xs_udp_deliver(struct xs_udp *self, struct xs_batch *b, uint32_t i, struct xs_socket *s) {
    struct look k = look_again(b, i);
    struct sums sums = {0};
    deliver(self, b, &k, s, flags_of(s), &sums);
    b->ledger->delivered += sums.delivered;
    b->count[XS_UDP_RX_BYTES] += sums.bytes;
}

void xs_udp_deliver_filtered(struct xs_udp *self, struct xs_batch *b, uint32_t i, struct xs_socket *s,
                             uint32_t ulen) {
    struct look k = look_again(b, i);
    k.ulen = ulen;
    struct sums sums = {0};
    deliver(self, b, &k, s, flags_of(s) & ~(uint32_t)XS_SOCKET_FILTER, &sums);
    b->ledger->delivered += sums.delivered;
    b->count[XS_UDP_RX_BYTES] += sums.bytes;
}

/* ---- which socket ---- */

/* Where the packet before was looked for, and the run of packets to its socket: the next one is often for the same. A run is
 * of packets that the socket takes without looking at them; it is open while `run.feed` is set, and `slot` is its key's. */
struct search {
    const struct xs_socket_table *table;
    const struct xs_socket_slot *slot;
    struct xs_inbox_run run;
};

static void end_run(struct xs_udp *self, struct search *search, struct sums *sums) {
    sums->delivered += xs_inbox_end(self->inbox, &search->run);
}

/* The packet is no part of a run, or begins one. */
static __attribute__((noinline)) void deliver_to_one(struct xs_udp *self, struct xs_batch *b, uint32_t i,
                                                     struct search *search, struct sums *sums) {
    struct look k = look_again(b, i);
    struct xs_socket_key key = key_of(b, &k);
    uint32_t hash = xs_socket_hash(search->table, key.high, key.low, key.port);
    const struct xs_socket_slot *slot = &search->table->slot[hash];
    bool only = slot->only && !key.vlan && xs_socket_slot_is(slot, key.high, key.low, key.port);
    struct xs_socket *s = only ? slot->only : xs_socket_lookup(search->table, hash, &key);
    end_run(self, search, sums);
    if (unlikely(!s)) {
        xs_drop(b, i, XS_REASON_NO_SOCKET);
        return;
    }
    uint32_t flags = flags_of(s);
    if (unlikely(refuses(flags, &k))) {
        xs_drop(b, i, XS_REASON_UDP_CSUM);
        return;
    }
    deliver(self, b, &k, s, flags, sums);
    if (!only || flags & (XS_SOCKET_FILTER | XS_SOCKET_MARKS)) return;
    search->slot = slot;
    xs_inbox_begin(self->inbox, s, &search->run);
}

/* The packet goes where the one before went, and there is room. */
static inline __attribute__((always_inline)) bool joins_run(struct xs_udp *self, const struct xs_batch *b,
                                                            const struct look *k, bool plain,
                                                            struct search *search) {
    uint64_t high, low;
    if (!plain && unlikely(k->p->flags & XS_PKT_VLAN)) return false;
    destination(k, &high, &low);
    if (unlikely(!search->run.feed || !xs_socket_slot_is(search->slot, high, low, k->p->dport))) return false;
    if (k->ipv6) {
        if (unlikely(!xs_udp_csum(k->uh))) return false; /* not every socket takes it without a checksum */
        note_scope(self, b, k);
    }
    return k->p->frag == XS_NO_FRAME &&
           xs_inbox_add(&search->run, k->p, b->frame[k->i], xs_truesize(k->ulen, k->ipv6));
}

/* ---- the stage ---- */

/* Asks for the slots of a large table, so that they have come when they are looked at. */
static void fetch_slots(const struct xs_batch *b, const struct xs_socket_table *t) {
    for (uint32_t i = 0; i < b->n; i++) {
        struct look k = look_at(b->mem, b, i, is_ipv6(b, i));
        if (!has_header(k.p)) continue;
        uint64_t high, low;
        destination(&k, &high, &low);
        __builtin_prefetch(&t->slot[xs_socket_hash(t, high, low, xs_udp_dport(k.uh))]);
    }
}

/* One packet. Compiled once for each family, and for plain packets (XS_ALL_PLAIN), so that nothing is asked at every step. */
static inline __attribute__((always_inline)) void receive(struct xs_udp *self, struct xs_batch *b,
                                                          const struct xs_mem *mem, uint32_t i, bool ipv6,
                                                          bool plain, struct search *search,
                                                          const struct xs_config *config, struct sums *sums) {
    struct look k = look_at(mem, b, i, ipv6);
    uint16_t why = check(b, &k, plain, config, sums);
    if (unlikely(why)) {
        xs_drop(b, i, why);
    } else if (unlikely(k.p->flags & (XS_PKT_ROUTED_BROADCAST | XS_PKT_ROUTED_MULTICAST))) {
        end_run(self, search, sums);
        xs_udp_deliver_to_all(self, b, i, search->table);
    } else if (likely(joins_run(self, b, &k, plain, search))) {
        sums->bytes += k.ulen - XS_UDP_BYTES;
    } else {
        deliver_to_one(self, b, i, search, sums);
    }
}

static inline __attribute__((always_inline)) void receive_all(struct xs_udp *self, struct xs_batch *b,
                                                              bool plain, const struct xs_socket_table *t,
                                                              struct sums *sums) {
    const struct xs_config *config = xs_table(self->tables, config);
    const struct xs_mem mem = *b->mem;
    struct search search = {.table = t};
    uint32_t n = b->n; /* clones are appended behind */
    for (uint32_t i = 0; i < n; i++) {
        if (mem.pkt[b->frame[i]].flags & XS_PKT_IPV6)
            receive(self, b, &mem, i, true, plain, &search, config, sums);
        else
            receive(self, b, &mem, i, false, plain, &search, config, sums);
    }
    end_run(self, &search, sums);
}

/* The first begins a run, which the others join. */
static void receive_run(struct xs_udp *self, struct xs_batch *b, const struct xs_socket_table *t,
                        struct sums *sums) {
    struct xs_pkt *pkts = b->mem->pkt;
    struct search search = {.table = t};
    struct xs_inbox_run run = {0}; /* a copy of the search's, in registers; this one has no room */
    uint32_t n = b->n;
    uint64_t bytes = 0;
    bool ipv6 = is_ipv6(b, 0);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t frame = b->frame[i];
        struct xs_pkt *p = &pkts[frame];
        uint32_t payload = p->payload_len;
        if (likely(xs_inbox_add(&run, p, frame, xs_truesize(payload + XS_UDP_BYTES, ipv6)))) {
            bytes += payload;
        } else {
            search.run = run;
            deliver_to_one(self, b, i, &search, sums);
            run = search.run;
        }
    }
    search.run = run;
    end_run(self, &search, sums);
    sums->bytes += bytes;
}

/* What receive_run() may be given. Peers of plain packets say all by their address (note_scope). */
static bool is_run(const struct xs_batch *b) {
    const uint32_t facts = XS_ALL_PLAIN | XS_ALL_VERIFIED | XS_ALL_TO_ONE;
    return (b->facts & facts) == facts &&
           !(xs_pkt(b, 0)->flags & (XS_PKT_ROUTED_BROADCAST | XS_PKT_ROUTED_MULTICAST));
}

void xs_udp_rx(struct xs_udp *self, struct xs_batch *b) {
    const struct xs_socket_table *t = xs_table(self->tables, sockets);
    struct sums sums = {0};
    if (!t) t = &xs_no_sockets;
    self->busy = true;
    xs_next_all(b, XS_KEPT);
    if (t->mask >= MANY_SLOTS) fetch_slots(b, t);
    if (likely(is_run(b)))
        receive_run(self, b, t, &sums);
    else if (b->facts & XS_ALL_PLAIN)
        receive_all(self, b, true, t, &sums);
    else
        receive_all(self, b, false, t, &sums);
    b->ledger->delivered += sums.delivered;
    b->count[XS_UDP_RX_BYTES] += sums.bytes;
    b->count[XS_UDP_RX_PARTIAL] += sums.partial;
}

const struct xs_stage_def xs_udp_rx_def = {
    .name = "udp.rx",
    .fn = (xs_stage_fn *)xs_udp_rx,
    .tick = (xs_tick_fn *)xs_udp_rx_tick,
    .edges = {0},
    .counters = {"bytes", "partial", "clones", "clones_lost", "slow", "slow_postponed", "icmp_errors"},
};
