/* napi: between the rings and the walk. Contract: xdpstack/stages/napi.py. */
#ifndef XS_STAGES_NAPI_H
#define XS_STAGES_NAPI_H

#include "base/pool.h"
#include "include/xdpstack_stage.h"
#include "tables/config.h"
#include "xsk/xsk.h"

#define XS_TX_BACKLOG 1024u /* packets that wait for room in a TX ring, per queue: the length of a pfifo qdisc */
#define XS_FRAGS_MAX 18u    /* frames of a received packet: MAX_SKB_FRAGS + 1 */

/* This worker's queue of one device. */
struct xs_port {
    struct xs_xsk *xsk;     /* NULL: this worker has no queue of that device */
    uint32_t backlog_head, backlog_n;
    uint32_t backlog[XS_TX_BACKLOG]; /* FIFO of packets, owner HELD */
};

struct xs_napi {
    const struct xs_mem *mem;
    struct xs_pool *pool;
    const struct xs_tables *tables;
    struct xs_port port[XS_DEVICES_MAX];
    uint32_t nports;          /* ports[0..nports) may have a queue */
    uint32_t next_port;       /* round robin of polls */
    uint32_t fill_target;     /* frames that a fill ring should hold */
};

enum { XS_NAPI_RX_RECEIVE };
enum xs_napi_rx_counter { XS_NAPI_RX_PACKETS_BYTES, XS_NAPI_RX_TRUNCATED };
enum xs_napi_tx_counter { XS_NAPI_TX_BYTES, XS_NAPI_TX_BACKLOGGED };

/* Takes up to `budget` packets of one device's queue into the empty batch `b`. Returns how many. */
uint32_t xs_napi_poll(struct xs_napi *self, uint32_t device, uint32_t budget, struct xs_batch *b);
/* Puts free frames on the fill ring, up to the target; wakes the kernel when it asks for it. */
void xs_napi_refill(struct xs_napi *self, uint32_t device);
/* Takes sent frames back from the completion ring. */
void xs_napi_complete(struct xs_napi *self, uint32_t device);
/* Tells the kernel of what was put on the TX ring since the last time. */
void xs_napi_kick(struct xs_napi *self, uint32_t device);
/* Packets that could be sent on the device now without being dropped (ring and backlog). */
uint32_t xs_napi_tx_room(struct xs_napi *self, uint32_t device);

void xs_napi_rx(struct xs_napi *self, struct xs_batch *b); /* parses Ethernet and VLAN into the descriptor */
void xs_napi_tx(struct xs_napi *self, struct xs_batch *b);
void xs_napi_tx_tick(struct xs_napi *self, struct xs_batch *b);

extern const struct xs_stage_def xs_napi_rx_def, xs_napi_tx_def;

#endif
