/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Frame to view: what the claims are matched against, read once.
 *
 *      | destination | source | VLAN tags? | IPv4, options; or IPv6, at most 8 extension headers | UDP, ...
 *        own, group             domain,      domain, address, protocol                            port
 *                               ethertype
 *
 * Every access is checked against data_end, for the verifier as much as for us. Nothing here decides: a
 * header that cannot be read leaves its cause in the view, and claims that need nothing from that header may
 * still lift the frame.
 */
#ifndef XDPSTACK_PARSE_H
#define XDPSTACK_PARSE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "xdpstack_maps.h"

typedef _Bool bool;
enum { false, true };

/* Private to the kernel's sources, so the installed headers lack them. */
#define XS_IP_FRAGMENT_MASK 0x3fff /* IP_MF | IP_OFFSET of include/net/ip.h */
#define XS_VLAN_VID_MASK 0x0fff
/* A bound for the verifier: 8 extension headers of at most 2,048 bytes stay below. */
#define XS_OFFSET_MAX 0x7fff
#define XS_ICMPV6_MLD_FIRST 130 /* query, report, done; then router and neighbour discovery up to: */
#define XS_ICMPV6_ND_LAST 137   /* redirect */
#define XS_ICMPV6_MLD2_REPORT 143

struct xs_vlan_header {
    __be16 tci;
    __be16 ethertype;
};

/* A tag; proto 0: none. */
struct xs_tag {
    __be16 proto;
    __u16 tci;
};

struct xs_extension_header {
    __u8 next;
    __u8 length; /* of all but the first 8 bytes, in units of 8 */
    __u8 rest[6];
};

/* The first eight bytes above IP. Ports are where UDP, TCP, SCTP and DCCP all have them. */
struct xs_transport_header {
    union {
        struct {
            __be16 source;
            __be16 destination;
        };
        __u8 icmp_type;
    };
    __u8 rest[4];
};

/* No padding: a function that is verified by itself takes it as so many readable bytes. */
struct xs_view {
    __u32 address[4]; /* destination, network order; IPv4 in the first word */
    __u32 cause;      /* the first obstacle met */
    __u32 needs;      /* XS_XDP_CLAIM_*: what a claim must say to lift this frame */
    __u32 claim_id;   /* of the claim that lifts it */
    __s32 room;       /* bytes from `offset` on, by the length in the IP header: beyond is Ethernet padding */
    __u32 domain;
    __be16 ethertype; /* of what follows the VLAN tags */
    __be16 port;      /* destination; 0: none, or not to be seen */
    __u16 offset;     /* of the transport header, from the frame's start; 0: none, or not to be seen */
    __u8 protocol;
    bool own;      /* sent to the device's own MAC */
    bool group;    /* sent to broadcast or a multicast MAC */
    bool ip;       /* address is valid, and domain has its family */
    bool upper;    /* protocol is valid */
    bool home;     /* address is a unicast address of the host; others that are not so marked may be, too */
    bool excepted; /* everything but this */
};

static __always_inline void xs_obstacle(struct xs_view *view, __u32 cause) {
    if (view->cause == XS_XDP_PASS_UNCLAIMED || view->cause == XS_XDP_PASS_VLAN ||
        view->cause == XS_XDP_PASS_QINQ)
        view->cause = cause;
}

/* Not the authentication header: what is behind it is the kernel's to authenticate, as in IPv4, where it is a protocol. */
static __always_inline bool xs_is_extension(__u8 protocol) {
    return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING || protocol == IPPROTO_FRAGMENT ||
           protocol == IPPROTO_DSTOPTS;
}

static __always_inline bool xs_has_ports(__u8 protocol) {
    return protocol == IPPROTO_UDP || protocol == IPPROTO_TCP || protocol == IPPROTO_SCTP ||
           protocol == IPPROTO_DCCP || protocol == IPPROTO_UDPLITE;
}

/* A fragment has no port, not even the first: all of a datagram goes the same way. */
static __always_inline void xs_fragment(struct xs_view *view, __u32 kinds) {
    if (view->protocol == IPPROTO_UDP && (kinds & XS_XDP_KIND_SOCKET))
        xs_obstacle(view, XS_XDP_PASS_FRAGMENT);
}

/* RFC 791. The checks that make the addresses and the header's end trustworthy, no others: ip_rcv's are in
 * the ip stage. */
static __always_inline void xs_parse_ipv4(struct xs_view *view, void *data, void *end, __u16 offset,
                                          __u32 kinds) {
    struct iphdr *ip = data + offset;
    __u16 length;

    if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5) {
        xs_obstacle(view, XS_XDP_PASS_MALFORMED);
        return;
    }
    view->address[0] = ip->daddr;
    view->protocol = ip->protocol;
    view->ip = view->upper = true;
    if (ip->frag_off & bpf_htons(XS_IP_FRAGMENT_MASK)) {
        xs_fragment(view, kinds);
        return;
    }
    length = ip->ihl * 4;
    view->offset = offset + length;
    view->room = (__s32)bpf_ntohs(ip->tot_len) - (__s32)length;
}

/* Walks IPv6 extension headers from view->offset to the transport header: RFC 8200, section 4. A fragment is told by its
 * header even if it is the only one (RFC 6946): the kernel takes those too. Verified by itself, as are all functions that are
 * not inlined: otherwise every way through these headers would be followed through all that comes after. */
__attribute__((noinline)) int xs_skip_extensions(struct xdp_md *context, struct xs_view *view, __u32 kinds) {
    void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
    __u32 offset, length;

    if (!view) return 0;
    offset = view->offset;
    view->offset = 0;
    for (int i = 0; i <= XS_XDP_EXTHDR_MAX && offset < XS_OFFSET_MAX; i++) {
        struct xs_extension_header *extension = data + offset;

        if (!xs_is_extension(view->protocol)) {
            view->upper = true;
            view->offset = offset;
            return 0;
        }
        if (i == XS_XDP_EXTHDR_MAX) {
            xs_obstacle(view, XS_XDP_PASS_EXTHDR);
            return 0;
        }
        if ((void *)(extension + 1) > end) break;
        if (view->protocol == IPPROTO_FRAGMENT) {
            /* What follows is cut anywhere: only the protocol named here is the same in every fragment. */
            view->protocol = extension->next;
            view->upper = !xs_is_extension(view->protocol);
            xs_fragment(view, kinds);
            return 0;
        }
        length = 8 + 8 * (__u32)extension->length;
        view->protocol = extension->next;
        view->room -= length;
        offset += length;
    }
    xs_obstacle(view, XS_XDP_PASS_MALFORMED);
    return 0;
}

static __always_inline void xs_parse_ipv6(struct xdp_md *context, struct xs_view *view, void *data, void *end,
                                          __u16 offset, __u32 kinds) {
    struct ipv6hdr *ip = data + offset;

    if ((void *)(ip + 1) > end || ip->version != 6) {
        xs_obstacle(view, XS_XDP_PASS_MALFORMED);
        return;
    }
    __builtin_memcpy(view->address, &ip->daddr, sizeof(view->address));
    view->domain |= XS_XDP_DOMAIN_IPV6;
    view->protocol = ip->nexthdr;
    view->room = bpf_ntohs(ip->payload_len);
    view->offset = offset + sizeof(*ip);
    view->ip = true;
    if (xs_is_extension(view->protocol))
        xs_skip_extensions(context, view, kinds);
    else
        view->upper = true;
}

/* The port, or whether this is neighbour discovery. */
static __always_inline void xs_parse_transport(struct xs_view *view, void *data, void *end) {
    bool icmp = view->protocol == IPPROTO_ICMPV6 && (view->domain & XS_XDP_DOMAIN_IPV6);
    struct xs_transport_header *transport;
    __u32 offset = view->offset;

    if (!offset || offset >= XS_OFFSET_MAX || (!icmp && !xs_has_ports(view->protocol))) return;
    transport = data + offset;
    if ((void *)(transport + 1) > end || view->room < (__s32)sizeof(*transport)) {
        if (icmp) view->needs |= XS_XDP_CLAIM_ND;
        xs_obstacle(view, XS_XDP_PASS_MALFORMED);
        return;
    }
    if (!icmp) {
        view->port = transport->destination;
        return;
    }
    /* Multicast listener discovery stays with neighbour discovery: without it a snooping switch forgets the
     * host's solicited-node groups, and nobody finds its address any more. */
    if ((transport->icmp_type >= XS_ICMPV6_MLD_FIRST && transport->icmp_type <= XS_ICMPV6_ND_LAST) ||
        transport->icmp_type == XS_ICMPV6_MLD2_REPORT)
        view->needs |= XS_XDP_CLAIM_ND;
}

static __always_inline bool xs_is_tag(__be16 ethertype) {
    return ethertype == bpf_htons(ETH_P_8021Q) || ethertype == bpf_htons(ETH_P_8021AD);
}

/* The tag at `offset`, of the kind that view->ethertype says; that is then what follows it. */
static __always_inline bool xs_take_tag(struct xs_view *view, void *data, void *end, __u16 *offset,
                                        struct xs_tag *out) {
    struct xs_vlan_header *tag = data + *offset;

    if ((void *)(tag + 1) > end) return false;
    out->proto = view->ethertype;
    out->tci = bpf_ntohs(tag->tci);
    view->ethertype = tag->ethertype;
    *offset += sizeof(*tag);
    return true;
}

/* Tags to domain; the outermost may have been taken off by the device. One 802.1Q tag is a VLAN, and one behind an 802.1ad tag
 * is a VLAN within a service VLAN; any other tags are the kernel's. Returns as xs_parse(). */
static __always_inline __u32 xs_parse_tags(struct xs_view *view, void *data, void *end, __u16 *offset,
                                           __u32 kinds, struct xs_tag outer) {
    struct xs_tag inner = {};
    __u16 service, vlan;

    if (!outer.proto && xs_is_tag(view->ethertype) && !xs_take_tag(view, data, end, offset, &outer))
        return XS_XDP_PASS_MALFORMED;
    if (!outer.proto) return XS_XDP_PASS_UNCLAIMED;
    vlan = outer.tci & XS_VLAN_VID_MASK;
    if (outer.proto == bpf_htons(ETH_P_8021AD)) {
        if (view->ethertype != bpf_htons(ETH_P_8021Q)) return XS_XDP_PASS_QINQ;
        if (!xs_take_tag(view, data, end, offset, &inner)) return XS_XDP_PASS_MALFORMED;
        service = vlan;
        vlan = inner.tci & XS_VLAN_VID_MASK;
        if (!service || !vlan || xs_is_tag(view->ethertype) || !(kinds & XS_XDP_KIND_VLAN))
            return XS_XDP_PASS_QINQ;
        view->domain = (__u32)service << XS_XDP_DOMAIN_SERVICE_SHIFT | XS_XDP_DOMAIN_VLAN | vlan;
        view->cause = XS_XDP_PASS_QINQ;
        return XS_XDP_PASS_UNCLAIMED;
    }
    if (xs_is_tag(view->ethertype)) return XS_XDP_PASS_QINQ;
    if (!vlan) return XS_XDP_PASS_UNCLAIMED; /* a priority alone, as if untagged: vlan_do_receive() */
    if (!(kinds & XS_XDP_KIND_VLAN)) return XS_XDP_PASS_VLAN;
    view->domain = XS_XDP_DOMAIN_VLAN | vlan;
    view->cause = XS_XDP_PASS_VLAN;
    return XS_XDP_PASS_UNCLAIMED;
}

/* Reads the frame, off which the device may have taken a tag. Returns XS_XDP_PASS_UNCLAIMED if claims are to be matched,
 * else the cause to pass it right away. */
static __always_inline __u32 xs_parse(struct xdp_md *context, struct xs_view *view,
                                      const struct xs_xdp_device *device, struct xs_tag stripped) {
    void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
    struct ethhdr *ethernet = data;
    __u16 offset = sizeof(*ethernet);
    __u32 kinds = device->kinds, cause;
    __u64 mac;

    if ((void *)(ethernet + 1) > end) return XS_XDP_PASS_MALFORMED;
    mac = *(__u32 *)ethernet->h_dest | (__u64) * (__u16 *)(ethernet->h_dest + 4) << 32;
    view->own = mac == device->mac;
    view->group = ethernet->h_dest[0] & 1;
    if (!view->own && !view->group) {
        if (!(kinds & XS_XDP_KIND_ANY_MAC)) return XS_XDP_PASS_NOT_OUR_MAC;
        view->needs |= XS_XDP_CLAIM_ANY_MAC;
    }

    view->ethertype = ethernet->h_proto;
    cause = xs_parse_tags(view, data, end, &offset, kinds, stripped);
    if (cause != XS_XDP_PASS_UNCLAIMED) return cause;

    if (view->ethertype == bpf_htons(ETH_P_IP)) {
        xs_parse_ipv4(view, data, end, offset, kinds);
    } else if (view->ethertype == bpf_htons(ETH_P_IPV6)) {
        xs_parse_ipv6(context, view, data, end, offset, kinds);
        data = (void *)(long)context->data;
        end = (void *)(long)context->data_end;
    } else if (view->ethertype == bpf_htons(ETH_P_ARP)) {
        view->needs |= XS_XDP_CLAIM_ARP;
    }
    xs_parse_transport(view, data, end);
    return XS_XDP_PASS_UNCLAIMED;
}

#endif
