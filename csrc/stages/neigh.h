/* neigh: the Ethernet header of the next hop. Contract: xdpstack/stages/neigh.py. */
#ifndef XS_STAGES_NEIGH_H
#define XS_STAGES_NEIGH_H

#include "base/events.h"
#include "include/xdpstack_stage.h"
#include "tables/addr.h"
#include "tables/config.h"

#define XS_NEIGH_HELD 512u /* packets of one worker that wait for any neighbour */
#define XS_NEIGH_QUEUE_BYTES \
    212992u /* net.ipv4.neigh.default.unres_qlen_bytes: for one neighbour, by truesize */
#define XS_NEIGH_WAIT_NS 3000000000ull /* mcast_solicit (3) x retrans_time (1 s) */
#define XS_NEIGH_ASK_NS 1000000000ull  /* the same neighbour is asked for once a second at most */
#define XS_NEIGH_ASKED 256u

struct xs_neigh_held {
    struct xs_addr address;
    uint64_t since_ns;
    uint32_t frame;
    uint32_t device;
    uint32_t truesize;
};

struct xs_neigh {
    const struct xs_mem *mem;
    const struct xs_tables *tables;
    struct xs_events *events;
    uint32_t nheld;
    struct xs_neigh_held held[XS_NEIGH_HELD]; /* oldest first */
    struct {
        struct xs_addr address;
        uint64_t at_ns;
        uint32_t device;
    } asked
        [XS_NEIGH_ASKED]; /* by hash; what falls on another's place is asked for again, which is harmless */
};

enum { XS_NEIGH_TX_XMIT };
enum xs_neigh_tx_counter { XS_NEIGH_TX_HELD, XS_NEIGH_TX_ASKED };

void xs_neigh_tx(struct xs_neigh *self, struct xs_batch *b);
void xs_neigh_tx_tick(struct xs_neigh *self, struct xs_batch *b);

extern const struct xs_stage_def xs_neigh_tx_def;

#endif
