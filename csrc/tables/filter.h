/* Socket filters: classic BPF programs (SO_ATTACH_FILTER), interpreted. Meaning: xdpstack/udp/bpf.py, which also checks a
 * program before it gets here, so that nothing is checked per packet but what depends on the packet. */
#ifndef XS_TABLES_FILTER_H
#define XS_TABLES_FILTER_H

#include "include/xdpstack_stage.h"

#include "ffi/61_filter.cdef.h"

#define XS_FILTER_MEMORY 16u /* words of scratch memory: BPF_MEMWORDS */

struct xs_filter {
    uint32_t n;
    struct xs_filter_code insn[]; /* as struct sock_filter */
};

/* What a program may look at: the packet from its UDP header on, and headers before that by negative offsets. */
struct xs_filter_packet {
    const struct xs_mem *mem;
    uint32_t frame;   /* the packet's first frame */
    uint32_t length;  /* from the UDP header on, that included */
    uint32_t ifindex; /* of the device it came by */
};

/* Runs a checked program: how many bytes of the packet to keep, 0 = drop it. */
uint32_t xs_filter_run(const struct xs_filter *f, const struct xs_filter_packet *packet);

#endif
