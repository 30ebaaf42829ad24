/* The neighbour table: (device, address) to MAC and state.
 *
 * Open addressing; a slot's key never changes while the table lives, and its value is one 64-bit cell: MAC in the high 48
 * bits, state in the low 8. So control changes a neighbour with one store that every worker sees whole, and only a table
 * that has become too full is replaced. A neighbour that went keeps its slot, with state 0, until then.
 */
#ifndef XS_TABLES_NEIGH_H
#define XS_TABLES_NEIGH_H

#include <stdatomic.h>

#include "base/events.h" /* and through it ffi/51_neigh.cdef.h */
#include "tables/addr.h"

struct xs_neigh_slot {
    struct xs_addr address;
    _Atomic(uint32_t) device; /* the stack's index + 1; 0 = an empty slot. Published last */
    _Atomic(uint64_t) cell;
};

struct xs_neigh_table {
    uint32_t mask;
    uint32_t used; /* slots with a key; control's */
    struct xs_neigh_slot slot[];
};

/* NUD_VALID without the link-layer address being in doubt: what a packet may be sent to (neigh_event_send). */
#define XS_NUD_USABLE \
    (XS_NUD_REACHABLE | XS_NUD_STALE | XS_NUD_DELAY | XS_NUD_PROBE | XS_NUD_NOARP | XS_NUD_PERMANENT)
/* NUD_CONNECTED: no need to ask whether it is still there. */
#define XS_NUD_CONNECTED (XS_NUD_REACHABLE | XS_NUD_NOARP | XS_NUD_PERMANENT)

static inline uint64_t xs_neigh_cell(const uint8_t *mac, uint8_t state) {
    uint64_t cell = 0;
    for (int i = 0; i < 6; i++) cell = cell << 8 | mac[i];
    return cell << 16 | state;
}
static inline uint8_t xs_neigh_state(uint64_t cell) { return (uint8_t)cell; }
static inline void xs_neigh_mac(uint64_t cell, uint8_t *out) {
    for (int i = 0; i < 6; i++) out[i] = (uint8_t)(cell >> (56 - 8 * i));
}

/* The neighbour's cell; 0 when it is not known. */
static inline uint64_t xs_neigh_lookup(const struct xs_neigh_table *t, uint32_t device,
                                       struct xs_addr address) {
    if (!t) return 0;
    for (uint32_t i = xs_addr_hash(address, device) & t->mask;; i = (i + 1) & t->mask) {
        const struct xs_neigh_slot *s = &t->slot[i];
        uint32_t key = atomic_load_explicit(&s->device, memory_order_acquire);
        if (!key) return 0;
        if (key == device + 1 && xs_addr_equal(s->address, address))
            return atomic_load_explicit(&s->cell, memory_order_relaxed);
    }
}

/* Control only. NULL: no memory. */
struct xs_neigh_table *xs_neigh_table_create(const struct xs_neigh_values *values, uint32_t n);
void xs_neigh_table_destroy(struct xs_neigh_table *t);
/* False: too full. */
bool xs_neigh_set(struct xs_neigh_table *t, const struct xs_neigh_values *value);

#endif
