// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Counts frames that a program has redirected to an AF_XDP socket, and that did not get there, by error.
 * User space, and what the errors mean: xdpstack/device/redirect_err.py.
 *
 *      XDP_REDIRECT -> xdp_do_redirect() -> __xsk_map_redirect() -> RX ring
 *                                                | error: the frame is lost
 *                                                +--> tracepoint xdp_redirect_err --> this program --> xs_redirects
 *
 * The program that redirects is told nothing: it has returned by then. It runs when a redirect of the machine has failed, of
 * whatever program; the map tells ours from those of others. A redirect that succeeds does not come by here, nor does it
 * ask whether anybody listens.
 *
 * Nothing is allocated while it runs. It reads its arguments and no kernel memory, so that it needs no BTF; before Linux 5.13
 * there are fewer of them, and the kernel refuses to attach it.
 */
#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/types.h>

#include <bpf/bpf_helpers.h>

typedef __u32 uint32_t;
typedef __u64 uint64_t;

#include "xdpstack_redirect_err.cdef.h"

_Static_assert(sizeof(struct xs_redirect_key) == 8, "no holes");

/* TP_PROTO of xdp_redirect_template, include/trace/events/xdp.h. */
enum { XS_DEVICE, XS_PROGRAM, XS_TARGET, XS_ERROR, XS_MAP_TYPE, XS_MAP_ID, XS_INDEX };

/* As many entries as queues are watched; the loader says. */
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_HASH);
    __uint(max_entries, 1);
    __type(key, struct xs_redirect_key);
    __type(value, struct xs_redirect_errors);
} xs_redirects SEC(".maps");

static __always_inline __u32 xs_counted_as(int error) {
    switch (error) {
    case -ENXIO: return XS_REDIRECT_ENXIO;
    case -ENOMEM: return XS_REDIRECT_ENOMEM;
    case -EINVAL: return XS_REDIRECT_EINVAL;
    case -ENOSPC: return XS_REDIRECT_ENOSPC;
    case -ENOBUFS: return XS_REDIRECT_ENOBUFS;
    default: return XS_REDIRECT_OTHER;
    }
}

SEC("raw_tp/xdp_redirect_err")
int xs_redirect_err(struct bpf_raw_tracepoint_args *context) {
    struct xs_redirect_key key = {.map_id = context->args[XS_MAP_ID], .queue = context->args[XS_INDEX]};
    struct xs_redirect_errors *errors = bpf_map_lookup_elem(&xs_redirects, &key);

    if (errors) errors->frames[xs_counted_as((int)context->args[XS_ERROR])]++;
    return 0;
}

char _license[] SEC("license") = "GPL";
