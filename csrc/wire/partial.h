/* Partial checksums (CHECKSUM_PARTIAL): a local sender left the sum of a UDP or TCP segment to hardware that it never met. Then
 * the field holds the folded sum of the pseudo-header alone (udp4_hwcsum, __tcp_v4_send_check), and whoever gets the frame has
 * to know, or to finish what was begun: skb_checksum_help(). Linux knows by skb->ip_summed; XDP frames have no such field, so
 * that it is told by the sum itself. */
#ifndef XS_WIRE_PARTIAL_H
#define XS_WIRE_PARTIAL_H

#include <stdbool.h>

#include "include/xdpstack_stage.h"

/* Whether the packet's checksum is partial. False for whatever has none: another protocol, a fragment, a header that lies or is cut
 * off or not in the first frame. The packet begins with its Ethernet header. */
bool xs_partial(const struct xs_mem *mem, uint32_t frame);
/* Finishes the checksum if it is partial; whether it was. */
bool xs_partial_complete(const struct xs_mem *mem, uint32_t frame);

#endif
