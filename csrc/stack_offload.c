/* What is asked of devices that send, and time stamps of what was sent. See ffi/18_offload.cdef.h. */
#include <errno.h>
#include <stdlib.h>

#include "stack.h"

#include "ffi/10_core.cdef.h"

int xs_stack_set_offloads(struct xs_stack *stack, int checksums, int stamps) {
    for (uint32_t i = 0; i < stack->nworkers; i++) {
        struct xs_worker *w = stack->worker[i];
        w->udp.leaves_checksum = checksums;
        if (stamps && !w->napi.sent_stamps && !(w->napi.sent_stamps = calloc(1, sizeof *w->napi.sent_stamps)))
            return -ENOMEM;
    }
    return 0;
}

int xs_worker_take_sent_stamps(struct xs_worker *worker, struct xs_sent_stamp *out, uint32_t most) {
    struct xs_sent_stamps *s = worker->napi.sent_stamps;
    if (!s) return 0;
    uint32_t at = atomic_load_explicit(&s->consumer, memory_order_relaxed), n = 0;
    uint32_t end = atomic_load_explicit(&s->producer, memory_order_acquire);
    for (; n < most && at != end; n++, at++) out[n] = s->slot[at % XS_SENT_STAMPS];
    atomic_store_explicit(&s->consumer, at, memory_order_release);
    return (int)n;
}
