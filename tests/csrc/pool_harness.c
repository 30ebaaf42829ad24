/* Frame pools and rings alone, as functions that Python can call: what base/pool.h and base/ring.h have inline. */
#include "base/pool.c"

#include <string.h>

#define FRAME_SHIFT 11u

struct pools {
    struct xs_mem mem;
    uint32_t n;
    struct xs_pool pool[8];
};

struct pools *pools_make(uint32_t workers, uint32_t per_home) {
    struct pools *p = calloc(1, sizeof *p);
    p->n = workers;
    p->mem.nframes = workers * per_home;
    p->mem.frame_shift = FRAME_SHIFT;
    p->mem.pkt = aligned_alloc(64, p->mem.nframes * sizeof *p->mem.pkt);
    memset(p->mem.pkt, 0, p->mem.nframes * sizeof *p->mem.pkt);
    p->mem.data = malloc((size_t)p->mem.nframes << FRAME_SHIFT);
    for (uint32_t i = 0; i < workers; i++) xs_pool_init(&p->pool[i], i, workers, per_home);
    for (uint32_t i = 0; i < workers; i++)
        for (uint32_t j = 0; j < workers; j++) p->pool[i].pool[j] = &p->pool[j];
    return p;
}

void pools_free(struct pools *p) {
    for (uint32_t i = 0; i < p->n; i++) xs_pool_deinit(&p->pool[i]);
    free(p->mem.pkt);
    free(p->mem.data);
    free(p);
}

uint32_t pools_get(struct pools *p, uint32_t worker) { return xs_pool_get(&p->pool[worker], &p->mem); }
void pools_put(struct pools *p, uint32_t worker, uint32_t frame) {
    xs_pool_put(&p->pool[worker], &p->mem, frame);
}
void pools_put_packet(struct pools *p, uint32_t worker, uint32_t frame) {
    xs_pool_put_packet(&p->pool[worker], &p->mem, frame);
}
void pools_put_packets(struct pools *p, uint32_t worker, const uint32_t *frames, uint32_t n) {
    xs_pool_put_packets(&p->pool[worker], &p->mem, frames, n);
}
void pools_return(struct pools *p, uint32_t frame) { xs_pool_return(&p->pool[0], &p->mem, &frame, 1); }
void pools_drain(struct pools *p, uint32_t worker) { xs_pool_drain(&p->pool[worker]); }
uint32_t pools_count(struct pools *p, uint32_t worker) { return p->pool[worker].n; }
uint32_t pools_owner(struct pools *p, uint32_t frame) { return p->mem.pkt[frame].owner; }
void pools_link(struct pools *p, uint32_t frame, uint32_t frag, uint32_t seg) {
    p->mem.pkt[frame].frag = frag;
    p->mem.pkt[frame].seg = seg;
}

/* Both sides of one ring of 32-bit slots. */
struct both {
    _Atomic(uint32_t) producer, consumer, flags;
    struct xs_ring in, out;
    uint32_t slots[64];
};

struct both *ring_make(uint32_t size, uint32_t first) {
    struct both *b = calloc(1, sizeof *b);
    atomic_init(&b->producer, first);
    atomic_init(&b->consumer, first);
    b->in = b->out = (struct xs_ring){.prod = first,
                                      .cons = first,
                                      .mask = size - 1,
                                      .size = size,
                                      .producer = &b->producer,
                                      .consumer = &b->consumer,
                                      .flags = &b->flags,
                                      .slots = b->slots};
    return b;
}

void ring_free(struct both *b) { free(b); }

/* Writes as many of the values as there is room for; returns how many. */
uint32_t ring_put(struct both *b, const uint32_t *values, uint32_t n) {
    n = xs_ring_room(&b->in, n);
    for (uint32_t i = 0; i < n; i++) ((uint32_t *)b->in.slots)[(b->in.prod + i) & b->in.mask] = values[i];
    xs_ring_submit(&b->in, n);
    return n;
}

uint32_t ring_take(struct both *b, uint32_t *values, uint32_t n) {
    n = xs_ring_have(&b->out, n);
    for (uint32_t i = 0; i < n; i++) values[i] = ((uint32_t *)b->out.slots)[(b->out.cons + i) & b->out.mask];
    xs_ring_release(&b->out, n);
    return n;
}

struct xs_spsc *spsc_make(uint32_t size, uint32_t first) {
    struct xs_spsc *r = xs_spsc_create(size);
    atomic_init(&r->producer, first);
    atomic_init(&r->consumer, first);
    r->prod = r->seen_cons = r->seen_prod = first;
    return r;
}
void spsc_free(struct xs_spsc *r) { xs_spsc_destroy(r); }
uint32_t spsc_push(struct xs_spsc *r, uint32_t value) { return xs_spsc_push(r, value); }
void spsc_flush(struct xs_spsc *r) { xs_spsc_flush(r); }
uint32_t spsc_pop(struct xs_spsc *r, uint32_t *out, uint32_t want) { return xs_spsc_pop(r, out, want); }
uint32_t spsc_len(struct xs_spsc *r) { return xs_spsc_len(r); }
