/* VLAN tags, as Python hooks change them. See include/xdpstack_vlan.h. */
#include "include/xdpstack_vlan.h"
#include "stack.h"

#include "ffi/10_core.cdef.h"
#include "ffi/17_vlan.cdef.h"

int xs_stack_vlan_push(struct xs_stack *stack, uint32_t frame, uint16_t proto, uint16_t tci) {
    return xs_vlan_push_frame(&stack->mem, frame, proto, tci);
}

int xs_stack_vlan_pop(struct xs_stack *stack, uint32_t frame) {
    return xs_vlan_pop_frame(&stack->mem, frame);
}

int xs_stack_vlan_modify(struct xs_stack *stack, uint32_t frame, uint16_t proto, uint16_t tci) {
    return xs_vlan_modify_frame(&stack->mem, frame, proto, tci);
}
