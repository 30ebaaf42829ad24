/* Control of the core: stack, workers, nodes, ledgers. Read by cffi and by C; plain declarations only.
 * Functions return 0 or a count, or a negative errno; out-parameters come last and are untouched on failure. */

struct xs_stack;
struct xs_worker;
struct xs_xsk;

struct xs_stack_options {
    uint32_t workers;
    uint32_t frames_per_worker; /* a power of two */
    uint32_t frame_bytes;       /* 2048 or 4096 */
    uint32_t
        huge_pages; /* 1 = frames on pages of 2 MiB; where those are missing it is -ENOBUFS, never silent */
    uint32_t manual_clock; /* 1 = time moves by xs_stack_set_now() only */
    uint32_t hints;        /* 1 = descriptors have what devices say of frames: xs_meta.hints is valid */
    uint32_t spin_us;      /* so long who drives goes on polling in vain before it sleeps */
};

int xs_stack_create(const struct xs_stack_options *options, struct xs_stack **out);
/* Closes the descriptors; the memory stays until xs_stack_destroy(), for views that live on. Nothing may be driven after. */
void xs_stack_close(struct xs_stack *stack);
void xs_stack_destroy(struct xs_stack *stack);
/* 1 in a forked child of the process that made the stack: it must not use it (and destroying it there does nothing). */
int xs_stack_forked(struct xs_stack *stack);
void *xs_stack_umem(struct xs_stack *stack);
uint64_t xs_stack_umem_bytes(struct xs_stack *stack);
uint32_t xs_stack_frame_shift(struct xs_stack *stack); /* log2 of the frame size in bytes */
uint32_t xs_stack_frame_count(struct xs_stack *stack);
void xs_stack_set_now(struct xs_stack *stack, uint64_t now_ns);
uint64_t xs_stack_clock(struct xs_stack *stack);
/* Blocks until no worker can see what was replaced before the call. */
void xs_stack_synchronize(struct xs_stack *stack);
struct xs_worker *xs_stack_worker(struct xs_stack *stack, uint32_t index);

/* Replaces the device table; the array holds `n` entries in stack index order. */
struct xs_device_values {
    uint32_t ifindex;
    uint32_t mtu;
    uint32_t flags; /* XS_DEV_* of tables/config.h */
    uint8_t rp_filter;
    uint8_t nqueues;
    uint8_t mac[6];
    uint8_t ttl;
    uint8_t hop_limit;
};
int xs_stack_set_devices(struct xs_stack *stack, const struct xs_device_values *devices, uint32_t n);

/* The walk's nodes, in table order. `name` is a row of the path table whose stage is C; -ENOENT when there is none. */
int xs_worker_add_stage(struct xs_worker *worker, const char *name);
/* A hook: `fn` NULL parks packets for Python; else a user's C stage (xs_stage_fn, xs_tick_fn of xdpstack_stage.h). */
int xs_worker_add_hook(struct xs_worker *worker, void *fn, void *tick, void *self, uint32_t nedges);
int xs_worker_wire(struct xs_worker *worker, uint32_t node, uint32_t edge, uint32_t target);
/* Where packets enter: 0 napi.rx, 1 routing.tx (from a socket), 2 whole frames from the user, 3 steered by another worker. */
int xs_worker_set_entry(struct xs_worker *worker, uint32_t which, uint32_t node);
/* Wiring happens while nobody drives: waits for the worker, and keeps it until released. */
void xs_worker_hold(struct xs_worker *worker);
void xs_worker_unhold(struct xs_worker *worker);
/* Forgets all nodes (hooks were added or removed): wire again. -EBUSY when packets are parked. */
int xs_worker_reset_nodes(struct xs_worker *worker);

/* The rows that C implements: name, edge names, counter names; NULL at the end. */
const char *xs_stage_name(uint32_t index);
const char *xs_stage_edge(uint32_t index, uint32_t edge);
const char *xs_stage_counter(uint32_t index, uint32_t counter);
const char *xs_reason_name(uint32_t reason);
const char *xs_reason_text(uint32_t reason);
/* The errno that a sender is told for it; 0: none. For TX_SLOW and TX_FRAGMENT: when there is no shadow socket. */
int xs_reason_error(uint32_t reason);

/* A queue of a device becomes one of this worker's, which may have several of each device. */
int xs_worker_attach(struct xs_worker *worker, struct xs_xsk *xsk, uint32_t device);
/* All queues of the device that this worker has: what waits to be sent is dropped, their sockets are closed, and the frames
 * that the kernel had come home. Returns how many. The sockets stay the caller's, to free. */
int xs_worker_detach(struct xs_worker *worker, uint32_t device);
/* The same in two steps. Of a socket that is closed the kernel lets go some time later, and until then a driver in zero-copy mode
 * goes on with the frames that it had: first all workers let go of their queues of the device; returns how many this one had.
 * Then the frames come home, as many as are returned; while no worker has a queue of the device. */
int xs_worker_unplug(struct xs_worker *worker, uint32_t device);
int xs_stack_take_home(struct xs_stack *stack, uint32_t device);

/* One round over all queues. Returns descriptors received, and packets taken over from other workers; -EBUSY when another
 * thread drives this worker; -EAGAIN when packets are parked for a Python hook: resume those first. A queue that fails is not
 * polled any more: xs_xsk_read() says so. */
int xs_worker_poll(struct xs_worker *worker, uint32_t budget);
/* Lets go of what waits in stages and may go on, and of what has waited too long; receives nothing, and is no progress to the
 * watchdog. 0, or an errno as xs_worker_poll(). */
int xs_worker_tick(struct xs_worker *worker);
/* Sleeps until there is something to poll, at most `timeout_ms` (-1: for ever). 1 = something, 0 = time is over. */
int xs_worker_wait(struct xs_worker *worker, int timeout_ms);
/* Polls and sleeps until packets are parked (1) or `timeout_ms` is over (0). */
int xs_worker_run(struct xs_worker *worker, uint32_t budget, int timeout_ms);
void xs_worker_wake(struct xs_worker *worker);
int xs_worker_epoll_fd(struct xs_worker *worker);

/* Parked packets of Python hooks: bit per node; frames of one; giving them back with where they go. */
uint64_t xs_worker_parked(struct xs_worker *worker);
int xs_worker_parked_frames(struct xs_worker *worker, uint32_t node, uint32_t *frames, uint32_t cap);
int xs_worker_resume(struct xs_worker *worker, uint32_t node, const uint8_t *next, const uint16_t *reason,
                     uint32_t n);

/* Counters. */
struct xs_ledger_values {
    uint64_t received, created, split;
    uint64_t delivered, sent, merged, punted, dropped;
    uint64_t held; /* packets held now */
};
void xs_worker_ledger(struct xs_worker *worker, struct xs_ledger_values *out);
/* Frames by owner (enum xs_owner), all partitions; sums to the number of frames. out[8]. */
void xs_stack_frames(struct xs_stack *stack, uint64_t *out);
uint64_t xs_node_packets(struct xs_worker *worker, uint32_t node);
uint64_t xs_node_batches(struct xs_worker *worker, uint32_t node);
uint64_t xs_node_counter(struct xs_worker *worker, uint32_t node, uint32_t counter);
uint64_t xs_node_drops(struct xs_worker *worker, uint32_t node, uint32_t reason);

/* Descriptors, for Python hooks and tests. Layout: xdpstack_stage.h. */
void *xs_stack_pkts(struct xs_stack *stack);
void *xs_stack_metas(struct xs_stack *stack);
