// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Whether this kernel loads programs that replace functions of others, as libxdp's dispatcher has them: a function, its
 * caller, and what is to replace it. Loaded and thrown away by xdpstack/device/joined.py; never attached.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

__attribute__((noinline)) int xs_replaced(struct xdp_md *context) {
    volatile int verdict = XDP_PASS;

    return context ? verdict : XDP_ABORTED;
}

SEC("xdp")
int xs_calls(struct xdp_md *context) { return xs_replaced(context); }

SEC("freplace/xs_replaced")
int xs_replaces(struct xdp_md *context) { return XDP_PASS; }

char _license[] SEC("license") = "GPL";
