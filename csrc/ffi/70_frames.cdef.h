/* Queues of whole frames, by claim. A queue is a struct xs_socket that is in no socket table. */
struct xs_frame_claim {
    uint32_t claim_id; /* as the device's XDP program numbers it */
    uint32_t device;   /* the stack's index */
    struct xs_socket *socket;
};
/* Replaces the table; returns when no worker can see the old one. */
int xs_stack_set_frame_claims(struct xs_stack *stack, const struct xs_frame_claim *claims, uint32_t n);
