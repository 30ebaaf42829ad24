/* Control's side of neighbours: publishing them, and the events by which workers ask for them. See ffi/51_neigh.cdef.h. */
#include <errno.h>

#include "stack.h"
#include "tables/neigh.h"

#include "ffi/10_core.cdef.h"

int xs_stack_set_neighbours(struct xs_stack *s, const struct xs_neigh_values *values, uint32_t n) {
    struct xs_neigh_table *table = xs_neigh_table_create(values, n);
    if (!table) return -ENOMEM;
    struct xs_neigh_table *old = atomic_exchange(&s->tables.neigh, table);
    xs_stack_synchronize(s);
    xs_neigh_table_destroy(old);
    return 0;
}

int xs_stack_update_neighbour(struct xs_stack *s, const struct xs_neigh_values *value) {
    struct xs_neigh_table *table = atomic_load(&s->tables.neigh);
    return table && xs_neigh_set(table, value) ? 0 : -ENOSPC;
}

int xs_stack_event_fd(struct xs_stack *s) { return s->event_fd; }

int xs_worker_events(struct xs_worker *w, struct xs_event *out, uint32_t cap) {
    return (int)xs_events_take(&w->events, out, cap);
}

uint32_t xs_worker_neigh_held(struct xs_worker *w) { return w->neigh.nheld; }
