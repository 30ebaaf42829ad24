// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* The program of xdpstack.bpf.c once more, bound to its device: it can ask the device what it knows of a frame. It is loaded
 * (BPF_F_XDP_DEV_BOUND_ONLY) when a user asks for that; it runs in native mode alone, and only on that one device.
 */
#define XS_XDP_BOUND
#include "xdpstack.bpf.c"
