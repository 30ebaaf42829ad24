// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* The XDP program: lifts claimed frames out of the kernel, into the AF_XDP socket of their receive queue.
 * Contract: xdpstack/stages/xdp.py. Definition: xdpstack/device/verdict.py.
 *
 *      frame -> deadline over? -> parse -> match claims -> XSKMAP[rx_queue_index] -> metadata?
 *                     |             |            |             | no socket there          |
 *                     +-------------+------------+-------------+--------------------------+--> XDP_PASS
 *
 * It runs before an skb exists, for every frame of the device, claimed or not; so it asks for the least
 * first. Each frame is counted by its verdict and what led to it. None is dropped, and of none a byte is
 * changed: what is not lifted is the kernel's, as if the program were not there. One exception: a driver that
 * has room for the metadata and not for the hints before it passes the frame with the metadata, which tc and
 * GRO see (PASS_NO_METADATA).
 *
 * User space owns the maps. Whatever it writes, in whatever order, and whatever a frame holds, the worst is a
 * frame passed.
 */
#include "xdpstack_claims.h"
#include "xdpstack_hints.h"

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct xs_xdp_deadman);
} xs_deadman SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct xs_xdp_device);
} xs_device SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct xs_xdp_counters);
} xs_counters SEC(".maps");

/* As many entries as the device has receive queues; the loader says. */
struct {
    __uint(type, BPF_MAP_TYPE_XSKMAP);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} xs_xsks SEC(".maps");

/* Set before load, so that the verifier removes what is not asked for. */
const volatile __u32 xs_options = 0;

/* The process is stopped or hangs: the kernel has everything. Marks the first such frame since the deadline
 * was last renewed; a deadline that was never set has no first. */
static __always_inline __u32 xs_lapsed(struct xs_xdp_deadman *deadman, struct xs_xdp_counters *counters,
                                       __u64 now, __u64 deadline) {
    __u64 first = *(volatile __u64 *)&deadman->first_pass_ns;

    counters->last_pass_ns = now;
    if (deadline && first < deadline &&
        __sync_val_compare_and_swap(&deadman->first_pass_ns, first, now) == first)
        __sync_fetch_and_add(&deadman->lapses, 1);
    return XS_XDP_PASS_DEADMAN;
}

#ifndef XS_XDP_JOINED

static __always_inline bool xs_put_metadata(struct xdp_md *context, __u32 claim_id, __u32 cause) {
    struct xs_xdp_metadata *metadata;

    if (bpf_xdp_adjust_meta(context, -(int)sizeof(*metadata))) return false;
    metadata = (void *)(long)context->data_meta;
    if ((void *)(metadata + 1) > (void *)(long)context->data) return false;
    metadata->claim_id = claim_id;
    metadata->cause = cause;
    return true;
}

static __always_inline bool xs_put_hints(struct xdp_md *context, struct xs_tag stripped) {
    struct xs_xdp_hints said = {}, *hints;

    xs_read_hints(context, xs_options, &said);
    if (stripped.proto) {
        said.vlan_proto = bpf_ntohs(stripped.proto);
        said.vlan_tci = stripped.tci;
        said.valid |= XS_XDP_OPTION_VLAN;
    }
    if (bpf_xdp_adjust_meta(context, -(int)sizeof(*hints))) return false;
    hints = (void *)(long)context->data_meta;
    if ((void *)(hints + 1) > (void *)(long)context->data) return false;
    *hints = said;
    return true;
}

#endif

static __always_inline __u32 xs_decide(struct xdp_md *context, struct xs_xdp_counters *counters) {
    __u32 zero = 0;
    struct xs_xdp_deadman *deadman = bpf_map_lookup_elem(&xs_deadman, &zero);
    struct xs_xdp_device *device = bpf_map_lookup_elem(&xs_device, &zero);
    struct xs_view view = {.cause = XS_XDP_PASS_UNCLAIMED};
    struct xs_tag stripped = {};
    __u64 deadline, now;
    __u32 cause;

    if (!deadman || !device) return XS_XDP_PASS_UNCLAIMED;
    deadline = *(volatile __u64 *)&deadman->deadline_ns;
    now = bpf_ktime_get_coarse_ns();
    if (now >= deadline) return xs_lapsed(deadman, counters, now, deadline);
    if (!device->kinds) return XS_XDP_PASS_UNCLAIMED;

    if (xs_options & XS_XDP_OPTION_VLAN) xs_read_tag(context, &stripped);
    cause = xs_parse(context, &view, device, stripped);
    if (cause != XS_XDP_PASS_UNCLAIMED) return cause;
    view.home = device->home && view.ip && !view.domain && view.address[0] == device->home;
    cause = xs_match(&view, device->kinds);
    if (cause < XS_XDP_REDIRECT_SOCKET) return cause;
    if (bpf_redirect_map(&xs_xsks, context->rx_queue_index, XDP_PASS) != XDP_REDIRECT)
        return XS_XDP_PASS_NO_SOCKET;
#ifndef XS_XDP_JOINED
    if ((xs_options & XS_XDP_OPTION_METADATA) && !xs_put_metadata(context, view.claim_id, cause))
        return XS_XDP_PASS_NO_METADATA;
    if ((xs_options & XS_XDP_OPTION_HINTS) && !xs_put_hints(context, stripped))
        return XS_XDP_PASS_NO_METADATA;
#endif
    counters->last_redirect_ns = now;
    return cause;
}

static __always_inline int xs_run(struct xdp_md *context) {
    __u32 zero = 0, cause;
    struct xs_xdp_counters *counters = bpf_map_lookup_elem(&xs_counters, &zero);

    if (!counters) return XDP_PASS;
    cause = xs_decide(context, counters);
    if (cause < XS_XDP_CAUSES) counters->frames[cause]++;
    return cause >= XS_XDP_REDIRECT_SOCKET ? XDP_REDIRECT : XDP_PASS;
}

/* Twins: the first also sees frames in several buffers (jumbo), if kernel and driver can; the second is for
 * those that cannot. */
SEC("xdp.frags")
int xs_xdp_frags(struct xdp_md *context) { return xs_run(context); }

SEC("xdp")
int xs_xdp_plain(struct xdp_md *context) { return xs_run(context); }

/* What libxdp's dispatcher reads of a program that joins others: after those that filter (xdp-filter has 10), which lower
 * numbers have; and what this one passes the next one sees. It is the names of the variables that say for which program. */
#define XS_RUN_CONFIG(function) _##function SEC(".xdp_run_config")

struct {
    __uint(priority, 50);
    __uint(XDP_PASS, 1);
} XS_RUN_CONFIG(xs_xdp_frags), XS_RUN_CONFIG(xs_xdp_plain);

/* Of the two licences the sources may be used under, the one that the kernel asks for. */
char _license[] SEC("license") = "GPL";
