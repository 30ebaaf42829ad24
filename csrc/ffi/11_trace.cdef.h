/* Traces of a worker. See csrc/walk_trace.h. */

struct xs_worker;

#define XS_TRACE_ANY -1
#define XS_TRACE_STEPS 24
#define XS_TRACE_BYTES 130

struct xs_trace_step {
    uint64_t now_ns;
    uint16_t reason; /* with XS_DROP */
    uint8_t node;
    uint8_t next; /* edge, XS_DROP or XS_KEPT */
};

struct xs_trace_values {
    uint32_t nsteps; /* of a packet that came by more nodes, the last step is the latest */
    uint16_t len;
    uint8_t bytes[130];
    struct xs_trace_step step[24];
};

/* Follows the next `packets` packets (1 to 4,096) that come to a node and are dropped for a reason, of which either may be
 * XS_TRACE_ANY; with both, those that are dropped there. What was recorded before is forgotten. */
int xs_worker_trace_start(struct xs_worker *worker, uint32_t packets, int node, int reason);
/* The packet that was found as number `packet` of all, from 0 on: 1, or 0 if there are not so many. */
int xs_worker_trace_read(struct xs_worker *worker, uint32_t packet, struct xs_trace_values *out);
void xs_worker_trace_stop(struct xs_worker *worker);
