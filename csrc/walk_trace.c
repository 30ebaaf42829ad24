/* Traces. See walk_trace.h. */
#include "walk_trace.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct xs_trace *xs_trace_create(uint32_t packets, int node, int reason) {
    uint32_t others = node == XS_TRACE_ANY && reason == XS_TRACE_ANY ? 0 : XS_TRACE_OTHERS;
    struct xs_trace *t = calloc(1, sizeof *t + (packets + others) * sizeof t->packet[0]);
    if (!t) return NULL;
    t->node = node;
    t->reason = reason;
    t->want = packets;
    t->nplaces = packets + others;
    return t;
}

void xs_trace_end(struct xs_trace *t) {
    t->want = 0;
    for (uint32_t i = 0; i < t->nplaces; i++) t->packet[i].frame = XS_NO_FRAME;
}

/* Its place, if it still has one: another packet may have it by now. */
static struct xs_trace_packet *place_of(struct xs_trace *t, const struct xs_mem *mem, uint32_t frame) {
    uint32_t at = mem->meta[frame].trace;
    if (!(mem->pkt[frame].flags & XS_PKT_TRACE) || at >= t->nplaces) return NULL;
    struct xs_trace_packet *p = &t->packet[at];
    return p->nsteps && p->frame == frame ? p : NULL;
}

static struct xs_trace_packet *begin(struct xs_trace *t, const struct xs_mem *mem, uint32_t frame) {
    if (!t->want) return NULL;
    while (t->packet[t->next].wanted)
        t->next = (t->next + 1) % t->nplaces; /* ends: not all that is wanted is found */
    struct xs_trace_packet *p = &t->packet[t->next];
    struct xs_pkt *pkt = &mem->pkt[frame];
    pkt->flags |= XS_PKT_TRACE;
    mem->meta[frame].trace = (uint16_t)t->next;
    t->next = (t->next + 1) % t->nplaces;
    p->frame = frame;
    p->nsteps = 0;
    p->len = pkt->len < sizeof p->bytes ? pkt->len : sizeof p->bytes;
    memcpy(p->bytes, xs_frame_data(mem, frame) + pkt->data_off, p->len);
    return p;
}

static void want(struct xs_trace *t, struct xs_trace_packet *p) {
    if (p->wanted || !t->want) return;
    p->wanted = 1;
    t->want--;
    t->found[t->nfound++] = (uint16_t)(p - t->packet);
}

static inline bool is_asked_for(const struct xs_trace *t, uint32_t node) {
    return t->node == XS_TRACE_ANY || t->node == (int)node;
}

/* A packet is followed from when it is first seen, but not when it has just been kept: it is another thread's already then. */
void xs_trace_record(struct xs_trace *t, const struct xs_batch *b) {
    for (uint32_t i = 0; i < b->n; i++) {
        uint8_t next = b->next[i];
        struct xs_trace_packet *p = place_of(t, b->mem, b->frame[i]);
        if (!p && next != XS_KEPT) p = begin(t, b->mem, b->frame[i]);
        if (!p) continue;
        if (p->nsteps < XS_TRACE_STEPS) p->nsteps++;
        p->step[p->nsteps - 1] = (struct xs_trace_step){.node = (uint8_t)b->node,
                                                        .next = next,
                                                        .reason = next == XS_DROP ? b->reason[i] : 0,
                                                        .now_ns = b->now_ns};
        if (t->reason == XS_TRACE_ANY && is_asked_for(t, b->node)) want(t, p);
    }
}

void xs_trace_drop(struct xs_trace *t, const struct xs_mem *mem, uint32_t node, uint32_t frame, uint16_t why,
                   uint64_t now_ns) {
    struct xs_trace_packet *p = place_of(t, mem, frame);
    if (!p) return;
    struct xs_trace_step *last = &p->step[p->nsteps - 1];
    if (last->node != node && p->nsteps < XS_TRACE_STEPS) last = &p->step[p->nsteps++];
    *last = (struct xs_trace_step){.node = (uint8_t)node, .next = XS_DROP, .reason = why, .now_ns = now_ns};
    if (t->reason == why && is_asked_for(t, node)) want(t, p);
}
