/* What the XDP program and user space share: map keys, map values, causes.
 *
 * One text, three readers: clang compiles it into the program (through bpf/xdpstack_maps.h), gcc into the
 * extension, cffi into Python. Fields marked "network order" hold bytes as they were on the wire; all others
 * are in host order. Padding is named, because the kernel hashes whole keys: whoever fills a key sets the
 * padding to zero.
 */

/* Of all that follows. A program that is pinned may meet another release: raise this with every change to it. */
#define XS_XDP_LAYOUT 4

/* Frame verdicts with their cause, one counter each. Up to PASS_NO_METADATA: left to the kernel; from
 * REDIRECT_SOCKET on: lifted. A frame that no claim covers is PASS_UNCLAIMED; any other PASS says what kept a
 * claim from lifting it. The first obstacle met is the one that counts. xdpstack/device/verdict.py defines
 * every one of them. */
enum xs_xdp_cause {
    XS_XDP_PASS_UNCLAIMED,
    XS_XDP_PASS_DEADMAN,     /* the dead-man deadline is over */
    XS_XDP_PASS_MALFORMED,   /* a header is cut off or contradicts itself */
    XS_XDP_PASS_VLAN,        /* tagged, and no claim covers that VLAN */
    XS_XDP_PASS_QINQ,        /* a service tag, or more than one tag, and no claim covers that */
    XS_XDP_PASS_NOT_OUR_MAC, /* the frame is for another station */
    XS_XDP_PASS_NOT_LOCAL,   /* the port is claimed on every address, but this address is not the host's */
    XS_XDP_PASS_FRAGMENT,    /* a UDP fragment, while sockets are claimed */
    XS_XDP_PASS_EXTHDR,      /* more than XS_XDP_EXTHDR_MAX IPv6 extension headers */
    XS_XDP_PASS_ARP,         /* the claim does not name ARP */
    XS_XDP_PASS_ND,          /* the claim does not name neighbour and multicast listener discovery */
    XS_XDP_PASS_SSH,         /* the claim does not name the host's SSH; or this may be a fragment of it */
    XS_XDP_PASS_EXCEPTION,   /* everything but this */
    XS_XDP_PASS_NO_ROUTE,    /* forwarding is claimed, but the route does not leave through this stack */
    XS_XDP_PASS_NO_SOCKET,   /* no AF_XDP socket on the receive queue */
    XS_XDP_PASS_NO_METADATA, /* metadata is wanted and the driver has no room for it */
    XS_XDP_REDIRECT_SOCKET,
    XS_XDP_REDIRECT_PREFIX,
    XS_XDP_REDIRECT_PROTOCOL,
    XS_XDP_REDIRECT_ETHERTYPE,
    XS_XDP_REDIRECT_FORWARD,
    XS_XDP_REDIRECT_EVERYTHING,
    XS_XDP_CAUSES,
};

/* IPv6 extension headers looked through; one more and the frame passes. */
#define XS_XDP_EXTHDR_MAX 8

/* xs_deadman, an array of one, and the only map that user space maps into memory.
 *
 * The program lifts while CLOCK_MONOTONIC_COARSE < deadline_ns: CLOCK_MONOTONIC of the last tick, which a frame
 * reads at a fraction of the price. So a deadline is found over up to a tick late (1 to 10 ms), and all times here
 * are as coarse. Zero, the initial state, therefore passes everything to the kernel; UINT64_MAX never lapses. The
 * two halves are on cache lines of their own: the first is written by user space and read by every CPU for every
 * frame, the second is written by the program, and only past the deadline. */
struct xs_xdp_deadman {
    uint64_t deadline_ns; /* written by the watchdog with one 64-bit store */
    uint64_t reserved1[7];
    uint64_t first_pass_ns; /* of the first frame since the deadline lapsed; kept after it is renewed */
    uint64_t lapses;        /* how many times a frame found the deadline newly lapsed */
    uint64_t reserved2[6];
};

/* xs_counters, an array of one element per CPU, which share no cache line. */
struct xs_xdp_counters {
    uint64_t frames[XS_XDP_CAUSES];
    uint64_t last_redirect_ns; /* CLOCK_MONOTONIC_COARSE of the last frame lifted on this CPU */
    uint64_t last_pass_ns;     /* and of the last one passed because the deadline was over */
};

/* xs_device, an array of one.
 *
 * The kinds of claims that exist, so that the program skips what nobody uses. None at all: it passes at once. */
#define XS_XDP_KIND_SOCKET 0x01
#define XS_XDP_KIND_PREFIX 0x02
#define XS_XDP_KIND_PROTOCOL 0x04
#define XS_XDP_KIND_ETHERTYPE 0x08
#define XS_XDP_KIND_FORWARD 0x10
#define XS_XDP_KIND_EVERYTHING 0x20
#define XS_XDP_KIND_VLAN 0x40    /* some claim names a VLAN */
#define XS_XDP_KIND_ANY_MAC 0x80 /* some claim wants frames for other stations */
#define XS_XDP_KIND_WIDE 0x3e    /* PREFIX to EVERYTHING */
/* xs_kept has ports of TCP, of UDP, of some other protocol: no address is looked up for a packet of any other. */
#define XS_XDP_KIND_KEPT_TCP 0x100
#define XS_XDP_KIND_KEPT_UDP 0x200
#define XS_XDP_KIND_KEPT_OTHER 0x400
#define XS_XDP_KIND_KEPT 0x700

struct xs_xdp_device {
    uint64_t mac;   /* first four bytes | last two bytes << 32, each read as an integer in host order */
    uint32_t kinds; /* XS_XDP_KIND_* */
    uint32_t home;  /* network order: one of the untagged IPv4 unicast addresses of xs_local, or 0 */
};

/* A claim: the value of every table that lifts. */
#define XS_XDP_CLAIM_LIFT 0x01    /* there is a claim here */
#define XS_XDP_CLAIM_ANY_MAC 0x02 /* also frames for other stations */
#define XS_XDP_CLAIM_ARP 0x04     /* names ARP */
#define XS_XDP_CLAIM_ND 0x08      /* names neighbour and multicast listener discovery */
#define XS_XDP_CLAIM_SSH 0x10     /* names the host's SSH */
#define XS_XDP_CLAIM_GROUP 0x20   /* socket: also frames to broadcast and multicast stations */
#define XS_XDP_CLAIM_EXCEPT 0x40  /* excepted from everything-but; may stand beside LIFT */
#define XS_XDP_CLAIM_EXACT 0x80   /* port: xs_sockets has entries for it; socket: for this address alone */

struct xs_xdp_claim {
    uint32_t id; /* given by user space, never 0 beside LIFT */
    uint32_t flags;
};

/* What precedes a lifted frame, directly before its first byte, if metadata was asked for at load. */
#define XS_XDP_OPTION_METADATA 0x01
struct xs_xdp_metadata {
    uint32_t claim_id;
    uint32_t cause; /* XS_XDP_REDIRECT_* */
};

/* What the device has said of the frame (XDP hints), directly before that, if any of it was asked for at load; only the
 * program that is bound to its device can ask (bpf/xdpstack_bound.bpf.c). What `valid` does not name, the device did not
 * say of this frame. */
#define XS_XDP_OPTION_HASH 0x02
#define XS_XDP_OPTION_TIMESTAMP 0x04
#define XS_XDP_OPTION_VLAN 0x08
#define XS_XDP_OPTION_HINTS 0x0e
struct xs_xdp_hints {
    uint64_t timestamp_ns; /* by the device's own clock */
    uint32_t hash;         /* as skb->hash */
    uint32_t hash_type;    /* enum xdp_rss_hash_type: over what it was made */
    uint16_t vlan_proto;   /* of the tag that the device has taken off the frame */
    uint16_t vlan_tci;
    uint32_t valid; /* XS_XDP_OPTION_HASH, _TIMESTAMP, _VLAN */
};

/* A domain is the address family and the VLAN in one number: an address is only equal to another in the same
 * domain. A VLAN within a service VLAN (802.1Q behind 802.1ad) has the latter in the upper half. */
#define XS_XDP_DOMAIN_VLAN 0x1000 /* tagged; the low 12 bits are the VLAN */
#define XS_XDP_DOMAIN_IPV6 0x8000
#define XS_XDP_DOMAIN_SERVICE_SHIFT 16

/* xs_ports, an array: index is the UDP port, + XS_XDP_PORTS_IPV6 for IPv6. LIFT: claimed untagged on every
 * local address, with that claim's id and flags. EXACT: look into xs_sockets as well. Most foreign datagrams
 * end here without hashing. */
#define XS_XDP_PORTS_IPV6 0x10000
#define XS_XDP_PORTS 0x20000

/* xs_sockets, a hash: an address and port that is claimed (EXACT); or, in a VLAN, with a zero address, a port
 * on every local address. */
struct xs_xdp_socket_key {
    uint32_t address[4]; /* network order; IPv4: the first word, the others zero */
    uint32_t domain;
    uint16_t port; /* network order */
    uint16_t reserved;
};

/* xs_shortcuts, an array: index is the UDP port. One of the untagged IPv4 addresses that xs_sockets has with the port, for
 * frames to the own MAC: most ports have no other, and none of their frames is hashed. */
struct xs_xdp_shortcut {
    uint32_t address; /* network order */
    uint32_t id;      /* of the claim; 0: none */
};

/* xs_local, a hash: the host's addresses, as mirrored from its local routing table. Value: uint32_t,
 * XS_XDP_LOCAL_*. */
struct xs_xdp_local_key {
    uint32_t address[4]; /* network order */
    uint32_t domain;
};
#define XS_XDP_LOCAL_UNICAST 1
#define XS_XDP_LOCAL_GROUP 2 /* a broadcast address, or a multicast group the host has joined */

/* xs_prefixes and xs_forward, longest-prefix tries: destination prefixes claimed, and where forwarding may
 * lift (LIFT set) or not (clear). The domain is always matched: prefix_length is XS_XDP_PREFIX_FIXED + the
 * length of the prefix. The domains of xs_forward have no VLAN: routes do not
 * depend on where a packet came in. */
#define XS_XDP_PREFIX_FIXED 32
struct xs_xdp_prefix_key {
    uint32_t prefix_length;
    uint32_t domain;
    uint32_t address[4]; /* network order */
};

/* xs_everything, an array of one: the claim on everything that is untagged, which is found without hashing. In a VLAN
 * it is one of xs_selectors. */

/* xs_selectors, a hash: what is claimed by number. An IP protocol has a domain with its family; the others
 * one without. */
#define XS_XDP_SELECT_EVERYTHING 0x100 /* 0..255 are IP protocols; 0x600 and up are ethertypes */
#define XS_XDP_SELECT_FORWARD 0x101
struct xs_xdp_selector_key {
    uint32_t domain;
    uint16_t number;
    uint16_t reserved;
};

/* xs_kept, a hash: ports of this host that wide claims leave alone. Port 0 stands for every fragment of a
 * protocol that has such a port, because a fragment does not show its own. Value: uint32_t, XS_XDP_KEPT_*. */
struct xs_xdp_kept_key {
    uint32_t domain; /* without the family */
    uint16_t port;   /* network order */
    uint16_t protocol;
};
#define XS_XDP_KEPT_SSH 1    /* from every claim that does not name SSH */
#define XS_XDP_KEPT_EXCEPT 2 /* from everything-but */
