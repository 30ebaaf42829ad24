/* Steering flows to workers, and packets to queues: RPS, RFS, XPS. Read by cffi and by C. */

#define XS_RPS_MAP 256
#define XS_RPS_CPUS 1024
#define XS_RPS_BACKLOG 4096 /* the most that max_backlog may be */

struct xs_stack;

struct xs_rps_options {
    uint32_t nmap;        /* entries of `map`: a flow goes to the worker in one of them, by its hash */
    uint8_t map[256];     /* XS_RPS_MAP */
    uint32_t max_backlog; /* packets that may wait for a worker, from all others */
    uint32_t flows;       /* of the tables of flows, a power of two; 0: readers do not matter */
    uint8_t
        worker_of_cpu[1024]; /* XS_RPS_CPUS: where a flow goes that is read on this CPU; 255: by the map */
    uint8_t flow_limit;      /* 1: a flow that takes more than half of a half full backlog is cut */
};

/* What rps.rx and rps.tx go by from now on; NULL: nothing, all packets stay where they are. 0, -EINVAL or -ENOMEM, and then nothing
 * is changed. */
int xs_stack_set_rps(struct xs_stack *stack, const struct xs_rps_options *options);
/* Where flows go from now on that are read on each CPU: XS_RPS_CPUS entries, as `worker_of_cpu`. Nothing to do without RFS. */
void xs_rfs_set_cpus(struct xs_stack *stack, const uint8_t *worker_of_cpu);
/* The hash that a packet would be steered by, of `bytes` from the Ethernet header on: for tests. 0: it is of no flow. */
uint32_t xs_rps_hash_of(struct xs_stack *stack, const uint8_t *frame, uint32_t bytes, uint32_t l3_off,
                        uint16_t l3_proto);
