/* udp: between IP and the socket. Contract: xdpstack/udp/layer.py; meaning, line by line: xdpstack/udp/semantics.py.
 *
 *      ip.local --> udp.rx --> receive queue of a socket --> reader (csrc/views/)
 *                     ^ shadow sockets (udp_shadow.c), in the tick (udp_tick.c)
 *      routing.tx --> udp.tx --> ip.tx
 */
#ifndef XS_STAGES_UDP_H
#define XS_STAGES_UDP_H

#include "base/pool.h"
#include "include/xdpstack_stage.h"
#include "tables/config.h"
#include "tables/inbox.h"
#include "tables/sockets.h"

#include "ffi/62_engine.cdef.h"

#define XS_UDP_MAX_BYTES 65507u /* largest payload: 65535 - 20 (IPv4 header) - 8 */

struct xs_udp {
    const struct xs_mem *mem;
    struct xs_pool *pool;
    const struct xs_tables *tables;
    struct xs_inbox *inbox;
    struct xs_path_mtus *paths; /* ICMP errors tell of them */
    bool leaves_checksum;       /* to the devices: all of the stack do it */
    bool manual_clock;          /* the clock of batches is the time: no offset */
    uint64_t stamp_offset_ns;   /* CLOCK_REALTIME less the clock of batches */
    uint64_t stamp_checked_ns;
    int shadow_epoll;   /* the shadow sockets that this worker reads; -1 = none so far */
    int worker_epoll;   /* what the worker sleeps on, so that shadows wake it */
    bool busy;          /* datagrams came since the last tick */
    uint64_t looked_ns; /* when the shadows were last looked at */
    const struct xs_delivery
        *decided; /* Python engine: to which sockets the packets go that are resumed now */
    uint32_t ndecided;
};

enum xs_udp_rx_counter {
    XS_UDP_RX_BYTES,
    XS_UDP_RX_PARTIAL,
    XS_UDP_RX_CLONES,
    XS_UDP_RX_CLONES_LOST,
    XS_UDP_RX_SLOW,
    XS_UDP_RX_SLOW_POSTPONED,
    XS_UDP_RX_ICMP_ERRORS,
};
enum { XS_UDP_TX_OUTPUT };
enum xs_udp_tx_counter { XS_UDP_TX_BYTES };

void xs_udp_rx(struct xs_udp *self, struct xs_batch *b);
void xs_udp_rx_tick(struct xs_udp *self, struct xs_batch *b);
void xs_udp_tx(struct xs_udp *self, struct xs_batch *b);
/* What is left of the two when Python has decided, udp_decided.c: queues, copies, counters. */
void xs_udp_rx_decided(struct xs_udp *self, struct xs_batch *b);
void xs_udp_tx_decided(struct xs_udp *self, struct xs_batch *b);

extern const struct xs_stage_def xs_udp_rx_def, xs_udp_tx_def;

/* Shadow sockets, udp_shadow.c. Adding and removing: while nobody drives the worker. */
int xs_udp_shadow_add(struct xs_udp *self, struct xs_socket *s);
void xs_udp_shadow_remove(struct xs_udp *self, struct xs_socket *s);
void xs_udp_shadow_tick(struct xs_udp *self, struct xs_batch *b);
void xs_udp_shadow_close(struct xs_udp *self);

#endif
