/* The FIB: what control hands over and what the tables are made of. Read by cffi and by C (tables/fib.h, which explains it).
 * Interface indexes are the kernel's; addresses are IPv4 mapped, and a prefix length counts mapped bits (IPv4: 96 + n)
 * unless said otherwise. */

/* ---- next hops ---- */

#define XS_NEXTHOP_SLOT_BITS 20
#define XS_NEXTHOP_SLOT_MASK 0xfffff
#define XS_NEXTHOP_NONE 0

/* flags of struct xs_nexthop */
#define XS_NEXTHOP_GATEWAY 0x01       /* `gateway` is valid; else the destination itself is on the link */
#define XS_NEXTHOP_MTU_LOCKED 0x02    /* path MTU discovery must not lower `mtu` */
#define XS_NEXTHOP_OWN_ADDRESSES 0x04 /* use_oif_addrs_only: IPv6 sources of its device only */

/* Where a packet goes next. */
struct xs_nexthop {
    uint32_t id; /* of whom the slot is now; 0 = nobody's yet */
    uint32_t ifindex;
    struct xs_addr gateway; /* of either family: IPv4 goes through IPv6 routers as well */
    uint32_t mtu;           /* bytes of the IP packet: the route's, or else the device's */
    uint32_t group;         /* of the device, for rules that suppress it */
    uint8_t device;         /* of this stack, or XS_NO_DEVICE */
    uint8_t hop_limit;      /* the route's, 0 = default */
    uint8_t flags;
    uint8_t pad;
};

/* flags of struct xs_fib_hop */
#define XS_HOP_DOWN 0x01   /* not to be used: its device is down, or without carrier where that is heeded */
#define XS_HOP_SILENT 0x02 /* its gateway is known not to answer (fib_good_nh): multipath passes over it */
#define XS_HOP_FAILED \
    0x04 /* IPv6: its gateway has failed (rt6_check_neigh): taken only when there is no other way */

#define XS_HOP_NONE 0xffffffff

/* One way on from a route. */
struct xs_fib_hop {
    struct xs_addr source; /* for senders that have none; IPv6: zero when it depends on the destination */
    uint32_t nexthop;      /* id */
    uint32_t ifindex;
    int64_t
        bound; /* multipath: takes what hashes (31 bits) up to here and not to a hop before it; -1: nothing */
    uint32_t group; /* of the device, for rules that suppress it */
    uint32_t flags; /* XS_HOP_* */
    uint32_t own;   /* IPv4, host order: the address of its device that goes with it (nh_saddr) */
    uint32_t pad;
};

/* ---- routes ---- */

/* RTN_* of linux/rtnetlink.h */
#define XS_ROUTE_UNICAST 1
#define XS_ROUTE_LOCAL 2
#define XS_ROUTE_BROADCAST 3
#define XS_ROUTE_ANYCAST 4
#define XS_ROUTE_MULTICAST 5
#define XS_ROUTE_BLACKHOLE 6
#define XS_ROUTE_UNREACHABLE 7
#define XS_ROUTE_PROHIBIT 8
#define XS_ROUTE_THROW 9

/* A route as it is handed over. In which order does not matter, but for routes that are alike in all that orders them. */
struct xs_fib_route_values {
    struct xs_addr prefix;
    struct xs_addr source; /* IPv6 source-specific routes: the source's prefix */
    uint32_t table;        /* index of the routing table */
    uint32_t metric;
    uint32_t hop, nhops; /* hops[hop .. hop + nhops) */
    uint32_t detour;     /* IPv4: the hop of another default route that is taken instead, or XS_HOP_NONE */
    uint8_t length;
    uint8_t source_length; /* 0 = from anywhere */
    uint8_t rank;          /* where two kernel tables were merged: lower ones go first */
    uint8_t type;          /* XS_ROUTE_* */
    uint8_t tos;           /* IPv4: for packets of this TOS; 0 = any */
    uint8_t preference;    /* IPv6 router preference as a score: 1 low, 2 medium, 3 high */
    uint8_t ipv6;
    uint8_t grouped; /* its hops are a next-hop object, which IPv6 treats unlike siblings */
    uint8_t looped;  /* IPv6: what this host sends there comes back to it */
};

/* ---- rules ---- */

/* FR_ACT_* of linux/fib_rules.h */
#define XS_RULE_TABLE 1
#define XS_RULE_GOTO 2
#define XS_RULE_NOP 3
#define XS_RULE_BLACKHOLE 6
#define XS_RULE_UNREACHABLE 7
#define XS_RULE_PROHIBIT 8

/* flags of struct xs_fib_rule */
#define XS_RULE_ALL 0x0001 /* no selectors: matches everything */
#define XS_RULE_INVERT 0x0002
#define XS_RULE_NEVER 0x0004 /* selects what cannot be here: an unknown device, a tunnel, a VRF */
#define XS_RULE_USERS 0x0008 /* user_first..user_last counts */

#define XS_FIB_NO_TABLE 0xffffffff
#define XS_FIB_NO_RULE 0xffffffff

/* Ports, both included, that a packet's port under `mask` may be; mask 0 = any port. */
struct xs_fib_ports {
    uint16_t first, last, mask;
};

struct xs_fib_rule {
    struct xs_addr src, src_mask, dst, dst_mask; /* mask zero = any */
    uint32_t iif, oif;                           /* 0 = any */
    uint32_t mark, mark_mask;
    uint32_t flow_label, flow_label_mask;
    uint32_t user_first, user_last;
    struct xs_fib_ports sport, dport;
    uint32_t table;                          /* index of the routing table, or XS_FIB_NO_TABLE */
    uint32_t target;                         /* for GOTO: index of the rule, or XS_FIB_NO_RULE */
    int32_t suppress_length, suppress_group; /* length in bits of the family; -1 = never */
    uint16_t flags;
    uint8_t action;        /* XS_RULE_* */
    uint8_t proto;         /* 0 = any */
    uint8_t tos, tos_mask; /* mask zero = any */
};

/* What multipath hashes: fib_multipath_hash_fields, outer header. */
#define XS_HASH_SRC 0x01
#define XS_HASH_DST 0x02
#define XS_HASH_PROTO 0x04
#define XS_HASH_FLOW_LABEL 0x08
#define XS_HASH_SPORT 0x10
#define XS_HASH_DPORT 0x20

/* How one family routes; [0] is IPv4, [1] IPv6. */
struct xs_fib_family {
    struct xs_fib_rule *rule;
    uint32_t nrules;
    uint32_t hash_fields; /* XS_HASH_* */
    uint32_t local_table; /* index of table `local`, or XS_FIB_NO_TABLE */
    uint8_t custom_rules; /* other than the default ones */
    uint8_t custom_local; /* somebody put routes into table `local` by hand */
    uint8_t realms;       /* a route or rule has realms: a source is looked up whatever the device accepts */
    uint8_t needs_ports;  /* a rule selects by protocol or port, or ports are hashed */
    uint8_t
        avoid_silent; /* IPv4: fib_multipath_use_neigh. IPv6: a host that is no router avoids failed gateways */
    /* set by xs_fib_create(): */
    uint8_t plain; /* every rule only names a table: they are in plain_table[] */
    uint32_t nplain;
    uint32_t plain_table[4];
};

/* ---- addresses of the host ---- */

/* flags of struct xs_fib_source */
#define XS_SOURCE_AVOID 0x01 /* deprecated, or optimistic and not to be used like others */
#define XS_SOURCE_OPTIMISTIC 0x02
#define XS_SOURCE_TEMPORARY 0x04
#define XS_SOURCE_HOME 0x08
#define XS_SOURCE_PREFER_TEMPORARY 0x10 /* its device has use_tempaddr 2 */

/* An address that may be the source of what this host sends (RFC 6724), in the kernel's order of devices and addresses. */
struct xs_fib_source {
    struct xs_addr address;
    uint32_t ifindex;
    uint8_t flags;        /* XS_SOURCE_* */
    uint8_t length;       /* of its prefix */
    uint8_t scope, label; /* set by xs_fib_create() */
};

/* An address, and the device that has it (or has joined it). */
struct xs_fib_address {
    struct xs_addr address;
    uint32_t ifindex;
};

/* A device of the stack: where what is bound to it goes when no route says so. */
struct xs_fib_link {
    uint32_t ifindex;
    uint32_t nexthop;     /* id of the hop without a gateway, or none */
    uint32_t source_link; /* inet_select_addr() of this scope, IPv4 in host order; 0 = none */
    uint32_t source_universe;
};

/* ---- all of it ---- */

struct xs_fib_values {
    struct xs_fib_family family[2];
    const struct xs_fib_route_values *routes;
    const struct xs_fib_hop *hops;
    const struct xs_nexthop *nexthops; /* [0] stands for "none" */
    const struct xs_fib_source *sources;
    const struct xs_fib_address *locals, *groups;
    const struct xs_fib_link *links; /* by index of the stack's devices */
    uint32_t ntables, nroutes, nhops, nnexthops, nsources, nlocals, ngroups, nlinks;
    uint64_t generation;
};

struct xs_fib;

/* -EINVAL: an index or a length is out of its range, or a prefix has host bits; -E2BIG: more than 65,535 routes to one
 * prefix; -ENOMEM. */
int xs_fib_create(const struct xs_fib_values *values, struct xs_fib **out);
void xs_fib_destroy(struct xs_fib *fib);
/* Publishes `fib`, which the stack owns from now on; returns when the old one is out of use and freed. */
void xs_stack_set_fib(struct xs_stack *stack, struct xs_fib *fib);
/* The published one; for control, which publishes. */
const struct xs_fib *xs_stack_fib(struct xs_stack *stack);

/* ---- asking: for tests, `explain`, and sockets that want to know their route beforehand ---- */

/* flags of struct xs_fib_key */
#define XS_FIB_IPV6 0x01
#define XS_FIB_STRICT 0x02     /* IPv6: only routes through `prefer` (RT6_LOOKUP_F_IFACE) */
#define XS_FIB_HAS_SOURCE 0x04 /* `src` was chosen (RT6_LOOKUP_F_HAS_SADDR) */
#define XS_FIB_HASHED 0x08     /* `hash` is given; else it is computed where it is needed */

#define XS_FIB_LOOPBACK 1 /* LOOPBACK_IFINDEX: the input device of what this host itself sends */

struct xs_fib_key {
    struct xs_addr dst, src; /* src: zero (IPv4: mapped zero) when not chosen yet */
    uint32_t iif;    /* kernel's index of the input device; XS_FIB_LOOPBACK for what this host sends */
    uint32_t oif;    /* the device that the sender is bound to, 0 = any */
    uint32_t prefer; /* IPv6: routes through this device first, with STRICT only those; 0 = any */
    uint32_t mark;
    uint32_t flow_label;
    uint32_t user;         /* uid of the sender */
    uint32_t hash;         /* 31 bits, for multipath; with XS_FIB_HASHED */
    uint16_t sport, dport; /* these and proto: 0 unless known */
    uint8_t proto;
    uint8_t tos;
    uint8_t flags; /* XS_FIB_* */
};

#define XS_FIB_FOUND 0
#define XS_FIB_NONE 1        /* ENETUNREACH */
#define XS_FIB_UNREACHABLE 2 /* EHOSTUNREACH */
#define XS_FIB_PROHIBITED 3  /* EACCES */
#define XS_FIB_BLACKHOLE 4   /* EINVAL */
#define XS_FIB_NEXT 5        /* the next table may know; never the last word */

struct xs_fib_answer {
    uint32_t verdict; /* XS_FIB_*; the rest is zero unless found */
    uint32_t table;   /* index of the routing table */
    uint32_t metric;
    uint32_t nexthop, ifindex;
    uint8_t type, length; /* of the route; length in bits of its family */
};

/* What the stages decide about a packet. */
struct xs_routed {
    struct xs_addr src; /* transmit: the source, the sender's own or the one chosen */
    uint32_t nexthop;   /* forward and transmit: id */
    uint16_t flags;     /* XS_PKT_ROUTED_* */
    uint16_t reason;    /* with XS_DROP */
    uint8_t next;       /* edge of the stage, or XS_DROP */
    uint8_t device;     /* transmit: of the stack */
};
/* What routing.rx decides about packets that came in by `device` of the stack, or with XS_NO_DEVICE routing.tx about what
 * this host sends; by the tables that are published. */
void xs_routing_ask(struct xs_stack *stack, uint32_t device, const struct xs_fib_key *keys, uint32_t n,
                    struct xs_routed *out);

/* Looks up `n` keys. */
void xs_fib_ask(const struct xs_fib *fib, const struct xs_fib_key *keys, uint32_t n,
                struct xs_fib_answer *answers);
/* RFC 6724: the source towards `dst` through the device (0 = not known yet). 0, or -EADDRNOTAVAIL. */
int xs_fib_ask_source(const struct xs_fib *fib, const struct xs_addr *dst, uint32_t ifindex,
                      uint32_t own_addresses, struct xs_addr *out);
