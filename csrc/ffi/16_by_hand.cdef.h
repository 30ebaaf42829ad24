/* Stages driven by hand: what unit tests and stage benchmarks use instead of a device. */

struct xs_worker;

/* Takes up to `n` free frames for packets of the caller's: descriptors cleared. Returns how many. */
int xs_worker_take(struct xs_worker *worker, uint32_t *frames, uint32_t n);
/* Walks packets (by their first frame, at most XS_BATCH_CAP) from a node on, counted as created, then runs the ticks. Returns 0
 * or -EBUSY. */
int xs_worker_walk(struct xs_worker *worker, uint32_t node, const uint32_t *frames, uint32_t n);
