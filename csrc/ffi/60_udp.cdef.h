/* UDP sockets: made by control, fed by workers, read and sent from through the views module (csrc/views/).
 * Read by cffi and by C; plain declarations only. Functions return 0 or a count, or a negative errno. */

#define XS_ANY_DEVICE 255
#define XS_OTHER_DEVICE 254 /* bound to one that is not of this stack */

/* flags of a socket */
#define XS_SOCKET_CONNECTED 1    /* only what the peer sends is taken; send() needs no address */
#define XS_SOCKET_NO_CHECK6_RX 2 /* UDP_NO_CHECK6_RX: a zero checksum is accepted over IPv6 */
#define XS_SOCKET_STAMP 4        /* SO_TIMESTAMPNS: note when a datagram came */
#define XS_SOCKET_RECVERR 8      /* IP_RECVERR: every ICMP error is raised, on an unconnected socket too */
#define XS_SOCKET_RECVERR_6 256  /* IPV6_RECVERR: the same of ICMPv6 */
#define XS_SOCKET_V6ONLY 16      /* IPV6_V6ONLY: IPv4 cannot be sent to */
#define XS_SOCKET_FILTER 64      /* a filter is attached */
#define XS_SOCKET_CLOSED 32      /* whoever waits for it is to wait no more */
#define XS_SOCKET_RXQ_OVFL 128   /* SO_RXQ_OVFL: note how many datagrams had been refused when one came */

struct xs_stack;
struct xs_socket;

struct xs_socket_options {
    uint32_t index;
    uint8_t family;      /* 4 or 6; 0: a queue of whole frames, without addresses */
    uint8_t address[16]; /* IPv4 mapped; all zero (or ::ffff:0.0.0.0) = any */
    uint16_t port;
    uint32_t rcvbuf; /* bytes */
    uint32_t sndbuf;
};

/* Made for a stack; not in any table yet. xs_socket_free() only when no table names it and nobody waits on it. */
int xs_socket_create(struct xs_stack *stack, const struct xs_socket_options *options, struct xs_socket **out);
void xs_socket_free(struct xs_socket *socket);

/* A multicast group that a socket has joined, of IPv4 by one device. */
struct xs_socket_group {
    uint8_t address[16];
    uint8_t device; /* stack index, or XS_ANY_DEVICE */
};

#define XS_SOCKET_ONLY_JOINED_4 1 /* IP_MULTICAST_ALL is off */
#define XS_SOCKET_ONLY_JOINED_6 2 /* IPV6_MULTICAST_ALL is off */

/* One key under which a socket is found. The order of an array is the order of precedence on equal scores. */
struct xs_socket_binding {
    struct xs_socket *socket;
    uint8_t address[16]; /* exact, or any: :: for IPv6 datagrams, ::ffff:0.0.0.0 for IPv4 ones */
    uint16_t port;
    uint8_t peer[16];   /* all zero: anyone */
    uint16_t peer_port; /* 0: any */
    uint8_t device;     /* stack index, or XS_ANY_DEVICE */
    uint8_t family;     /* of the socket */
    uint32_t
        vlan; /* that datagrams are tagged with, service VLAN << 16 | VLAN; 0: untagged, or a priority alone */
    const struct xs_socket_group *groups; /* it has joined these; the table has a copy */
    uint16_t ngroups;
    uint8_t only_joined; /* XS_SOCKET_ONLY_JOINED_*: of other groups of that family it takes nothing */
    uint8_t reconnected; /* the peer is not that of the first connect(): only by score is it found */
};
/* Replaces the table of sockets; returns when no worker can see the old one. */
int xs_stack_set_sockets(struct xs_stack *stack, const struct xs_socket_binding *bindings, uint32_t n);

/* Settings. Each may be called while the socket is in use. */
void xs_socket_set_flags(struct xs_socket *socket, uint32_t set, uint32_t clear);
uint32_t xs_socket_flags(struct xs_socket *socket);
struct xs_socket_sending {
    uint8_t peer[16]; /* where send() goes; with XS_SOCKET_CONNECTED */
    uint16_t peer_port;
    uint32_t peer_scope; /* ifindex of a link-local peer */
    uint8_t source[16];  /* all zero: routing chooses */
    int16_t ttl, hops;   /* to one host, over IPv4 and IPv6; -1: the route's, or else the device's default */
    uint8_t multicast_ttl, multicast_hops;
    uint8_t tos, tclass;
    uint8_t device;           /* stack index the socket is bound to, or XS_ANY_DEVICE */
    uint8_t discover;         /* IP_MTU_DISCOVER: IP_PMTUDISC_* */
    uint8_t kernel_multicast; /* multicast is the shadow's to send: IP_MULTICAST_IF names a device for it */
    uint32_t vlan;            /* of all it sends: service VLAN << 16 | VLAN; 0: untagged */
    uint32_t sndbuf, mark, priority;
};
/* Written and read under the GIL, so that a sender never sees half of a change: assign the whole structure. */
struct xs_socket_sending *xs_socket_sending(struct xs_socket *socket);

struct xs_socket_stats {
    uint64_t datagrams;    /* ever queued */
    uint64_t drops;        /* refused, in all (sk_drops); of these: */
    uint64_t drops_rcvbuf; /* the receive buffer was full: SOCKET_RCVBUFF */
    uint64_t drops_memory; /* sockets had all frames of a worker that they may have: PROTO_MEM */
    uint64_t drops_filter; /* the socket's filter refused it: SOCKET_FILTER */
    uint64_t
        drops_kernel; /* by the kernel socket, for any reason; as of the last datagram that came that way */
    uint64_t rmem;    /* bytes of the receive buffer in use */
    uint32_t queued;  /* datagrams that wait for the reader */
    uint32_t rcvbuf;
    uint64_t errors_lost; /* ICMP errors that found the list full */
};
void xs_socket_stats(struct xs_socket *socket, struct xs_socket_stats *out);

/* ICMP errors, oldest first. */
struct xs_socket_error {
    int error;          /* errno */
    uint8_t origin;     /* SO_EE_ORIGIN_* of linux/errqueue.h */
    uint8_t type, code; /* of the ICMP message */
    uint8_t family;     /* of `offender`: 0 = not known, 4, 6 */
    uint32_t info;      /* with EMSGSIZE: the path's MTU */
    uint16_t port;      /* where the datagram was sent to */
    uint8_t destination[16];
    uint8_t offender[16]; /* who sent the ICMP message */
};
int xs_socket_take_errors(struct xs_socket *socket, struct xs_socket_error *out, uint32_t most);
/* The error that the next call has to raise, and forgets it; 0 when there is none. */
int xs_socket_take_error(struct xs_socket *socket);

/* A model of the memory that a datagram costs; for tests: xdpstack/udp/semantics.py has the same. */
uint32_t xs_udp_truesize(uint32_t bytes, int ipv6, int slow);

/* Polls and sleeps until the socket has something: 1 = a datagram or an error, 2 = packets are parked for a Python hook,
 * 0 = `timeout_ms` (-1: for ever) is over, or a signal came. `drive` 0: another thread polls, only sleep. */
int xs_socket_wait(struct xs_stack *stack, struct xs_socket *socket, int drive, uint32_t budget,
                   int timeout_ms);
/* Polls and sleeps until there may be room to send again, at most `timeout_ms`. As above. */
int xs_socket_wait_room(struct xs_stack *stack, int drive, uint32_t budget, int timeout_ms);

/* The eventfd, from now on readable whenever the queue is not empty or an error waits. */
int xs_socket_export(struct xs_socket *socket);

/* The kernel socket behind it, which its worker reads from now on; -1: none. The descriptor stays the caller's. */
int xs_socket_set_shadow(struct xs_stack *stack, struct xs_socket *socket, int fd);
/* connect(2) to AF_UNSPEC, which Python cannot say: the kernel socket has no peer any more. */
int xs_shadow_disconnect(int fd);
/* Whether the kernel socket has joined an IPv4 group (4 bytes) by the device of that index: 1 or 0. */
int xs_shadow_is_member(int fd, const uint8_t *group, uint32_t ifindex);
/* Wakes who waits on it, for good, and closes its eventfd, or has the last of those who wait close it. Before that nobody may
 * feed it any more, and its view be closed. */
void xs_socket_close(struct xs_socket *socket);
