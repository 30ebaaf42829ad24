/* Rings of one producer and one consumer: the four that AF_XDP shares with the kernel, and our own of frame numbers.
 *
 * The indices are free-running 32-bit counters; the slot is index & mask; they wrap at 2^32, and every comparison below is
 * a subtraction, so that wrapping is harmless. Each side keeps a cached copy of the other side's index and reads the
 * shared one (acquire) only when the cache says that there is nothing to do. A side's own index is published with release.
 * Source: Documentation/networking/af_xdp.rst; net/xdp/xsk_queue.h for the order of accesses.
 *
 *      producer side (fill, TX)                          consumer side (RX, completion)
 *      room = xs_ring_room(r, n)                         have = xs_ring_have(r, n)
 *      write slots prod .. prod+k-1                      read slots cons .. cons+k-1
 *      xs_ring_submit(r, k)                              xs_ring_release(r, k)
 */
#ifndef XS_BASE_RING_H
#define XS_BASE_RING_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct xs_ring {
    uint32_t prod; /* our own index, or the last seen one of the other side */
    uint32_t cons;
    uint32_t mask;
    uint32_t size;               /* slots, a power of two */
    _Atomic(uint32_t) *producer; /* shared with the kernel */
    _Atomic(uint32_t) *consumer;
    _Atomic(uint32_t) *flags; /* XDP_RING_NEED_WAKEUP */
    void *slots;              /* struct xdp_desc (RX, TX) or uint64_t (fill, completion) */
};

/* Producer: slots that may be written now, at most `want`. */
static inline uint32_t xs_ring_room(struct xs_ring *r, uint32_t want) {
    uint32_t room = r->size - (r->prod - r->cons);
    if (room < want) {
        r->cons = atomic_load_explicit(r->consumer, memory_order_acquire);
        room = r->size - (r->prod - r->cons);
    }
    return room < want ? room : want;
}

/* Producer: the next `n` slots have been written; let the other side see them. */
static inline void xs_ring_submit(struct xs_ring *r, uint32_t n) {
    r->prod += n;
    atomic_store_explicit(r->producer, r->prod, memory_order_release);
}

/* Consumer: slots that may be read now, at most `want`. */
static inline uint32_t xs_ring_have(struct xs_ring *r, uint32_t want) {
    uint32_t have = r->prod - r->cons;
    if (have < want) {
        r->prod = atomic_load_explicit(r->producer, memory_order_acquire);
        have = r->prod - r->cons;
    }
    return have < want ? have : want;
}

/* Consumer: the first `n` slots have been read; the other side may write them again. */
static inline void xs_ring_release(struct xs_ring *r, uint32_t n) {
    r->cons += n;
    atomic_store_explicit(r->consumer, r->cons, memory_order_release);
}

/* The kernel sets this flag while it sleeps and must be woken by a system call to go on. */
static inline bool xs_ring_need_wakeup(const struct xs_ring *r) {
    return atomic_load_explicit(r->flags, memory_order_relaxed) & 1u; /* XDP_RING_NEED_WAKEUP */
}

/* Our own ring of frame numbers between two threads. The producer publishes a whole batch at once: push, then flush. */
struct xs_spsc {
    alignas(64) _Atomic(uint32_t) producer;
    uint32_t prod;      /* producer's: written up to here, published by xs_spsc_flush() */
    uint32_t seen_cons; /* producer's: last seen consumer index */
    alignas(64) _Atomic(uint32_t) consumer;
    uint32_t seen_prod; /* consumer's */
    alignas(64) uint32_t mask;
    uint32_t slot[];
};

static inline struct xs_spsc *xs_spsc_create(uint32_t size) { /* size: a power of two */
    struct xs_spsc *r = aligned_alloc(64, (sizeof *r + size * sizeof r->slot[0] + 63) & ~(size_t)63);
    if (!r) return NULL;
    atomic_init(&r->producer, 0);
    atomic_init(&r->consumer, 0);
    r->prod = r->seen_cons = r->seen_prod = 0;
    r->mask = size - 1;
    return r;
}

static inline void xs_spsc_destroy(struct xs_spsc *r) { free(r); }

/* Producer: false when full. The consumer sees it after the next flush. */
static inline bool xs_spsc_push(struct xs_spsc *r, uint32_t value) {
    if (r->prod - r->seen_cons > r->mask) {
        r->seen_cons = atomic_load_explicit(&r->consumer, memory_order_acquire);
        if (r->prod - r->seen_cons > r->mask) return false;
    }
    r->slot[r->prod++ & r->mask] = value;
    return true;
}

static inline void xs_spsc_flush(struct xs_spsc *r) {
    atomic_store_explicit(&r->producer, r->prod, memory_order_release);
}

/* Consumer: takes up to `want` values; returns how many. */
static inline uint32_t xs_spsc_pop(struct xs_spsc *r, uint32_t *out, uint32_t want) {
    uint32_t cons = atomic_load_explicit(&r->consumer, memory_order_relaxed);
    uint32_t have = r->seen_prod - cons;
    if (have < want) {
        r->seen_prod = atomic_load_explicit(&r->producer, memory_order_acquire);
        have = r->seen_prod - cons;
    }
    if (have > want) have = want;
    uint32_t first = cons & r->mask, straight = r->mask + 1 - first;
    if (straight > have) straight = have;
    memcpy(out, &r->slot[first], straight * sizeof *out);
    memcpy(out + straight, r->slot, (have - straight) * sizeof *out);
    if (have) atomic_store_explicit(&r->consumer, cons + have, memory_order_release);
    return have;
}

/* Consumer: what it has seen and not taken; there may be more. */
static inline uint32_t xs_spsc_seen(struct xs_spsc *r) {
    return r->seen_prod - atomic_load_explicit(&r->consumer, memory_order_relaxed);
}

/* Either side, or a bystander: how many are published and not taken. */
static inline uint32_t xs_spsc_len(struct xs_spsc *r) {
    return atomic_load_explicit(&r->producer, memory_order_acquire) -
           atomic_load_explicit(&r->consumer, memory_order_acquire);
}

#endif
