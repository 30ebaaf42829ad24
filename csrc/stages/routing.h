/* routing: for this host, to forward, or to drop; and which way what this host sends goes.
 * Contract: xdpstack/routing/layer.py; meaning, line by line: xdpstack/routing/semantics.py. The FIB: tables/fib.h.
 *
 *      routing.rx   routing_rx.c       ip_route_input_noref, ip6_route_input
 *                   routing_source.c   fib_validate_source: may this source have come in here?
 *      routing.tx   routing_tx.c       ip_route_output_flow, ip6_dst_lookup_flow
 *
 * The stages gather a packet's key and ask for a decision; the decisions are functions of published tables and a key
 * alone, so that control asks the very same (ffi/50_routing.cdef.h: xs_routing_ask).
 */
#ifndef XS_STAGES_ROUTING_H
#define XS_STAGES_ROUTING_H

#include "include/xdpstack_stage.h"
#include "tables/fib.h"

struct xs_routing {
    const struct xs_tables *tables;
    uint32_t user; /* uid of this process, whose sockets send */
};

enum { XS_ROUTING_RX_LOCAL, XS_ROUTING_RX_FORWARD };
enum { XS_ROUTING_TX_OUTPUT };
enum xs_routing_rx_counter { XS_ROUTING_RX_SAME };
enum xs_routing_tx_counter { XS_ROUTING_TX_SAME };

/* XS_PKT_ROUTED_* are routing's: set by it and by nobody before. */
#define XS_PKT_ROUTED (XS_PKT_ROUTED_LOCAL | XS_PKT_ROUTED_BROADCAST | XS_PKT_ROUTED_MULTICAST)

void xs_routing_rx(struct xs_routing *self, struct xs_batch *b);
void xs_routing_tx(struct xs_routing *self, struct xs_batch *b);

extern const struct xs_stage_def xs_routing_rx_def, xs_routing_tx_def;

/* ---- decisions: values in, values out ---- */

/* Of a packet that came in by `device`. `key` has all but iif and, for IPv6, flags; those are set here. */
void xs_routing_input(const struct xs_fib *fib, const struct xs_device_config *device, struct xs_fib_key *key,
                      struct xs_routed *out);

/* Of what this host sends. `key->oif` is the kernel's index of the device that the sender is bound to, which is one of the
 * stack's, or 0; `key->src` zero when it has chosen none. */
void xs_routing_output(const struct xs_fib *fib, const struct xs_config *config, struct xs_fib_key *key,
                       struct xs_routed *out);

/* fib_validate_source(): XS_ROUTING_PASS, or the reason why a packet from `key->src` cannot have come in by `device`. `dst` is
 * zero (mapped) for broadcast and multicast; `oif` is where it would be forwarded to, 0 = it is for this host. IPv4 only. */
#define XS_ROUTING_PASS XS_REASON_NOT_SPECIFIED
enum xs_reason xs_routing_validate(const struct xs_fib *fib, const struct xs_device_config *device,
                                   const struct xs_fib_key *key, struct xs_addr dst, uint32_t oif);

static inline void xs_routed_drop(struct xs_routed *r, enum xs_reason why) {
    r->next = XS_DROP;
    r->reason = (uint16_t)why;
}

#endif
