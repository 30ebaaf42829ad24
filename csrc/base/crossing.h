/* Packets on their way from one worker to another: a ring of frame numbers for each pair.
 *
 *      worker 0   push --> to[1] ====== from[0] --> take   worker 1
 *                   ^
 *                   +-- seen over there after the flush, once a poll
 *
 * On its way a packet is HELD: it is nobody's to touch. It is taken in the order in which it was pushed by the same worker. Its
 * frames go home on the return rings (base/pool.h), wherever they end.
 */
#ifndef XS_BASE_CROSSING_H
#define XS_BASE_CROSSING_H

#include "base/pool.h"

struct xs_crossing {
    uint32_t worker, nworkers; /* whose it is, and of how many */
    _Atomic(uint32_t) slots;   /* of a ring; 0: there are none, or not all yet */
    uint32_t next;             /* from whom to take first */
    uint64_t dirty;            /* bit per worker: pushed to, and not flushed */
    struct xs_spsc *to[XS_WORKERS_MAX], *from[XS_WORKERS_MAX];
};

/* Connects the crossings of all workers, each pair by a ring of `slots`, a power of two: 0, or -ENOMEM and none is connected. While
 * nobody drives a worker; others may ask meanwhile whether there is something to take. */
int xs_crossing_connect(struct xs_crossing **all, uint32_t nworkers, uint32_t slots);
/* Frees the rings towards this worker. */
void xs_crossing_deinit(struct xs_crossing *self);

/* Up to `most` packets that others have flushed, from each in turn; they are the caller's (WALKING). */
uint32_t xs_crossing_take(struct xs_crossing *self, const struct xs_mem *mem, uint32_t *frames,
                          uint32_t most);
/* Whether there is anything to take. Any thread may ask. */
bool xs_crossing_waits(const struct xs_crossing *self);
/* How many are on their way to a worker, from all; of others, as far as they have flushed. */
uint32_t xs_crossing_length(const struct xs_crossing *self, const struct xs_crossing *target);

/* The packet is on its way: false when there is no room, and it is still the caller's. */
static inline bool xs_crossing_push(struct xs_crossing *self, const struct xs_mem *mem, uint32_t worker,
                                    uint32_t frame) {
    if (!self->slots || !xs_spsc_push(self->to[worker], frame)) return false;
    xs_own(mem, frame, XS_HELD);
    self->dirty |= 1ull << worker;
    return true;
}

/* Slots that are free towards a worker. */
static inline uint32_t xs_crossing_room(const struct xs_crossing *self, uint32_t worker) {
    return self->slots ? self->slots - xs_spsc_len(self->to[worker]) : 0;
}

/* What was pushed can be taken: by which workers, a bit each. They may have to be woken. */
static inline uint64_t xs_crossing_flush(struct xs_crossing *self) {
    uint64_t dirty = self->dirty;
    for (uint64_t left = dirty; left; left &= left - 1) xs_spsc_flush(self->to[__builtin_ctzll(left)]);
    self->dirty = 0;
    return dirty;
}

#endif
