/* The rings of base/ring.h over the end of their 32-bit indices: both begin at 0xfffffff0, so that the first batches wrap.
 *
 *      AF_XDP ring: a producer through the shared indices, as on our side of fill and TX; a consumer, as on RX and completion
 *      our own ring: two threads
 *
 * Run by tests/csrc/test_ring.py. Prints nothing and returns 0 if all is well. */
#include "base/ring.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>

#define START 0xfffffff0u

static void expect(bool holds, const char *what, uint32_t at) {
    if (holds) return;
    fprintf(stderr, "%s (at index %#x)\n", what, at);
    exit(1);
}

static uint32_t random_below(uint32_t n) {
    static uint32_t state = 1;
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % n;
}

/* ---- the rings shared with the kernel ---- */

struct shared {
    _Atomic(uint32_t) producer, consumer, flags;
    uint64_t slots[64];
};

static struct xs_ring ring_over(struct shared *s, uint32_t size) {
    return (struct xs_ring){
        .prod = s->producer,
        .cons = s->consumer,
        .mask = size - 1,
        .size = size,
        .producer = &s->producer,
        .consumer = &s->consumer,
        .flags = &s->flags,
        .slots = s->slots,
    };
}

/* Values go through a ring of `size` slots in batches of random length; each side sees the other only by the shared words. */
static void test_order(uint32_t size) {
    struct shared s = {.producer = START, .consumer = START};
    struct xs_ring producer = ring_over(&s, size), consumer = ring_over(&s, size);
    uint64_t sent = 0, received = 0;
    while (received < 10000) {
        uint32_t want = 1 + random_below(size), room = xs_ring_room(&producer, want);
        uint32_t used = (uint32_t)(sent - received);
        expect(room <= want, "more room than was asked for", producer.prod);
        expect(room == (want < size - used ? want : size - used), "room is not what is free", producer.prod);
        for (uint32_t i = 0; i < room; i++)
            ((uint64_t *)producer.slots)[(producer.prod + i) & producer.mask] = sent++;
        xs_ring_submit(&producer, room);
        want = 1 + random_below(size);
        used = (uint32_t)(sent - received);
        uint32_t have = xs_ring_have(&consumer, want);
        expect(have == (want < used ? want : used), "there is not what was submitted", consumer.cons);
        for (uint32_t i = 0; i < have; i++)
            expect(((uint64_t *)consumer.slots)[(consumer.cons + i) & consumer.mask] == received++,
                   "a value out of order", consumer.cons + i);
        xs_ring_release(&consumer, have);
    }
}

static void test_full_and_empty(uint32_t size) {
    struct shared s = {.producer = START, .consumer = START};
    struct xs_ring producer = ring_over(&s, size), consumer = ring_over(&s, size);
    for (uint32_t turn = 0; turn < 100; turn++) {
        expect(xs_ring_have(&consumer, 1) == 0, "an empty ring has something", consumer.cons);
        expect(xs_ring_room(&producer, size + 1) == size, "an empty ring has not room for all",
               producer.prod);
        xs_ring_submit(&producer, size);
        expect(xs_ring_room(&producer, 1) == 0, "a full ring has room", producer.prod);
        expect(xs_ring_have(&consumer, size + 1) == size, "a full ring has not all", consumer.cons);
        xs_ring_release(&consumer, size);
    }
}

/* What is reserved is not seen before it is submitted, though our own index has moved: napi.tx publishes in bulk. */
static void test_submit_in_bulk(void) {
    struct shared s = {.producer = START, .consumer = START};
    struct xs_ring producer = ring_over(&s, 16), consumer = ring_over(&s, 16);
    for (uint32_t turn = 0; turn < 100; turn++) {
        expect(xs_ring_room(&producer, 3) == 3, "no room", producer.prod);
        producer.prod += 3;
        expect(xs_ring_have(&consumer, 3) == 0, "seen before it was submitted", consumer.cons);
        xs_ring_submit(&producer, 0);
        expect(xs_ring_have(&consumer, 3) == 3, "not seen after it was submitted", consumer.cons);
        xs_ring_release(&consumer, 3);
    }
}

/* ---- our own ring ---- */

#define VALUES 200000u

static struct xs_spsc *spsc_at_the_end(uint32_t size) {
    struct xs_spsc *r = xs_spsc_create(size);
    expect(r != NULL, "no memory", 0);
    atomic_store(&r->producer, START);
    atomic_store(&r->consumer, START);
    r->prod = r->seen_cons = r->seen_prod = START;
    return r;
}

static void *produce(void *argument) {
    struct xs_spsc *r = argument;
    for (uint32_t i = 0; i < VALUES;) {
        uint32_t batch = 1 + i % 7;
        uint32_t before = i;
        while (batch-- && i < VALUES && xs_spsc_push(r, i)) i++;
        xs_spsc_flush(r);
        if (i == before) sched_yield();
    }
    return NULL;
}

static void test_two_threads(uint32_t size) {
    struct xs_spsc *r = spsc_at_the_end(size);
    pthread_t thread;
    expect(pthread_create(&thread, NULL, produce, r) == 0, "no thread", 0);
    uint32_t out[32];
    for (uint32_t next = 0; next < VALUES;) {
        uint32_t n = xs_spsc_pop(r, out, 1 + next % 32);
        for (uint32_t i = 0; i < n; i++) expect(out[i] == next + i, "a value out of order", START + next + i);
        if (!n) sched_yield();
        next += n;
    }
    pthread_join(thread, NULL);
    expect(xs_spsc_len(r) == 0, "an empty ring has something", START + VALUES);
    xs_spsc_destroy(r);
}

static void test_push_is_refused_when_full(void) {
    struct xs_spsc *r = spsc_at_the_end(32);
    uint32_t out[32];
    for (uint32_t turn = 0; turn < 10; turn++) {
        for (uint32_t i = 0; i < 32; i++)
            expect(xs_spsc_push(r, i), "no room in a ring that is not full", r->prod);
        expect(!xs_spsc_push(r, 32), "room in a full ring", r->prod);
        expect(xs_spsc_len(r) == 0, "seen before it was flushed", r->prod);
        xs_spsc_flush(r);
        expect(xs_spsc_len(r) == 32, "not seen after it was flushed", r->prod);
        expect(xs_spsc_pop(r, out, 32) == 32 && out[31] == 31, "not what was pushed", r->prod);
    }
    xs_spsc_destroy(r);
}

int main(void) {
    for (uint32_t size = 1; size <= 64; size *= 2) {
        test_order(size);
        test_full_and_empty(size);
    }
    test_submit_in_bulk();
    test_push_is_refused_when_full();
    test_two_threads(1);
    test_two_threads(64);
    return 0;
}
