/* neigh: the Ethernet header of the next hop, and the packets that wait for it. Contract: xdpstack/stages/neigh.py.
 *
 *      valid cell -----------------------------------> header, XMIT        (stale: control is asked, once a second)
 *      none, incomplete, failed --> waits, asked for
 *                                     |-- tick: the cell is valid now ----> header, XMIT, in the order they came
 *                                     |-- tick: it failed since, or 3 s --> dropped
 *                                     |-- another comes, the cell is valid -> it is put behind, all are sent
 *                                     +-- the queue is full --------------> the oldest is dropped
 *
 * Packets that wait for one neighbour are a list through their descriptors (xs_meta.scratch[0]); nothing is allocated. The
 * bounds: 212,992 bytes (by truesize) for one neighbour, as in Linux; for a worker 128 neighbours, and 1024 packets or a
 * quarter of its frames.
 */
#ifndef XS_STAGES_NEIGH_H
#define XS_STAGES_NEIGH_H

#include "base/events.h"
#include "include/xdpstack_stage.h"
#include "tables/addr.h"
#include "tables/config.h"

#define XS_NEIGH_WAITS 128u            /* neighbours of one worker that are waited for */
#define XS_NEIGH_HELD 1024u            /* packets of one worker that wait, at most */
#define XS_NEIGH_QUEUE_BYTES 212992u   /* net.ipv4.neigh.default.unres_qlen_bytes */
#define XS_NEIGH_WAIT_NS 3000000000ull /* mcast_solicit (3) x retrans_time (1 s) */
#define XS_NEIGH_ASK_NS 1000000000ull  /* the same neighbour is asked for once a second at most */
#define XS_NEIGH_LOOK_NS \
    50000000ull /* who waits looks again at least this often, whatever seems to be unchanged */

/* A neighbour that is waited for. */
struct xs_neigh_wait {
    struct xs_addr address;
    uint32_t device;
    uint32_t first, last; /* packets, oldest first; XS_NO_FRAME behind the last */
    uint32_t packets;
    uint32_t bytes; /* truesize of all */
    uint64_t cell;  /* as it was when the wait began */
    uint64_t since_ns;
    uint64_t asked_ns;
    bool asked;
};

struct xs_neigh {
    const struct xs_mem *mem;
    const struct xs_tables *tables;
    struct xs_events *events;
    uint32_t held_max;
    uint32_t nheld; /* packets */
    uint32_t nwaits;
    /* what the waits were last looked at with (only compared), and when they are due again though it stays so */
    const void *seen_table, *seen_config;
    uint32_t seen_changes;
    uint64_t due_ns;
    struct xs_neigh_wait wait[XS_NEIGH_WAITS];
};

enum { XS_NEIGH_TX_XMIT };
enum xs_neigh_tx_counter { XS_NEIGH_TX_HELD, XS_NEIGH_TX_ASKED };

void xs_neigh_init(struct xs_neigh *self, const struct xs_mem *mem, const struct xs_tables *tables,
                   struct xs_events *events, uint32_t frames);
void xs_neigh_tx(struct xs_neigh *self, struct xs_batch *b);
void xs_neigh_tx_tick(struct xs_neigh *self, struct xs_batch *b);

extern const struct xs_stage_def xs_neigh_tx_def;

/* ---- between the files of this stage ---- */

/* neigh_wait.c: the packet at `i` waits for its neighbour, whose cell is `cell`; or is dropped for want of room. */
void xs_neigh_hold(struct xs_neigh *self, struct xs_batch *b, uint32_t i, struct xs_addr address,
                   uint64_t cell);
/* The same for one whose neighbour is known by now: behind those that still wait for it, if there are any; they are to be
 * released once the batch has been seen. False: nobody waits, it may go at once. */
bool xs_neigh_follow(struct xs_neigh *self, struct xs_batch *b, uint32_t i, const struct xs_config *config,
                     struct xs_addr address, uint64_t cell);
/* Sends what waits for neighbours that are known by now, and drops what has waited in vain, as far as the batch has room. */
void xs_neigh_release(struct xs_neigh *self, struct xs_batch *b);
/* Asks control to have the neighbour looked for; false when its ring is full. */
bool xs_neigh_ask(struct xs_neigh *self, struct xs_batch *b, uint32_t device, struct xs_addr address);
/* neigh_tx.c: puts the Ethernet header before the IP header. */
void xs_neigh_write(const struct xs_batch *b, uint32_t i, const struct xs_config *config, const uint8_t *mac);

#endif
