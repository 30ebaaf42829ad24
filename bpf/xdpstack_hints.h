/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What the device can tell of a frame beyond its bytes: Documentation/networking/xdp-rx-metadata.rst.
 *
 * The kernel's functions for it exist only in a program that is bound to its device, and refuse to be in any other, even
 * where they are never called. So there are two objects of one text: bpf/xdpstack_bound.bpf.c defines XS_XDP_BOUND. All are
 * weak: what a kernel lacks, the loader does not ask for, and the verifier removes the call.
 */
#ifndef XDPSTACK_HINTS_H
#define XDPSTACK_HINTS_H

#include "xdpstack_parse.h"

#ifdef XS_XDP_BOUND

enum xdp_rss_hash_type { XS_RSS_TYPE_NONE };

extern int bpf_xdp_metadata_rx_timestamp(const struct xdp_md *context, __u64 *timestamp) __ksym __weak;
extern int bpf_xdp_metadata_rx_hash(const struct xdp_md *context, __u32 *hash,
                                    enum xdp_rss_hash_type *type) __ksym __weak;
extern int bpf_xdp_metadata_rx_vlan_tag(const struct xdp_md *context, __be16 *proto,
                                        __u16 *tci) __ksym __weak;

/* Each may answer for one frame and not for the next. A time stamp of 0 is none, as in the kernel. */
static __always_inline void xs_read_hints(struct xdp_md *context, __u32 options, struct xs_xdp_hints *out) {
    enum xdp_rss_hash_type type = 0;
    __u64 timestamp = 0;
    __u32 hash = 0;

    if ((options & XS_XDP_OPTION_TIMESTAMP) && !bpf_xdp_metadata_rx_timestamp(context, &timestamp) &&
        timestamp) {
        out->timestamp_ns = timestamp;
        out->valid |= XS_XDP_OPTION_TIMESTAMP;
    }
    if ((options & XS_XDP_OPTION_HASH) && !bpf_xdp_metadata_rx_hash(context, &hash, &type)) {
        out->hash = hash;
        out->hash_type = type;
        out->valid |= XS_XDP_OPTION_HASH;
    }
}

static __always_inline void xs_read_tag(struct xdp_md *context, struct xs_tag *out) {
    struct xs_tag tag = {};

    if (!bpf_xdp_metadata_rx_vlan_tag(context, &tag.proto, &tag.tci)) *out = tag;
}

#else

static __always_inline void xs_read_hints(struct xdp_md *context, __u32 options, struct xs_xdp_hints *out) {}
static __always_inline void xs_read_tag(struct xdp_md *context, struct xs_tag *out) {}

#endif

#endif
