/* Control's side of whole frames: publishing which queue takes what, and what leaves again. See ffi/70_frames.cdef.h and
 * ffi/71_redirects.cdef.h. */
#include <errno.h>
#include <stdlib.h>

#include "stack.h"
#include "tables/frame_claims.h"
#include "tables/redirects.h"

#include "ffi/10_core.cdef.h"
#include "ffi/70_frames.cdef.h"
#include "ffi/71_redirects.cdef.h"

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

int xs_stack_set_redirects(struct xs_stack *stack, const struct xs_redirect *redirects, uint32_t n) {
    struct xs_redirects *table = n ? calloc(1, sizeof *table + n * sizeof table->entry[0]) : NULL;
    if (n && !table) return -ENOMEM;
    if (table) table->n = n;
    for (uint32_t i = 0; i < n; i++)
        table->entry[i] = (struct xs_redirect_entry){.claim_id = redirects[i].claim_id,
                                                     .device = (uint8_t)redirects[i].device,
                                                     .to = (uint8_t)redirects[i].to,
                                                     .swap = redirects[i].swap};
    const struct xs_redirects *old = atomic_exchange(&stack->tables.redirects, table);
    xs_stack_synchronize(stack);
    free((void *)old);
    return 0;
}
