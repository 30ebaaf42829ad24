/* The neighbour table: control's side. See tables/neigh.h. */
#include "tables/neigh.h"

#include <stdlib.h>

#define SLOTS_MIN 64u

struct xs_neigh_table *xs_neigh_table_create(const struct xs_neigh_values *values, uint32_t n) {
    uint32_t slots = SLOTS_MIN;
    while (slots < 4 * n) slots <<= 1; /* at most a quarter full at first: room to grow in place */
    struct xs_neigh_table *t = calloc(1, sizeof *t + slots * sizeof t->slot[0]);
    if (!t) return NULL;
    t->mask = slots - 1;
    for (uint32_t i = 0; i < n; i++) xs_neigh_set(t, &values[i]);
    return t;
}

void xs_neigh_table_destroy(struct xs_neigh_table *t) { free(t); }

static void change(struct xs_neigh_table *t, struct xs_neigh_slot *s, const struct xs_neigh_values *v) {
    uint64_t before = atomic_load_explicit(&s->cell, memory_order_relaxed);
    uint8_t changes = (uint8_t)(xs_neigh_changes(before) + 1);
    atomic_store_explicit(&s->cell, xs_neigh_cell(v->mac, changes, v->state), memory_order_relaxed);
    atomic_fetch_add_explicit(&t->changes, 1, memory_order_release);
}

bool xs_neigh_set(struct xs_neigh_table *t, const struct xs_neigh_values *v) {
    struct xs_addr address = xs_addr_load(v->address);
    for (uint32_t i = xs_addr_hash(address, v->device) & t->mask;; i = (i + 1) & t->mask) {
        struct xs_neigh_slot *s = &t->slot[i];
        uint32_t key = atomic_load_explicit(&s->device, memory_order_relaxed);
        if (key == v->device + 1u && xs_addr_equal(s->address, address)) {
            change(t, s, v);
            return true;
        }
        if (key) continue;
        if (!v->state) return true; /* unknown, and gone */
        if (2 * (t->used + 1) > t->mask + 1) return false;
        t->used++;
        s->address = address;
        change(t, s, v);
        atomic_store_explicit(&s->device, v->device + 1u, memory_order_release);
        return true;
    }
}
