/* VLAN tags of a packet by the number of its first frame, for Python hooks: include/xdpstack_vlan.h. The packet is the
 * caller's: parked for it. 0, or a negative errno and nothing is changed. */
int xs_stack_vlan_push(struct xs_stack *stack, uint32_t frame, uint16_t proto, uint16_t tci);
int xs_stack_vlan_pop(struct xs_stack *stack, uint32_t frame);
int xs_stack_vlan_modify(struct xs_stack *stack, uint32_t frame, uint16_t proto, uint16_t tci);
