/* Publishing routing and neighbour tables: one exchange of a pointer, then the wait until no worker can see the old one.
 * And asking what they say: in a worker's place, so that what is read is not freed meanwhile. */
#include "stack.h"

#include "ffi/10_core.cdef.h"

void xs_stack_set_fib(struct xs_stack *s, struct xs_fib *fib) {
    const struct xs_fib *old = atomic_exchange(&s->tables.fib, fib);
    xs_stack_synchronize(s);
    xs_fib_destroy((struct xs_fib *)old);
}

const struct xs_fib *xs_stack_fib(struct xs_stack *s) { return xs_table(&s->tables, fib); }

void xs_routing_ask(struct xs_stack *s, uint32_t device, const struct xs_fib_key *keys, uint32_t n,
                    struct xs_routed *out) {
    xs_worker_hold(s->worker[0]);
    const struct xs_fib *fib = xs_table(&s->tables, fib);
    const struct xs_config *config = xs_table(&s->tables, config);
    for (uint32_t i = 0; i < n; i++) {
        struct xs_fib_key key = keys[i];
        out[i] = (struct xs_routed){0};
        if (device < XS_DEVICES_MAX)
            xs_routing_input(fib, &config->device[device], &key, &out[i]);
        else
            xs_routing_output(fib, config, &key, &out[i]);
    }
    xs_worker_unhold(s->worker[0]);
}
