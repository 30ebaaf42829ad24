/* The frame pool of a worker: its partition of the UMEM, last in first out so that warm frames are used again.
 *
 * Frames [home * per_home, (home + 1) * per_home) are at home in partition `home` for ever. A worker allocates from its own
 * partition only. Whoever ends a foreign frame's life puts it on the ring towards its home; the home drains those rings at
 * the start of each poll. So allocation and release touch no shared cache line, and a partition never runs dry because
 * another worker hoards its frames.
 *
 *      reader (Python, under the GIL) --- from_reader ----+
 *      worker 1 -------------------------- from[1] -------+--> pool of worker 0
 *      worker 2 -------------------------- from[2] -------+
 */
#ifndef XS_BASE_POOL_H
#define XS_BASE_POOL_H

#include "base/debug.h"
#include "base/ring.h"
#include "include/xdpstack_stage.h"

#define XS_WORKERS_MAX 64

struct xs_pool {
    uint32_t *stack; /* free frames; capacity per_home */
    uint32_t n;
    uint32_t home;     /* which partition is ours */
    uint32_t per_home; /* frames in a partition */
    uint32_t nhomes;
    /* frames coming home: from Python readers, and from other workers, by worker (NULL for ourselves) */
    struct xs_spsc *from_reader;
    struct xs_spsc *from[XS_WORKERS_MAX];
    struct xs_pool *pool[XS_WORKERS_MAX]; /* every worker's pool, for the rings towards home */
};

int xs_pool_init(struct xs_pool *pool, uint32_t home, uint32_t nhomes, uint32_t per_home);
void xs_pool_deinit(struct xs_pool *pool);

/* Takes a free frame, whose descriptor the caller writes, all of it; XS_NO_FRAME when there is none. */
static inline uint32_t xs_pool_take(struct xs_pool *pool, const struct xs_mem *mem) {
    if (pool->n == 0) return XS_NO_FRAME;
    uint32_t frame = pool->stack[--pool->n];
    xs_assert(mem->pkt[frame].owner == XS_FREE, "a frame in the pool that is not free");
    xs_frame_open(mem, frame);
    return frame;
}

/* Takes a free frame and gives it to the caller (owner WALKING, no links, all fields zero); XS_NO_FRAME when none. */
static inline uint32_t xs_pool_get(struct xs_pool *pool, const struct xs_mem *mem) {
    uint32_t frame = xs_pool_take(pool, mem);
    if (frame != XS_NO_FRAME)
        mem->pkt[frame] = (struct xs_pkt){.frag = XS_NO_FRAME, .seg = XS_NO_FRAME, .owner = XS_WALKING};
    return frame;
}

/* Ends the life of one frame (not of what is linked to it). Called by the worker that owns `pool`. */
void xs_pool_put_foreign(struct xs_pool *pool, uint32_t frame);
static inline void xs_pool_put(struct xs_pool *pool, const struct xs_mem *mem, uint32_t frame) {
    xs_assert(mem->pkt[frame].owner != XS_FREE, "a frame was freed twice");
    mem->pkt[frame].owner = XS_FREE;
    xs_frame_close(mem, frame, 0);
    uint32_t index = frame - pool->home * pool->per_home;
    if (index < pool->per_home)
        pool->stack[pool->n++] = frame;
    else
        xs_pool_put_foreign(pool, frame);
}

/* The same for many in a row, nothing else of the pool's being called meanwhile: what it has to know stays in registers. */
struct xs_pool_run {
    uint32_t *stack;
    uint32_t n, first, per_home;
};

static inline struct xs_pool_run xs_pool_run(const struct xs_pool *pool) {
    return (struct xs_pool_run){pool->stack, pool->n, pool->home * pool->per_home, pool->per_home};
}

static inline void xs_pool_run_put(struct xs_pool *pool, struct xs_pool_run *run, const struct xs_mem *mem,
                                   uint32_t frame) {
    xs_assert(mem->pkt[frame].owner != XS_FREE, "a frame was freed twice");
    mem->pkt[frame].owner = XS_FREE;
    xs_frame_close(mem, frame, 0);
    if (frame - run->first < run->per_home)
        run->stack[run->n++] = frame;
    else
        xs_pool_put_foreign(pool, frame); /* on another's ring */
}

static inline void xs_pool_run_end(struct xs_pool *pool, const struct xs_pool_run *run) { pool->n = run->n; }

/* Ends the life of a packet: the frame, its further frames, and the packets chained to it. */
void xs_pool_put_packet(struct xs_pool *pool, const struct xs_mem *mem, uint32_t frame);

/* Ends the lives of `n` packets. */
void xs_pool_put_packets(struct xs_pool *pool, const struct xs_mem *mem, const uint32_t *frames, uint32_t n);

/* Takes home what others have returned. Called at the start of each poll. */
void xs_pool_drain(struct xs_pool *pool);

/* From a Python reader, with the GIL held (which makes it the single producer): packets go home, whichever it is. Numbers that
 * are XS_NO_FRAME are passed over. Returns how many frames these were. */
uint64_t xs_pool_return(struct xs_pool *any, const struct xs_mem *mem, const uint32_t *frames, uint32_t n);

#endif
