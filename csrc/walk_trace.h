/* Traces: the way of single packets, node by node, for `xdpstack trace`.
 *
 *      first seen --> a place in packet[] --> a step for each node it comes to --> wanted?  it stays, and is numbered
 *                                                                                  else     its place is taken by another
 *
 * Who asks for the next packets wants those that are seen first. Who asks for packets that are dropped for a reason, or that come
 * to a node, cannot say beforehand which those will be: then every packet is followed, in as many places again, and the place
 * that was taken longest ago is the next to be taken. A packet that waits in a stage meanwhile is followed anew from there on.
 */
#ifndef XS_WALK_TRACE_H
#define XS_WALK_TRACE_H

#include "include/xdpstack_stage.h"

#include "ffi/11_trace.cdef.h"

#define XS_TRACE_MOST 4096u  /* packets that may be asked for */
#define XS_TRACE_OTHERS 512u /* packets that are followed at a time beside those that were found */

struct xs_trace_packet {
    uint32_t frame;
    uint8_t wanted;
    uint8_t nsteps; /* 0: the place is free */
    uint16_t len;
    uint8_t bytes[XS_TRACE_BYTES]; /* how it began when it was first seen */
    struct xs_trace_step step[XS_TRACE_STEPS];
};

struct xs_trace {
    int node, reason; /* what is asked for, or XS_TRACE_ANY */
    uint32_t want;    /* packets still to be found; 0 also when the nodes have changed their numbers since */
    uint32_t nfound, nplaces, next;
    uint16_t found[XS_TRACE_MOST]; /* their places */
    struct xs_trace_packet packet[];
};

/* NULL without memory. */
struct xs_trace *xs_trace_create(uint32_t packets, int node, int reason);
/* The node `b->node` has said where the packets go. */
void xs_trace_record(struct xs_trace *t, const struct xs_batch *b);
/* A packet is dropped at a node, for whatever the node has said about it. */
void xs_trace_drop(struct xs_trace *t, const struct xs_mem *mem, uint32_t node, uint32_t frame, uint16_t why,
                   uint64_t now_ns);
/* Nodes get other numbers: no more of it. */
void xs_trace_end(struct xs_trace *t);

#endif
