/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What xdpstack_redirect_err.bpf.c shares with user space: plain C for clang, gcc and cffi. Each struct is a value or key of
 * the map xs_redirects. */

/* A place in a map of AF_XDP sockets: the map's id, and the index in it, which is the receive queue's number. */
struct xs_redirect_key {
    uint32_t map_id;
    uint32_t queue;
};

/* Errors that are counted each for itself: those that xsk_rcv() and xsk_generic_rcv() return. */
#define XS_REDIRECT_OTHER 0
#define XS_REDIRECT_ENXIO 1
#define XS_REDIRECT_ENOMEM 2
#define XS_REDIRECT_EINVAL 3
#define XS_REDIRECT_ENOSPC 4
#define XS_REDIRECT_ENOBUFS 5
#define XS_REDIRECT_ERRORS 6

/* One for each CPU. Written by the program alone; user space makes the entry, and adds up. */
struct xs_redirect_errors {
    uint64_t frames[XS_REDIRECT_ERRORS];
};
