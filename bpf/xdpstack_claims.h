/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* View to verdict: the claims, from the narrowest to the widest. The first that lifts the frame wins.
 *
 *      claim       tables                              lifts frames
 *      socket      xs_ports; xs_sockets or xs_local,   to the own MAC; to a group, where the claim says so
 *      prefix      xs_prefixes                         to the own MAC or a group; to any where it says so;
 *      protocol    xs_selectors                          ARP, ND and the host's SSH only where it names them
 *      ethertype   xs_selectors                        the same
 *      forward     xs_selectors, xs_local, xs_forward  to the own MAC, to none of the host's addresses
 *      everything  xs_everything or xs_selectors       as prefix does, but not its exceptions
 */
#ifndef XDPSTACK_CLAIMS_H
#define XDPSTACK_CLAIMS_H

#include "xdpstack_parse.h"

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, XS_XDP_PORTS);
    __type(key, __u32);
    __type(value, struct xs_xdp_claim);
} xs_ports SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, 65536);
    __type(key, struct xs_xdp_socket_key);
    __type(value, struct xs_xdp_claim);
} xs_sockets SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, XS_XDP_PORTS_IPV6);
    __type(key, __u32);
    __type(value, struct xs_xdp_shortcut);
} xs_shortcuts SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, 4096);
    __type(key, struct xs_xdp_local_key);
    __type(value, __u32);
} xs_local SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, 4096);
    __type(key, struct xs_xdp_prefix_key);
    __type(value, struct xs_xdp_claim);
} xs_prefixes SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, 4096);
    __type(key, struct xs_xdp_selector_key);
    __type(value, struct xs_xdp_claim);
} xs_selectors SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct xs_xdp_claim);
} xs_everything SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, 4096);
    __type(key, struct xs_xdp_kept_key);
    __type(value, __u32);
} xs_kept SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, 65536);
    __type(key, struct xs_xdp_prefix_key);
    __type(value, struct xs_xdp_claim);
} xs_forward SEC(".maps");

/* XS_XDP_LOCAL_*, or 0 for an address that is not the host's. */
static __always_inline __u32 xs_local_kind(const struct xs_view *view) {
    struct xs_xdp_local_key key = {.domain = view->domain};
    __u32 *kind;

    if (view->home) return XS_XDP_LOCAL_UNICAST;
    __builtin_memcpy(key.address, view->address, sizeof(key.address));
    kind = bpf_map_lookup_elem(&xs_local, &key);
    return kind ? *kind : 0;
}

static __always_inline struct xs_xdp_claim *xs_find_prefix(void *trie, const struct xs_view *view,
                                                           __u32 domain) {
    struct xs_xdp_prefix_key key = {.domain = domain};

    key.prefix_length = XS_XDP_PREFIX_FIXED + (domain & XS_XDP_DOMAIN_IPV6 ? 128 : 32);
    __builtin_memcpy(key.address, view->address, sizeof(key.address));
    return bpf_map_lookup_elem(trie, &key);
}

static __always_inline struct xs_xdp_claim *xs_find_selector(__u32 domain, __u16 number) {
    struct xs_xdp_selector_key key = {.domain = domain, .number = number};

    return bpf_map_lookup_elem(&xs_selectors, &key);
}

static __always_inline struct xs_xdp_claim *xs_find_everything(__u32 vlan) {
    struct xs_xdp_claim *untagged;
    __u32 zero = 0;

    if (vlan) return xs_find_selector(vlan, XS_XDP_SELECT_EVERYTHING);
    untagged = bpf_map_lookup_elem(&xs_everything, &zero);
    return untagged && untagged->flags ? untagged : NULL; /* the claim may be one in a VLAN alone */
}

static __always_inline bool xs_socket_takes(struct xs_view *view, const struct xs_xdp_claim *claim) {
    if (view->own || (view->group && (claim->flags & XS_XDP_CLAIM_GROUP))) return true;
    xs_obstacle(view, XS_XDP_PASS_NOT_OUR_MAC);
    return false;
}

/* The claim on this address and port of an IPv4 frame to the own MAC, if there is a shortcut to it. 0: hash. */
static __always_inline __u32 xs_take_shortcut(const struct xs_view *view) {
    __u32 index = bpf_ntohs(view->port);
    struct xs_xdp_shortcut *shortcut;

    if (view->domain || !view->own) return 0;
    shortcut = bpf_map_lookup_elem(&xs_shortcuts, &index);
    return shortcut && shortcut->address == view->address[0] ? shortcut->id : 0;
}

/* The id of the socket claim that lifts the frame, or 0. Two array look-ups are the common way; a second claim on the port, or
 * one that is not IPv4, is looked up in a hash. */
static __always_inline __u32 xs_match_socket(struct xs_view *view) {
    __u32 index = bpf_ntohs(view->port) + (view->domain & XS_XDP_DOMAIN_IPV6 ? XS_XDP_PORTS_IPV6 : 0);
    struct xs_xdp_claim *any = bpf_map_lookup_elem(&xs_ports, &index);
    __u32 local, id;

    if (!any || !any->flags) return 0;
    if (any->flags & XS_XDP_CLAIM_EXACT) {
        struct xs_xdp_socket_key key = {.port = view->port, .domain = view->domain};
        struct xs_xdp_claim *exact;

        id = xs_take_shortcut(view);
        if (id) return id;
        __builtin_memcpy(key.address, view->address, sizeof(key.address));
        exact = bpf_map_lookup_elem(&xs_sockets, &key);
        if (exact && (exact->flags & XS_XDP_CLAIM_EXACT) && xs_socket_takes(view, exact)) return exact->id;
        if (view->domain & XS_XDP_DOMAIN_VLAN) {
            __builtin_memset(key.address, 0, sizeof(key.address));
            any = bpf_map_lookup_elem(&xs_sockets, &key);
            if (!any) return 0;
        }
    } else if (view->domain & XS_XDP_DOMAIN_VLAN) {
        return 0;
    }
    if (!(any->flags & XS_XDP_CLAIM_LIFT)) return 0;
    local = xs_local_kind(view);
    if (!local || (local == XS_XDP_LOCAL_GROUP && !(any->flags & XS_XDP_CLAIM_GROUP))) {
        xs_obstacle(view, XS_XDP_PASS_NOT_LOCAL);
        return 0;
    }
    return xs_socket_takes(view, any) ? any->id : 0;
}

/* Is this one of the ports that wide claims leave to the host? What cannot be told is taken for one. */
static __always_inline void xs_keep(struct xs_view *view) {
    struct xs_xdp_kept_key key = {
        .port = view->port,
        .domain = view->domain & ~(__u32)XS_XDP_DOMAIN_IPV6,
        .protocol = view->protocol,
    };
    __u32 *found = bpf_map_lookup_elem(&xs_kept, &key);
    __u32 kept = view->upper ? 0 : XS_XDP_KEPT_SSH | XS_XDP_KEPT_EXCEPT;

    if (found) kept |= *found;
    if (kept & XS_XDP_KEPT_SSH) view->needs |= XS_XDP_CLAIM_SSH;
    if (kept & XS_XDP_KEPT_EXCEPT) view->excepted = true;
}

/* Whether xs_kept may have something to say of a packet of this protocol. */
static __always_inline bool xs_may_keep(const struct xs_view *view, __u32 kinds) {
    if (!view->upper) return kinds & XS_XDP_KIND_KEPT;
    if (view->protocol == IPPROTO_UDP) return kinds & XS_XDP_KIND_KEPT_UDP;
    return kinds & (view->protocol == IPPROTO_TCP ? XS_XDP_KIND_KEPT_TCP : XS_XDP_KIND_KEPT_OTHER);
}

/* Does a wide claim cover this frame, by all that it says and names? */
static __always_inline bool xs_lifts(struct xs_view *view, const struct xs_xdp_claim *claim) {
    __u32 missing;

    if (!claim) return false;
    if (claim->flags & XS_XDP_CLAIM_EXCEPT) view->excepted = true;
    if (!(claim->flags & XS_XDP_CLAIM_LIFT)) return false;
    missing = view->needs & ~claim->flags;
    if (!missing) {
        view->claim_id = claim->id;
        return true;
    }
    if (missing & XS_XDP_CLAIM_ANY_MAC)
        xs_obstacle(view, XS_XDP_PASS_NOT_OUR_MAC);
    else if (missing & XS_XDP_CLAIM_ARP)
        xs_obstacle(view, XS_XDP_PASS_ARP);
    else if (missing & XS_XDP_CLAIM_ND)
        xs_obstacle(view, XS_XDP_PASS_ND);
    else
        xs_obstacle(view, XS_XDP_PASS_SSH);
    return false;
}

/* Verified by itself. Returns the verdict with its cause. */
__attribute__((noinline)) __u32 xs_match_wide(struct xs_view *view, __u32 kinds) {
    __u32 local = 0, vlan;
    bool keeps;

    if (!view) return XS_XDP_PASS_UNCLAIMED;
    vlan = view->domain & ~(__u32)XS_XDP_DOMAIN_IPV6;
    keeps = xs_may_keep(view, kinds);
    if (view->ip && (keeps || kinds & XS_XDP_KIND_FORWARD)) local = xs_local_kind(view);
    if (local && keeps) xs_keep(view);

    if (view->ip && (kinds & XS_XDP_KIND_PREFIX)) {
        if (xs_lifts(view, xs_find_prefix(&xs_prefixes, view, view->domain))) return XS_XDP_REDIRECT_PREFIX;
    }
    if (view->upper && (kinds & XS_XDP_KIND_PROTOCOL)) {
        if (xs_lifts(view, xs_find_selector(view->domain, view->protocol))) return XS_XDP_REDIRECT_PROTOCOL;
    }
    /* Smaller numbers are lengths of 802.3 frames. */
    if (bpf_ntohs(view->ethertype) >= ETH_P_802_3_MIN && (kinds & XS_XDP_KIND_ETHERTYPE)) {
        if (xs_lifts(view, xs_find_selector(vlan, bpf_ntohs(view->ethertype))))
            return XS_XDP_REDIRECT_ETHERTYPE;
    }
    if (view->ip && view->own && !local && (kinds & XS_XDP_KIND_FORWARD)) {
        if (xs_lifts(view, xs_find_selector(vlan, XS_XDP_SELECT_FORWARD))) {
            struct xs_xdp_claim *route = xs_find_prefix(&xs_forward, view, view->domain & XS_XDP_DOMAIN_IPV6);

            if (route && (route->flags & XS_XDP_CLAIM_LIFT)) return XS_XDP_REDIRECT_FORWARD;
            xs_obstacle(view, XS_XDP_PASS_NO_ROUTE);
        }
    }
    if (kinds & XS_XDP_KIND_EVERYTHING) {
        struct xs_xdp_claim *everything = xs_find_everything(vlan);

        if (everything && view->excepted)
            xs_obstacle(view, XS_XDP_PASS_EXCEPTION);
        else if (xs_lifts(view, everything))
            return XS_XDP_REDIRECT_EVERYTHING;
    }
    return view->cause;
}

/* The verdict on a frame with its cause. A lifted one has its claim_id in the view. */
static __always_inline __u32 xs_match(struct xs_view *view, __u32 kinds) {
    if (view->protocol == IPPROTO_UDP && view->port && (kinds & XS_XDP_KIND_SOCKET)) {
        view->claim_id = xs_match_socket(view);
        if (view->claim_id) return XS_XDP_REDIRECT_SOCKET;
    }
    if (kinds & XS_XDP_KIND_WIDE) return xs_match_wide(view, kinds);
    return view->cause;
}

#endif
