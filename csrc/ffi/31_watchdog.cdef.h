/* The dead-man watchdog of a stack (csrc/watchdog.h). Read by cffi and by C; plain declarations only. */

struct xs_stack;
struct xs_watchdog;

/* Starts the thread. `window_ns` is how long work may wait, without progress, before the kernel has the traffic. */
int xs_watchdog_start(struct xs_stack *stack, uint64_t window_ns, struct xs_watchdog **out);
/* Ends the thread, sets all deadlines to 0 (which is over), and frees. In a forked child it does nothing. */
void xs_watchdog_stop(struct xs_watchdog *watchdog);
/* Renews this deadline from now on, the first time at once. -ENOSPC: there are XS_DEVICES_MAX already. */
int xs_watchdog_add(struct xs_watchdog *watchdog, uint64_t *deadline_ns);
/* Does not touch it any more, after setting it to 0. -ENOENT: it was not there. */
int xs_watchdog_remove(struct xs_watchdog *watchdog, uint64_t *deadline_ns);

struct xs_watchdog_values {
    uint64_t looks;    /* times that it looked at the workers */
    uint64_t renewals; /* times that all of them were alive */
    uint64_t lapses;   /* times that the window passed without a renewal */
};
void xs_watchdog_read(struct xs_watchdog *watchdog, struct xs_watchdog_values *out);
