/* Threads that drive workers, and who runs the Python hooks of a stack that has them. Read by cffi and by C. */

struct xs_stack;

/* A thread for each worker, named xdpstack/0 and so on, which polls and sleeps. cpus[i] is the CPU that the thread of worker i is
 * pinned to, -1 = none; NULL: none is pinned. 0, or an errno (-EINVAL: no such CPU), and then there is none. */
int xs_stack_start_threads(struct xs_stack *stack, const int *cpus);
/* Returns when they have ended. What is parked stays parked. Nothing to do when there are none. */
void xs_stack_stop_threads(struct xs_stack *stack);

/* Sleeps until a thread has parked packets for a Python hook, at most `timeout_ms` (-1: for ever): 1 = look which worker has, 0 =
 * the time is over, or a signal came. Each time that packets are parked one of those who wait is told. */
int xs_stack_wait_hooks(struct xs_stack *stack, int timeout_ms);
/* Has one of those look who wait, or will. */
void xs_stack_wake_hooks(struct xs_stack *stack);
