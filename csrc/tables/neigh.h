/* The neighbour table: (device, address) to MAC and state.
 *
 * Open addressing. A slot's key never changes while the table lives, and its value is one 64-bit cell, so that control
 * changes a neighbour with one store that every worker sees whole; only a table that has become too full is replaced. A
 * neighbour that went keeps its slot, with state 0, until then.
 *
 *      63                                   16 15      8 7       0
 *      +-------------------------------------+---------+---------+
 *      | MAC                                 | changes |  state  |      cell
 *      +-------------------------------------+---------+---------+
 *
 * `changes` counts what control stored: a packet that waits can tell a failure that came since from an old one.
 */
#ifndef XS_TABLES_NEIGH_H
#define XS_TABLES_NEIGH_H

#include <stdatomic.h>

#include "base/events.h" /* and through it ffi/51_neigh.cdef.h */
#include "tables/addr.h"

struct xs_neigh_slot {
    struct xs_addr address;
    _Atomic(uint32_t) device;   /* the stack's index + 1; 0 = an empty slot. Published last */
    _Atomic(uint32_t) asked_ms; /* workers': when control was last asked to look whether it is still there */
    _Atomic(uint64_t) cell;
};

struct xs_neigh_table {
    uint32_t mask;
    uint32_t used;             /* slots with a key; control's */
    _Atomic(uint32_t) changes; /* of the whole table: who waits looks again when it moved */
    struct xs_neigh_slot slot[];
};

/* NUD_VALID: what a packet may be sent to (neigh_event_send). */
#define XS_NUD_VALID \
    (XS_NUD_REACHABLE | XS_NUD_STALE | XS_NUD_DELAY | XS_NUD_PROBE | XS_NUD_NOARP | XS_NUD_PERMANENT)

static inline uint64_t xs_neigh_cell(const uint8_t *mac, uint8_t changes, uint8_t state) {
    uint64_t cell = 0;
    for (int i = 0; i < 6; i++) cell = cell << 8 | mac[i];
    return cell << 16 | (uint32_t)changes << 8 | state;
}
static inline uint8_t xs_neigh_state(uint64_t cell) { return (uint8_t)cell; }
static inline uint8_t xs_neigh_changes(uint64_t cell) { return (uint8_t)(cell >> 8); }
/* The first six bytes at `out`, of eight that are written. */
static inline void xs_neigh_mac(uint64_t cell, uint8_t out[8]) {
    cell = __builtin_bswap64(cell);
    memcpy(out, &cell, 8);
}

/* The neighbour's slot, or NULL when it is not known. Workers write nothing of it but asked_ms. */
static inline struct xs_neigh_slot *xs_neigh_find(struct xs_neigh_table *t, uint32_t device,
                                                  struct xs_addr address) {
    if (!t) return NULL;
    for (uint32_t i = xs_addr_hash(address, device) & t->mask;; i = (i + 1) & t->mask) {
        struct xs_neigh_slot *s = &t->slot[i];
        uint32_t key = atomic_load_explicit(&s->device, memory_order_acquire);
        if (!key) return NULL;
        if (key == device + 1 && xs_addr_equal(s->address, address)) return s;
    }
}

/* The neighbour's cell; 0 when it is not known. */
static inline uint64_t xs_neigh_lookup(struct xs_neigh_table *t, uint32_t device, struct xs_addr address) {
    struct xs_neigh_slot *s = xs_neigh_find(t, device, address);
    return s ? atomic_load_explicit(&s->cell, memory_order_relaxed) : 0;
}

/* Control only. NULL: no memory. */
struct xs_neigh_table *xs_neigh_table_create(const struct xs_neigh_values *values, uint32_t n);
void xs_neigh_table_destroy(struct xs_neigh_table *t);
/* False: too full. */
bool xs_neigh_set(struct xs_neigh_table *t, const struct xs_neigh_values *value);

#endif
