/* The tick of udp.rx: the clock of time stamps, the shadow sockets, and what was queued is published. See stages/udp.h. */
#include "stages/udp.h"

#include "base/clock.h"

#define STAMP_CHECK_NS 1000000000ull /* CLOCK_REALTIME may be set or slewed: how often we look */

/* The offset between the clock of batches and CLOCK_REALTIME, so that a time stamp costs an addition. */
static void check_clock(struct xs_udp *self, uint64_t now_ns) {
    if (self->stamp_checked_ns && now_ns - self->stamp_checked_ns < STAMP_CHECK_NS) return;
    self->stamp_offset_ns = xs_clock_ns(CLOCK_REALTIME) - now_ns;
    self->stamp_checked_ns = now_ns;
}

void xs_udp_rx_tick(struct xs_udp *self, struct xs_batch *b) {
    if (!self->manual_clock) check_clock(self, b->now_ns);
    xs_udp_shadow_tick(self, b);
    xs_inbox_flush(self->inbox);
}
