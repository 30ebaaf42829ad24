// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* The pre-filter: drops what comes from denied addresses, passes everything else. For NICs that run BPF themselves
 * (XDP_FLAGS_HW_MODE), where it stands before the kernel and before the program that lifts.
 * Definition and user space: xdpstack/device/prefilter.py.
 *
 *      frame -> VLAN tags (two at most) -> IPv4 or IPv6 source -> denied? -> XDP_DROP
 *                                               | no header        | no
 *                                               +------------------+----> XDP_PASS
 *
 * It keeps to what offloading drivers take (nfp): arrays and hashes, no per-CPU maps, no constants in .rodata, no
 * calls but of look-ups.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum { XS_PASSED, XS_DROPPED, XS_COUNTS };

/* An IPv4 address is mapped: ::ffff:a.b.c.d. */
struct xs_denied_key {
    __u32 word[4];
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1);
    __type(key, struct xs_denied_key);
    __type(value, __u32);
} xs_denied SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, XS_COUNTS);
    __type(key, __u32);
    __type(value, __u64);
} xs_counts SEC(".maps");

struct xs_vlan {
    __be16 tci;
    __be16 ethertype;
};

static __always_inline int xs_counted(__u32 which, int verdict) {
    __u64 *count = bpf_map_lookup_elem(&xs_counts, &which);

    if (count) __sync_fetch_and_add(count, 1);
    return verdict;
}

SEC("xdp")
int xs_prefilter(struct xdp_md *ctx) {
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct ethhdr *eth = data;
    struct xs_denied_key key = {};
    __be16 proto;

    if ((void *)(eth + 1) > end) return xs_counted(XS_PASSED, XDP_PASS);
    proto = eth->h_proto;
    data = eth + 1;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        struct xs_vlan *tag = data;

        if (proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD)) break;
        if ((void *)(tag + 1) > end) return xs_counted(XS_PASSED, XDP_PASS);
        proto = tag->ethertype;
        data = tag + 1;
    }
    if (proto == bpf_htons(ETH_P_IP)) {
        struct iphdr *ip = data;

        if ((void *)(ip + 1) > end) return xs_counted(XS_PASSED, XDP_PASS);
        key.word[2] = bpf_htonl(0xffff);
        key.word[3] = ip->saddr;
    } else if (proto == bpf_htons(ETH_P_IPV6)) {
        struct ipv6hdr *ip = data;

        if ((void *)(ip + 1) > end) return xs_counted(XS_PASSED, XDP_PASS);
        key.word[0] = ip->saddr.in6_u.u6_addr32[0];
        key.word[1] = ip->saddr.in6_u.u6_addr32[1];
        key.word[2] = ip->saddr.in6_u.u6_addr32[2];
        key.word[3] = ip->saddr.in6_u.u6_addr32[3];
    } else {
        return xs_counted(XS_PASSED, XDP_PASS);
    }
    if (bpf_map_lookup_elem(&xs_denied, &key)) return xs_counted(XS_DROPPED, XDP_DROP);
    return xs_counted(XS_PASSED, XDP_PASS);
}

char _license[] SEC("license") = "GPL";
