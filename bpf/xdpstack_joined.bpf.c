// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* The program of xdpstack.bpf.c once more, for libxdp's dispatcher on a kernel that has a program replace a function only if
 * it changes no more of a packet than that does (Linux 6.13), and a dispatcher whose functions change nothing (libxdp before
 * May 2025). It puts no metadata before a frame, whatever it is asked.
 */
#define XS_XDP_JOINED
#include "xdpstack.bpf.c"
