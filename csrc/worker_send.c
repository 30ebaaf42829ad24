/* Sending whole frames that lie one behind the other in memory (Frames.send_packed()). See worker_send.h. Datagrams of sockets:
 * views/send.c; frames one by one: views/frames.c. */
#include "worker_send.h"

#include <errno.h>
#include <string.h>

#include "base/likely.h"
#include "ffi/10_core.cdef.h"
#include "wire/eth.h"

#define HEADROOM 128u /* a stage on the way may put a tag before the frame */
/* Packets that are put on a TX ring before the kernel is told: one system call for as many, and none waits for long. */
#define KICK_EVERY 256u

struct xs_xsk *xs_queue_of(const struct xs_worker *w, uint32_t device) {
    for (uint32_t port = 0; port < w->napi.nports; port++) {
        struct xs_xsk *x = w->napi.port[port].xsk;
        if (x && !x->dead && x->device == device) return x;
    }
    return NULL;
}

int xs_sendable(const struct xs_mem *mem, uint32_t frags_max, uint64_t bytes) {
    if (bytes < XS_ETH_BYTES) return -EINVAL;
    uint32_t frame = (1u << mem->frame_shift) - HEADROOM;
    return bytes <= frags_max * frame ? 0 : -EMSGSIZE;
}

/* What does not fit into the first frame. */
static __attribute__((noinline)) bool append(struct xs_worker *w, uint32_t head, const uint8_t *data,
                                             uint32_t bytes, uint32_t device) {
    const struct xs_mem *mem = w->walk.mem;
    const uint32_t most = (1u << mem->frame_shift) - HEADROOM;
    for (uint32_t tail = head, take; bytes; data += take, bytes -= take) {
        uint32_t frame = xs_pool_get(&w->pool, mem);
        if (frame == XS_NO_FRAME) return false;
        struct xs_pkt *p = &mem->pkt[frame];
        take = bytes < most ? bytes : most;
        p->data_off = HEADROOM;
        p->len = (uint16_t)take;
        p->device = (uint8_t)device;
        p->flags = XS_PKT_TAIL;
        memcpy(xs_frame_data(mem, frame) + HEADROOM, data, take);
        mem->pkt[tail].frag = frame;
        mem->pkt[head].flags |= XS_PKT_MULTI;
        tail = frame;
    }
    return true;
}

/* The packet's first frame, or all of it: `bytes` of data in it, `total` in the packet. */
static inline uint32_t make_frame(struct xs_worker *w, const struct xs_mem *mem, const uint8_t *data,
                                  uint32_t bytes, uint32_t total, uint32_t device) {
    uint32_t frame = xs_pool_take(&w->pool, mem);
    if (unlikely(frame == XS_NO_FRAME)) return frame;
    mem->pkt[frame] = (struct xs_pkt){.pkt_len = total,
                                      .data_off = HEADROOM,
                                      .len = (uint16_t)bytes,
                                      .l3_off = HEADROOM + XS_ETH_BYTES,
                                      .device = (uint8_t)device,
                                      .pkt_type = XS_PACKET_OUTGOING,
                                      .frag = XS_NO_FRAME,
                                      .seg = XS_NO_FRAME,
                                      .owner = XS_WALKING};
    memset(&mem->meta[frame], 0, sizeof mem->meta[frame]);
    memcpy(xs_frame_data(mem, frame) + HEADROOM, data, bytes);
    return frame;
}

static __attribute__((noinline)) uint32_t make_chain(struct xs_worker *w, const uint8_t *data, uint32_t bytes,
                                                     uint32_t device) {
    const struct xs_mem *mem = w->walk.mem;
    const uint32_t most = (1u << mem->frame_shift) - HEADROOM;
    uint32_t frame = make_frame(w, mem, data, most, bytes, device);
    if (frame == XS_NO_FRAME || append(w, frame, data + most, bytes - most, device)) return frame;
    xs_pool_put_packet(&w->pool, mem, frame);
    return XS_NO_FRAME;
}

static inline uint32_t make_packet(struct xs_worker *w, const struct xs_mem *mem, const uint8_t *data,
                                   uint32_t bytes, uint32_t device) {
    if (unlikely(bytes > (1u << mem->frame_shift) - HEADROOM)) return make_chain(w, data, bytes, device);
    return make_frame(w, mem, data, bytes, bytes, device);
}

uint32_t xs_make_packet(struct xs_worker *w, const uint8_t *data, uint32_t bytes, uint32_t device) {
    return make_packet(w, w->walk.mem, data, bytes, device);
}

uint32_t xs_make_room(struct xs_worker *w, uint32_t device) {
    xs_pool_drain(&w->pool);
    for (uint32_t port = 0; port < w->napi.nports; port++)
        if (w->napi.port[port].xsk) xs_napi_complete(&w->napi, port);
    return xs_napi_tx_room(&w->napi, device);
}

/* ---- frames of one buffer ---- */

/* The worker that has a queue of the device, entered, so that it keeps it; NULL where there is none. */
static struct xs_worker *enter_sender(struct xs_stack *s, uint32_t device) {
    for (uint32_t i = 0; i < s->nworkers; i++) {
        struct xs_worker *w = s->worker[i];
        xs_worker_hold(w);
        if (w->frames_tx_entry != XS_EDGE_NONE && xs_queue_of(w, device)) return w;
        xs_worker_leave(w);
    }
    return NULL;
}

int xs_packed_check(struct xs_stack *s, uint32_t device, const struct xs_packed *packed, uint64_t bytes) {
    struct xs_worker *w = enter_sender(s, device);
    if (!w) return -ENETDOWN;
    uint32_t frags_max = xs_queue_of(w, device)->frags_max;
    xs_worker_leave(w);
    uint64_t total = 0;
    for (uint32_t i = 0; i < packed->n; i++) {
        int rc = xs_sendable(&s->mem, frags_max, packed->lengths[i]);
        if (rc) return rc;
        total += packed->lengths[i];
    }
    return total == bytes && packed->n ? 0 : -ENODATA;
}

/* Where in the buffer one is. */
struct place {
    const uint8_t *data;
    uint32_t i;
};

static inline void step(const struct xs_packed *packed, struct place *at) {
    if (at->i + 1 == packed->n)
        *at = (struct place){.data = packed->data};
    else
        at->data += packed->lengths[at->i++];
}

/* One walk's worth. Returns how many were taken: 0 when there is no frame, or no room. */
static uint32_t send_some(struct xs_worker *w, uint32_t device, const struct xs_packed *packed,
                          struct place *at, uint64_t most) {
    uint32_t room = xs_make_room(w, device);
    if (room > XS_WEIGHT) room = XS_WEIGHT;
    if (room > most) room = (uint32_t)most;
    struct xs_batch *b = xs_walk_begin(&w->walk, xs_stack_now_ns(w->stack));
    const struct xs_mem mem = *w->walk.mem; /* a copy: no store can change it, it stays in registers */
    uint32_t taken = 0;
    for (; taken < room; taken++) {
        uint32_t frame = make_packet(w, &mem, at->data, packed->lengths[at->i], device);
        if (frame == XS_NO_FRAME) break;
        b->frame[taken] = frame;
        step(packed, at);
    }
    b->n = taken;
    b->facts = XS_ALL_OUTGOING;
    b->ledger->created += taken;
    if (taken) xs_walk_run(&w->walk, w->frames_tx_entry);
    return taken;
}

int64_t xs_packed_send(struct xs_stack *s, uint32_t device, const struct xs_packed *packed, uint64_t start,
                       uint64_t most) {
    struct place at = {.data = packed->data};
    for (uint64_t skip = start % packed->n; skip; skip--) step(packed, &at);
    uint64_t sent = 0;
    bool parked = false;
    for (uint32_t taken = 1; taken && sent < most && !parked;) {
        struct xs_worker *w = enter_sender(s, device);
        if (!w) return sent ? (int64_t)sent : -ENETDOWN;
        for (uint32_t n = 0; taken && n < KICK_EVERY && sent < most && !parked; n += taken) {
            sent += taken = send_some(w, device, packed, &at, most - sent);
            parked = xs_walk_parked(&w->walk);
        }
        xs_worker_finish(w);
        xs_worker_leave(w);
    }
    return (int64_t)sent;
}
