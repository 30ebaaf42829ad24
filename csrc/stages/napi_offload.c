/* napi, transmit: what the device is asked to do with a packet (XDP TX metadata, Linux 6.8), and when it has been sent.
 *
 *      | struct xs_uapi_xsk_tx_metadata | frame          the descriptor says XDP_TX_METADATA
 *
 * Asked for where a stack was opened with offloads, and of sockets that were granted them; a checksum that was left to a device
 * which does not do it is finished here. Contract: xdpstack/stages/napi.py. */
#include <netinet/in.h>
#include <stdlib.h>

#include "base/likely.h"
#include "stages/napi.h"
#include "wire/partial.h"
#include "wire/udp.h"

static inline bool is_stamped(const struct xs_mem *mem, uint32_t frame) {
    return mem->pkt[frame].pkt_type == XS_PACKET_OUTGOING && mem->meta[frame].stamp_ns;
}

uint32_t xs_napi_request(const struct xs_mem *mem, const struct xs_xsk *x, uint32_t frame) {
    struct xs_pkt *p = &mem->pkt[frame];
    struct xs_uapi_xsk_tx_metadata want = {0};
    if (p->data_off < sizeof want) return 0;
    if (p->csum == XS_CSUM_PARTIAL) {
        if (x->tx_offloads & XS_TX_CHECKSUM && p->l4_proto == IPPROTO_UDP) {
            want.flags |= XS_UAPI_XDP_TXMD_FLAGS_CHECKSUM;
            want.request.csum_start = (uint16_t)(p->l4_off - p->data_off);
            want.request.csum_offset = XS_UDP_CSUM;
        } else {
            xs_partial_complete(mem, frame);
        }
    }
    if (x->tx_offloads & XS_TX_TIMESTAMP && is_stamped(mem, frame))
        want.flags |= XS_UAPI_XDP_TXMD_FLAGS_TIMESTAMP;
    if (!want.flags) return 0;
    memcpy(xs_frame_data(mem, frame) + p->data_off - sizeof want, &want, sizeof want);
    return XS_UAPI_XDP_TX_METADATA;
}

static void note_sent(struct xs_sent_stamps *s, const struct xs_mem *mem, uint32_t frame) {
    struct xs_uapi_xsk_tx_metadata said;
    if (mem->pkt[frame].data_off < sizeof said || !is_stamped(mem, frame)) return;
    memcpy(&said, xs_frame_data(mem, frame) + mem->pkt[frame].data_off - sizeof said, sizeof said);
    uint32_t at = atomic_load_explicit(&s->producer, memory_order_relaxed);
    if (at - atomic_load_explicit(&s->consumer, memory_order_acquire) == XS_SENT_STAMPS) {
        s->lost++;
        return;
    }
    s->slot[at % XS_SENT_STAMPS] =
        (struct xs_sent_stamp){.id = mem->meta[frame].stamp_ns, .stamp_ns = said.completion.tx_timestamp};
    atomic_store_explicit(&s->producer, at + 1, memory_order_release);
}

void xs_napi_note_sent(struct xs_napi *self, const struct xs_xsk *x, uint32_t n) {
    const uint64_t *slots = x->comp.slots;
    for (uint32_t i = 0; self->sent_stamps && i < n; i++) {
        uint64_t frame = slots[(x->comp.cons + i) & x->comp.mask] >> self->mem->frame_shift;
        if (frame < self->mem->nframes && self->mem->pkt[frame].owner == XS_TRANSMITTING)
            note_sent(self->sent_stamps, self->mem, (uint32_t)frame);
    }
}
