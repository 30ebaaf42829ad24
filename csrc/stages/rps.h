/* rps: which worker has a received packet, and by which queue one leaves. Contract: xdpstack/stages/rps.py. Off until
 * Stack.rps().
 *
 *      napi.rx --> rps.rx --+--> the stages that follow, here
 *                           +--> backlog of another worker (base/crossing.h) --> the stages that follow, there
 */
#ifndef XS_STAGES_RPS_H
#define XS_STAGES_RPS_H

#include "base/crossing.h"
#include "include/xdpstack_stage.h"
#include "tables/config.h"
#include "tables/rps.h"

struct xs_rps {
    const struct xs_mem *mem;
    const struct xs_tables *tables;
    uint32_t worker;
    bool hints;                                   /* the stack asked for what devices say of frames */
    struct xs_crossing *own;                      /* to the others, and from them */
    struct xs_crossing *crossing[XS_WORKERS_MAX]; /* every worker's */
};

enum { XS_RPS_RX_RECEIVE };
enum xs_rps_rx_counter { XS_RPS_RX_STEERED, XS_RPS_RX_MOVED, XS_RPS_RX_STAYED, XS_RPS_RX_LIMITED };
enum { XS_RPS_TX_XMIT };

void xs_rps_rx(struct xs_rps *self, struct xs_batch *b);
void xs_rps_tx(struct xs_rps *self, struct xs_batch *b);

extern const struct xs_stage_def xs_rps_rx_def, xs_rps_tx_def;

/* ---- between the files of this stage ---- */

/* rps_hash.c: the flow's, from the headers of a packet; never 0, but for what is of no flow. */
uint32_t xs_flow_hash(const uint64_t key[2], const struct xs_pkt *p, const uint8_t *frame);

/* The packet's: as the device said of all its ports, or else our own, which is noted. skb_get_hash(). */
static inline uint32_t xs_rps_hash(const struct xs_rps *self, const struct xs_rps_table *t,
                                   const struct xs_batch *b, uint32_t i) {
    enum { L4 = 1u << 3 }; /* XDP_RSS_L4 of enum xdp_rss_hash_type */
    struct xs_pkt *p = xs_pkt(b, i);
    if (self->hints) {
        struct xs_meta *m = xs_meta(b, i);
        if (p->hash && m->hints & XS_HINT_HASH && m->hash_type & L4) return p->hash;
        m->hints &= ~XS_HINT_HASH; /* the device's is no more */
    }
    return p->hash = xs_flow_hash(t->key, p, xs_data(b, i));
}

#endif
