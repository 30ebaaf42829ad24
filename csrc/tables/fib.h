/* The FIB: every routing table, policy rule and next hop of the host, compiled into one table that never changes.
 *
 *      key --> rules of its family, in order --> a routing table --> longest prefix --> its routes, in order --> hops
 *                 |                                                                                         |
 *                 +-- most hosts have only the default rules: then just a list of tables                    v
 *                                                                                      next hop id in the packet
 *
 * Control builds a FIB from plain arrays (ffi/50_routing.cdef.h) and publishes it whole; workers look it up inside a poll
 * and never write it. Semantics are those of net/ipv4/fib_trie.c and net/ipv6/ip6_fib.c, where they differ too: IPv4 takes
 * the first route that fits, IPv6 the best score among those of the lowest metric. Contract, and what differs from Linux:
 * xdpstack/routing/layer.py.
 *
 * A routing table is a hash table per prefix length, asked from the longest length present to the shortest. All lengths
 * of a table share one array of slots; a prefix has one slot, which says where its routes begin.
 *
 *      lengths, longest first        slots: hash(prefix, length) & mask, then the next ones
 *      +-----+-----+----+            +----------------+---+----------------+---+-----
 *      | /32 | /24 | /0 |            | 10.0.0.1/32    |   | 10.0.0.0/24    |   | ...
 *      +-----+-----+----+            +----|-----------+---+----|-----------+---+-----
 *                                         v                    v
 *      routes, in the kernel's order  [local, dev lo]      [unicast, metric 0] [unicast, metric 100] ...
 *
 * Next hop ids. pkt.nexthop outlives the FIB it was chosen from: a packet may be held for a neighbour, or be parked for a
 * Python hook, while new tables are published. So an id is a slot of the next hop array and the slot's generation:
 *
 *      31          20 19                 0        A next hop keeps its id as long as a route goes through it, over all
 *      +-------------+-------------------+        publications. After that its slot is retired, content and all, so that
 *      | generation  |       slot        |        packets that are under way still leave. Retired slots are reused oldest
 *      +-------------+-------------------+        first, and only while 1024 others are retired, under their next
 *                                                 generation: xs_fib_nexthop() then knows the old id to be gone.
 * Id 0 is "none". Control gives the ids out (xdpstack/routing/native.py).
 */
#ifndef XS_TABLES_FIB_H
#define XS_TABLES_FIB_H

#include <stddef.h>

#include "tables/addr.h"
#include "tables/config.h"

struct xs_stack;
#include "ffi/50_routing.cdef.h"

/* A route as it is kept; those of one prefix follow each other in the order in which they are tried. */
struct xs_fib_route {
    struct xs_addr source, source_mask; /* IPv6 source-specific routes; mask zero: from anywhere */
    uint32_t metric;
    uint32_t hop, nhops; /* fib->hop[hop .. hop + nhops) */
    uint32_t detour;     /* IPv4: the hop of another default route that is taken instead, or XS_HOP_NONE */
    uint8_t type;        /* XS_ROUTE_* */
    uint8_t tos;
    uint8_t preference;
    uint8_t length; /* of its prefix, in bits of its family */
    uint8_t grouped;
    uint8_t multicast; /* its prefix is one of IPv6 multicast */
    uint8_t looped;    /* IPv6: what this host sends there comes back to it */
    uint8_t pad[5];
};

struct xs_fib_slot {
    struct xs_addr prefix; /* host bits zero */
    uint32_t route;        /* fib->route[route .. route + nroutes) */
    uint16_t nroutes;      /* 0 = empty slot */
    uint8_t length;        /* in mapped bits */
    uint8_t has_sources;   /* the first of the routes is source-specific (those go first) */
};

struct xs_fib_table {
    struct xs_fib_slot *slot;
    uint32_t mask; /* slots - 1; there is always an empty one */
    uint32_t nlengths;
    struct xs_addr length_mask[129]; /* longest first */
    uint8_t length[129];
};

/* A set of addresses, each with a number beside it. */
struct xs_addr_set {
    struct xs_fib_address *entry; /* ifindex 0 = empty; there is always an empty one */
    uint32_t mask;
};

struct xs_fib {
    struct xs_fib_family family[2];
    struct xs_fib_table *table;
    struct xs_fib_route *route;
    struct xs_fib_hop *hop;
    struct xs_nexthop *nexthop;
    struct xs_fib_source *source;
    struct xs_addr_set
        here; /* addresses to which everything is for this host, whatever else its packet says */
    struct xs_addr_set local; /* the host's addresses, whichever device has them */
    uint64_t local4
        [64]; /* a bit for each IPv4 address of them, by xs_fib_bit4(): few, so that most others have none */
    struct xs_addr_set groups; /* multicast groups by the device that joined: hashed with its ifindex */
    uint32_t ntables, nroutes, nhops, nnexthops, nsources, nlinks;
    struct xs_fib_link link[XS_DEVICES_MAX];
    uint64_t generation;
};

/* Before the first publication: no routes. */
extern const struct xs_fib xs_fib_empty;

struct xs_fib_result {
    const struct xs_fib_route *route;
    const struct xs_fib_hop *hop; /* one of the route's */
    uint32_t table;
};

/* fib_lookup(): the route and its first hop that fits, of which xs_fib_select4() makes the one that is taken.
 * fib6_rule_lookup(): the route and the hop that is taken. Returns XS_FIB_*, never NEXT; `out` means something when found. */
uint32_t xs_fib_lookup(const struct xs_fib *fib, const struct xs_fib_key *key, struct xs_fib_result *out);

/* The same in one table, without rules; NEXT when it does not know. */
uint32_t xs_fib_table_lookup(const struct xs_fib *fib, uint32_t table, const struct xs_fib_key *key,
                             struct xs_fib_result *out);

/* fib_select_path(), fib_select_multipath(): which hop an IPv4 packet takes. Of several by hash; what this host itself sends
 * (key->iif) prefers one that has its source, and of several default routes the one whose gateway lives. */
void xs_fib_select4(const struct xs_fib *fib, const struct xs_fib_key *key, struct xs_fib_result *result);

/* ipv6_dev_get_saddr(): the source towards `dst` through device `ifindex` (0 = not known yet). False when the host has no
 * address that could be it. */
bool xs_fib_source6(const struct xs_fib *fib, struct xs_addr dst, uint32_t ifindex, bool own_addresses,
                    struct xs_addr *out);

/* Sets what RFC 6724 asks of a candidate again and again: its scope and its label. */
void xs_fib_classify(struct xs_fib_source *s);

/* The next hop of an id; NULL when its slot is somebody else's by now. */
static inline const struct xs_nexthop *xs_fib_nexthop(const struct xs_fib *fib, uint32_t id) {
    uint32_t slot = id & XS_NEXTHOP_SLOT_MASK;
    if (slot >= fib->nnexthops || fib->nexthop[slot].id != id) return NULL;
    return &fib->nexthop[slot];
}

/* The number beside an address, 0 = it is not in the set. */
static inline uint32_t xs_addr_set_find(const struct xs_addr_set *set, struct xs_addr a) {
    for (uint32_t at = xs_addr_hash(a, 0);; at++) {
        const struct xs_fib_address *e = &set->entry[at & set->mask];
        if (!e->ifindex || xs_addr_equal(e->address, a)) return e->ifindex;
    }
}

/* The lookup of a unicast address would say "local" for every key: no rule and no route asks for more. */
static inline bool xs_fib_is_here(const struct xs_fib *fib, struct xs_addr dst) {
    return xs_addr_set_find(&fib->here, dst) != 0;
}

/* The device that has the address, 0 = none has. */
static inline uint32_t xs_fib_bit4(uint32_t address) { return address * 0x9e3779b9u >> 20; } /* of 64 * 64 */

/* False: the address is none of this host's. True: xs_fib_local() knows. */
static inline bool xs_fib_may_be_local4(const struct xs_fib *fib, uint32_t address) {
    uint32_t bit = xs_fib_bit4(address);
    return fib->local4[bit / 64] >> bit % 64 & 1;
}
static inline uint32_t xs_fib_local(const struct xs_fib *fib, struct xs_addr a) {
    return xs_addr_set_find(&fib->local, a);
}

/* ip_check_mc_rcu(), ipv6_chk_mcast_addr(): the device has joined the group. */
static inline bool xs_fib_joined(const struct xs_fib *fib, struct xs_addr group, uint32_t ifindex) {
    for (uint32_t at = xs_addr_hash(group, ifindex);; at++) {
        const struct xs_fib_address *e = &fib->groups.entry[at & fib->groups.mask];
        if (!e->ifindex) return false;
        if (e->ifindex == ifindex && xs_addr_equal(e->address, group)) return true;
    }
}

#endif
