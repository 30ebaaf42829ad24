/* Redirects: which claims' frames leave again, by which device. All devices are the stack's indices. */
struct xs_redirect {
    uint32_t claim_id; /* as the program of `device` numbers it */
    uint32_t device;   /* by which the frames come */
    uint32_t to;       /* by which they leave */
    bool swap;         /* their two MAC addresses change places */
};
/* Replaces the table; returns when no worker can see the old one. */
int xs_stack_set_redirects(struct xs_stack *stack, const struct xs_redirect *redirects, uint32_t n);
