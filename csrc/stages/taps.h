/* taps: whole frames to those who claimed them. Contract: xdpstack/stages/taps.py. Off until Stack.frames() claims some: then
 * taps.rx is on the path. taps.tx is a place for hooks alone. */
#ifndef XS_STAGES_TAPS_H
#define XS_STAGES_TAPS_H

#include "include/xdpstack_stage.h"
#include "tables/config.h"
#include "tables/inbox.h"

struct xs_taps {
    const struct xs_mem *mem;
    const struct xs_tables *tables;
    struct xs_inbox *inbox;
};

enum { XS_TAPS_RX_RECEIVE };
enum xs_taps_rx_counter { XS_TAPS_RX_TAKEN };

void xs_taps_rx(struct xs_taps *self, struct xs_batch *b);
void xs_taps_rx_tick(struct xs_taps *self, struct xs_batch *b);

extern const struct xs_stage_def xs_taps_rx_def;

#endif
