/* What one worker feeds into the receive queues of sockets. One per worker, shared by the stages that deliver (udp, taps).
 *
 *      xs_inbox_put()    a packet onto a socket's feed of this worker: charged, not yet seen by the reader
 *      xs_inbox_flush()  once per poll: the readers see what was put, and those who sleep are woken
 */
#ifndef XS_TABLES_INBOX_H
#define XS_TABLES_INBOX_H

#include "include/xdpstack_stage.h"
#include "tables/sockets.h"

struct xs_inbox {
    const struct xs_mem *mem;
    uint32_t worker;     /* which feed of a socket is ours */
    uint32_t frames_max; /* frames that may be on queues or lent: the rest keeps the device going (udp_mem) */
    uint64_t frames_queued; /* ever put on a queue */
    struct xs_feed *dirty;  /* feeds that were pushed to since the last flush */
    alignas(64) _Atomic(uint64_t)
        frames_taken; /* ever given back by the reader, who alone writes it, under the GIL */
};

/* Puts a packet on a socket's queue: 0, or the reason why not (then the packet is still the caller's). The packet's
 * payload_off and payload_len are set, and what else the reader looks at. */
uint16_t xs_inbox_put(struct xs_inbox *self, struct xs_socket *s, uint32_t frame, uint32_t truesize);
void xs_inbox_flush(struct xs_inbox *self);

#endif
