/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The layouts that the XDP program shares with user space, for C: the program itself, and the dead-man
 * watchdog. Python reads xdpstack_layout.cdef.h through cffi. User space includes <stdint.h> first; the
 * program has no C library. */
#ifndef XDPSTACK_MAPS_H
#define XDPSTACK_MAPS_H

#include <linux/types.h>

#ifdef __bpf__
typedef __u16 uint16_t;
typedef __u32 uint32_t;
typedef __u64 uint64_t;
#endif

#include "xdpstack_layout.cdef.h"

/* The kernel hashes and compares whole keys: in a hole left by the compiler, equal keys would differ. */
_Static_assert(sizeof(struct xs_xdp_deadman) == 128, "deadline and time stamps on cache lines of their own");
_Static_assert(sizeof(struct xs_xdp_counters) == 8 * (XS_XDP_CAUSES + 2), "no holes");
_Static_assert(sizeof(struct xs_xdp_device) == 16, "no holes");
_Static_assert(sizeof(struct xs_xdp_claim) == 8, "one 64-bit store replaces a claim");
_Static_assert(sizeof(struct xs_xdp_shortcut) == 8, "one 64-bit store replaces a shortcut");
_Static_assert(sizeof(struct xs_xdp_metadata) == 8, "the kernel wants metadata in multiples of four bytes");
_Static_assert(sizeof(struct xs_xdp_hints) + sizeof(struct xs_xdp_metadata) == 32,
               "kernels before 6.7 take no more");
_Static_assert(sizeof(struct xs_xdp_socket_key) == 24, "no holes");
_Static_assert(sizeof(struct xs_xdp_local_key) == 20, "no holes");
_Static_assert(sizeof(struct xs_xdp_prefix_key) == 24, "no holes");
_Static_assert(sizeof(struct xs_xdp_selector_key) == 8, "no holes");
_Static_assert(sizeof(struct xs_xdp_kept_key) == 8, "no holes");

#endif
