/* The frame pool: what is too long to inline. See base/pool.h. */
#include "base/pool.h"

#include <errno.h>
#include <stdlib.h>

#include "base/likely.h"

static uint32_t next_pow2(uint32_t n) {
    uint32_t p = 1;
    while (p < n) p <<= 1;
    return p;
}

int xs_pool_init(struct xs_pool *pool, uint32_t home, uint32_t nhomes, uint32_t per_home) {
    *pool = (struct xs_pool){.home = home, .nhomes = nhomes, .per_home = per_home};
    pool->stack = malloc(per_home * sizeof *pool->stack);
    /* every frame of the partition could come back on one ring: it never fills up */
    pool->from_reader = xs_spsc_create(next_pow2(per_home));
    if (!pool->stack || !pool->from_reader) goto fail;
    for (uint32_t i = 0; i < nhomes; i++) {
        if (i == home) continue;
        if (!(pool->from[i] = xs_spsc_create(next_pow2(per_home)))) goto fail;
    }
    for (uint32_t i = per_home; i-- > 0;) pool->stack[pool->n++] = home * per_home + i;
    return 0;
fail:
    xs_pool_deinit(pool);
    return -ENOMEM;
}

void xs_pool_deinit(struct xs_pool *pool) {
    free(pool->stack);
    xs_spsc_destroy(pool->from_reader);
    for (uint32_t i = 0; i < pool->nhomes; i++) xs_spsc_destroy(pool->from[i]);
    *pool = (struct xs_pool){0};
}

void xs_pool_put_foreign(struct xs_pool *pool, uint32_t frame) {
    struct xs_spsc *ring = pool->pool[frame / pool->per_home]->from[pool->home];
    bool room = xs_spsc_push(ring, frame); /* it holds a whole partition */
    xs_assert(room, "more frames on a return ring than there are");
    xs_spsc_flush(ring);
}

static inline void free_one(const struct xs_mem *mem, uint32_t frame) {
    xs_assert(mem->pkt[frame].owner != XS_FREE, "a frame was returned twice");
    mem->pkt[frame].owner = XS_FREE;
    xs_frame_close(mem, frame, 0);
}

void xs_pool_put_packet(struct xs_pool *pool, const struct xs_mem *mem, uint32_t frame) {
    while (frame != XS_NO_FRAME) {
        uint32_t next_packet = mem->pkt[frame].seg;
        while (frame != XS_NO_FRAME) {
            uint32_t next = mem->pkt[frame].frag;
            xs_pool_put(pool, mem, frame);
            frame = next;
        }
        frame = next_packet;
    }
}

/* Whether it has no further frames, and no packet is chained to it: both links at once. */
static inline uint64_t links_of(const struct xs_pkt *p) {
    _Static_assert(offsetof(struct xs_pkt, seg) == offsetof(struct xs_pkt, frag) + 4, "side by side");
    uint64_t links;
    memcpy(&links, &p->frag, sizeof links);
    return links;
}
#define NO_LINKS UINT64_MAX

/* Packets of one frame that are at home here, until one is not: how many. Four at a time, which are nearly always so. Compiled
 * twice: where there is one home, all are at home. */
static inline __attribute__((always_inline)) uint32_t
put_plain(struct xs_pool *pool, const struct xs_mem *memory, const uint32_t *frames, uint32_t n, bool alone) {
    const struct xs_mem mem = *memory; /* a copy: no store can change it, it stays in registers */
    const uint32_t first = pool->home * pool->per_home,
                   elsewhere = ~(pool->per_home - 1); /* a power of two */
    uint32_t *to = &pool->stack[pool->n];
    const uint32_t *from = frames, *const end = frames + n;
    for (; from + 4 <= end; from += 4, to += 4) {
        const uint32_t a = from[0], b = from[1], c = from[2], d = from[3];
        if (unlikely(!alone && ((a ^ first) | (b ^ first) | (c ^ first) | (d ^ first)) & elsewhere)) break;
        uint64_t links =
            links_of(&mem.pkt[a]) & links_of(&mem.pkt[b]) & links_of(&mem.pkt[c]) & links_of(&mem.pkt[d]);
        if (unlikely(links != NO_LINKS)) break;
        memcpy(to, from, 4 * sizeof *to);
        free_one(&mem, a);
        free_one(&mem, b);
        free_one(&mem, c);
        free_one(&mem, d);
    }
    for (; from < end; from++) {
        if (unlikely(!alone && (*from ^ first) & elsewhere)) break;
        if (unlikely(links_of(&mem.pkt[*from]) != NO_LINKS)) break;
        *to++ = *from;
        free_one(&mem, *from);
    }
    pool->n += (uint32_t)(from - frames);
    return (uint32_t)(from - frames);
}

void xs_pool_put_packets(struct xs_pool *pool, const struct xs_mem *mem, const uint32_t *frames, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        i += pool->nhomes == 1 ? put_plain(pool, mem, frames + i, n - i, true)
                               : put_plain(pool, mem, frames + i, n - i, false);
        if (i < n) xs_pool_put_packet(pool, mem, frames[i]);
    }
}

static void drain(struct xs_pool *pool, struct xs_spsc *ring) {
    uint32_t got;
    while ((got = xs_spsc_pop(ring, &pool->stack[pool->n], pool->per_home - pool->n))) pool->n += got;
}

void xs_pool_drain(struct xs_pool *pool) {
    drain(pool, pool->from_reader);
    for (uint32_t i = 0; i < pool->nhomes; i++)
        if (pool->from[i]) drain(pool, pool->from[i]);
}

static void give_back(struct xs_pool *any, const struct xs_mem *mem, uint32_t frame) {
    struct xs_spsc *ring = any->pool[frame / any->per_home]->from_reader;
    free_one(mem, frame);
    bool room = xs_spsc_push(ring, frame);
    xs_assert(room, "more frames on a return ring than there are");
    xs_spsc_flush(ring);
}

/* Packets of one frame, until one has more: how many. To the one home that there is, whose ring holds all of its frames. */
static uint32_t give_back_plain(struct xs_spsc *ring, const struct xs_mem *memory, const uint32_t *frames,
                                uint32_t n) {
    const struct xs_mem mem = *memory; /* a copy: no store can change it, it stays in registers */
    const uint32_t first = ring->prod, mask = ring->mask;
    uint32_t i = 0;
    for (; i < n; i++) {
        uint32_t frame = frames[i];
        if (unlikely(frame == XS_NO_FRAME || mem.pkt[frame].frag != XS_NO_FRAME)) break;
        free_one(&mem, frame);
        ring->slot[(first + i) & mask] = frame;
    }
    ring->prod = first + i;
    xs_spsc_flush(ring);
    return i;
}

uint64_t xs_pool_return(struct xs_pool *any, const struct xs_mem *mem, const uint32_t *frames, uint32_t n) {
    uint32_t first = any->nhomes == 1 ? give_back_plain(any->pool[0]->from_reader, mem, frames, n) : 0;
    uint64_t total = first;
    for (uint32_t i = first; i < n; i++) {
        for (uint32_t frame = frames[i], next; frame != XS_NO_FRAME; frame = next, total++) {
            next = mem->pkt[frame].frag;
            give_back(any, mem, frame);
        }
    }
    return total;
}
