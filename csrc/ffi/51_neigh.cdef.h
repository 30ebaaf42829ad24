/* Neighbours: how control publishes them, and what workers ask of it. Read by cffi and by C. */

struct xs_stack;
struct xs_worker;

/* NUD_* of linux/neighbour.h */
#define XS_NUD_INCOMPLETE 0x01
#define XS_NUD_REACHABLE 0x02
#define XS_NUD_STALE 0x04
#define XS_NUD_DELAY 0x08
#define XS_NUD_PROBE 0x10
#define XS_NUD_FAILED 0x20
#define XS_NUD_NOARP 0x40
#define XS_NUD_PERMANENT 0x80

struct xs_neigh_values {
    uint8_t address[16]; /* IPv4 mapped */
    uint8_t mac[6];
    uint8_t state;  /* XS_NUD_*; 0 = it is gone */
    uint8_t device; /* the stack's index */
};
/* Replaces the whole table; returns when no worker can see the old one. */
int xs_stack_set_neighbours(struct xs_stack *stack, const struct xs_neigh_values *values, uint32_t n);
/* Changes one in place, which workers see at once. -ENOSPC: the table is full, replace it. */
int xs_stack_update_neighbour(struct xs_stack *stack, const struct xs_neigh_values *value);

/* A worker wants a neighbour to be resolved, or to be seen to be there still. */
#define XS_EVENT_NEIGH_WANTED 1
struct xs_event {
    uint32_t kind;       /* XS_EVENT_* */
    uint32_t device;     /* the stack's index */
    uint8_t address[16]; /* IPv4 mapped */
};
/* One for all workers: readable when there are events; reading it resets it. */
int xs_stack_event_fd(struct xs_stack *stack);
/* Takes up to `cap` events of one worker; from one thread at a time. */
int xs_worker_events(struct xs_worker *worker, struct xs_event *out, uint32_t cap);
/* Packets that wait for a neighbour. */
uint32_t xs_worker_neigh_held(struct xs_worker *worker);
