/* What is asked of devices that send: checksums, and when a frame was sent. Functions return 0 or a count, or a negative
 * errno. */

struct xs_stack;
struct xs_worker;

/* From now on the UDP checksums of what sockets send are left to devices (`checksums`), and time stamps of sent frames are
 * kept for who reads them (`stamps`). While nobody drives. -ENOMEM. */
int xs_stack_set_offloads(struct xs_stack *stack, int checksums, int stamps);

struct xs_sent_stamp {
    uint64_t id;       /* as the sender had it: never 0 */
    uint64_t stamp_ns; /* CLOCK_TAI in copy mode, else the device's own clock; 0: the device said none */
};
/* The oldest that were not taken, of one worker. One reader at a time. */
int xs_worker_take_sent_stamps(struct xs_worker *worker, struct xs_sent_stamp *out, uint32_t most);
