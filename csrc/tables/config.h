/* What the stages know of the host: devices and settings, as control publishes them. Plain values, replaced whole. */
#ifndef XS_TABLES_CONFIG_H
#define XS_TABLES_CONFIG_H

#include <stdatomic.h>
#include <stdint.h>

#define XS_DEVICES_MAX 16u
#define XS_NO_DEVICE 255u

/* flags of struct xs_device_config */
#define XS_DEV_UP 0x0001u
#define XS_DEV_FORWARDING 0x0002u /* net.ipv4.conf.IF.forwarding */
#define XS_DEV_FORWARDING6 0x0004u
#define XS_DEV_ACCEPT_LOCAL 0x0008u
#define XS_DEV_ROUTE_LOCALNET 0x0010u
#define XS_DEV_SOURCE_ROUTE 0x0020u /* accept_source_route */
#define XS_DEV_IPV6_DISABLED 0x0040u
#define XS_DEV_PARTIAL_CSUM 0x0080u /* frames may arrive with only the pseudo-header sum (veth, virtio) */
#define XS_DEV_PROMISC 0x0100u
#define XS_DEV_LOOPBACK 0x0200u
#define XS_DEV_DROP_UNICAST_IN_MULTICAST 0x0400u /* net.ipv4.conf: drop_unicast_in_l2_multicast */
#define XS_DEV_SRC_VALID_MARK 0x0800u            /* src_valid_mark */
#define XS_DEV_SEND_REDIRECTS 0x1000u            /* send_redirects */
#define XS_DEV_BC_FORWARDING 0x2000u             /* bc_forwarding */
#define XS_DEV_NO_IPV4 0x4000u                   /* it has no IPv4 address */
#define XS_DEV_GONE 0x8000u
#define XS_DEV_DROP_UNICAST_IN_MULTICAST6 0x10000u /* net.ipv6.conf: drop_unicast_in_l2_multicast */

struct xs_device_config {
    uint32_t ifindex;
    uint32_t mtu;      /* bytes of the IP packet */
    uint32_t flags;    /* XS_DEV_* */
    uint8_t rp_filter; /* 0 off, 1 strict, 2 loose: the larger of all and this device */
    uint8_t nqueues;
    uint8_t mac[6];
    uint8_t ttl; /* default TTL */
    uint8_t hop_limit;
    uint8_t pad[2];
};

/* The devices of the stack, by stack index: dense, never reused while the stack is open. */
struct xs_config {
    uint32_t ndevices;
    uint32_t pad;
    struct xs_device_config device[XS_DEVICES_MAX];
};

/* Every table that control publishes; each pointer is replaced whole (base/epoch.h says when the old one may go), but for
 * the cells of neighbours, which change in place. */
struct xs_fib;
struct xs_neigh_table;
struct xs_socket_table;
struct xs_frame_claims;
struct xs_redirects;
struct xs_rps_table;
struct xs_tables {
    _Atomic(const struct xs_config *) config;
    _Atomic(const struct xs_fib *) fib;
    _Atomic(struct xs_neigh_table *) neigh;
    _Atomic(const struct xs_socket_table *) sockets;
    _Atomic(const struct xs_frame_claims *) frame_claims;
    _Atomic(const struct xs_redirects *) redirects;
    _Atomic(const struct xs_rps_table *) rps;
};

/* Inside a poll only; the pointer must not be kept beyond it. */
#define xs_table(t, name) atomic_load_explicit(&(t)->name, memory_order_acquire)

#endif
