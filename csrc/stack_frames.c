/* Control's side of frame claims: publishing which queue takes what. See ffi/70_frames.cdef.h. */
#include <errno.h>
#include <stdlib.h>

#include "stack.h"
#include "tables/frame_claims.h"

#include "ffi/10_core.cdef.h"
#include "ffi/70_frames.cdef.h"

int xs_stack_set_frame_claims(struct xs_stack *stack, const struct xs_frame_claim *claims, uint32_t n) {
    struct xs_frame_claims *table = n ? calloc(1, sizeof *table + n * sizeof table->entry[0]) : NULL;
    if (n && !table) return -ENOMEM;
    if (table) table->n = n;
    for (uint32_t i = 0; i < n; i++) {
        table->entry[i].claim_id = claims[i].claim_id;
        table->entry[i].device = claims[i].device;
        table->entry[i].socket = claims[i].socket;
    }
    const struct xs_frame_claims *old = atomic_exchange(&stack->tables.frame_claims, table);
    xs_stack_synchronize(stack);
    xs_stack_flush(stack);
    free((void *)old);
    return 0;
}
