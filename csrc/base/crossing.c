/* Packets on their way from one worker to another: what is too long to inline. See base/crossing.h. */
#include "base/crossing.h"

#include <errno.h>

int xs_crossing_connect(struct xs_crossing **all, uint32_t nworkers, uint32_t slots) {
    for (uint32_t i = 0; i < nworkers; i++) {
        *all[i] = (struct xs_crossing){.worker = i, .nworkers = nworkers};
        for (uint32_t j = 0; j < nworkers; j++)
            if (j != i && !(all[i]->from[j] = xs_spsc_create(slots))) goto fail;
    }
    for (uint32_t i = 0; i < nworkers; i++)
        for (uint32_t j = 0; j < nworkers; j++) all[i]->to[j] = all[j]->from[i];
    for (uint32_t i = 0; i < nworkers; i++)
        atomic_store_explicit(&all[i]->slots, slots, memory_order_release);
    return 0;
fail:
    for (uint32_t i = 0; i < nworkers; i++) xs_crossing_deinit(all[i]);
    return -ENOMEM;
}

void xs_crossing_deinit(struct xs_crossing *self) {
    for (uint32_t i = 0; i < self->nworkers; i++) xs_spsc_destroy(self->from[i]);
    *self = (struct xs_crossing){0};
}

uint32_t xs_crossing_take(struct xs_crossing *self, const struct xs_mem *mem, uint32_t *frames,
                          uint32_t most) {
    if (!self->slots) return 0;
    uint32_t n = 0;
    for (uint32_t k = 0; k < self->nworkers && n < most; k++) {
        struct xs_spsc *ring = self->from[self->next];
        if (ring) n += xs_spsc_pop(ring, frames + n, most - n);
        if (++self->next == self->nworkers) self->next = 0;
    }
    for (uint32_t i = 0; i < n; i++) {
        xs_own(mem, frames[i], XS_WALKING);
        mem->pkt[frames[i]].flags &= (uint16_t)~XS_PKT_TRACE; /* its number is another worker's */
    }
    return n;
}

bool xs_crossing_waits(const struct xs_crossing *self) {
    if (!atomic_load_explicit(&self->slots, memory_order_acquire)) return false;
    for (uint32_t i = 0; i < self->nworkers; i++)
        if (self->from[i] && xs_spsc_len(self->from[i])) return true;
    return false;
}

uint32_t xs_crossing_length(const struct xs_crossing *self, const struct xs_crossing *target) {
    uint32_t sum = 0;
    for (uint32_t i = 0; target->slots && i < target->nworkers; i++) {
        struct xs_spsc *ring = target->from[i];
        if (ring) sum += xs_spsc_len(ring);
        if (ring && i == self->worker) /* and what we have not flushed yet */
            sum += ring->prod - atomic_load_explicit(&ring->producer, memory_order_relaxed);
    }
    return sum;
}
