/* napi, receive: what the device has said of a frame, into its descriptor. The XDP program asks the device and puts the answer
 * before the frame:
 *
 *      | struct xs_xdp_hints | struct xs_xdp_metadata | frame
 *
 * A VLAN tag that the device has taken off is put back, so that a frame is the same to all who look at it whoever had it
 * before, and claims on whole frames get the frame that was sent. Contract: xdpstack/stages/napi.py. */
#include "base/likely.h"
#include "include/xdpstack_vlan.h"
#include "stages/napi.h"

#include "bpf/xdpstack_maps.h"

_Static_assert(XS_HINT_HASH == XS_XDP_OPTION_HASH && XS_HINT_TIMESTAMP == XS_XDP_OPTION_TIMESTAMP &&
                   XS_HINT_VLAN == XS_XDP_OPTION_VLAN,
               "taken over as they are");

#define BEFORE (sizeof(struct xs_xdp_hints) + sizeof(struct xs_xdp_metadata))

/* Returns whether the frame got its tag back: then it is not what it was taken for. */
static bool take(const struct xs_batch *b, uint32_t i, uint32_t asked) {
    struct xs_pkt *p = xs_pkt(b, i);
    struct xs_meta *m = xs_meta(b, i);
    struct xs_xdp_hints said;
    m->hints = 0;
    if (p->data_off < BEFORE) return false; /* never from our program */
    memcpy(&said, xs_data(b, i) + p->data_off - BEFORE, sizeof said);
    m->hints = said.valid & asked;
    if (m->hints & XS_HINT_HASH) {
        p->hash = said.hash;
        m->hash_type = said.hash_type;
    }
    if (m->hints & XS_HINT_TIMESTAMP) m->device_ns = said.timestamp_ns;
    if (likely(!(m->hints & XS_HINT_VLAN))) return false;
    if (xs_vlan_insert(b->mem, b->frame[i], said.vlan_proto, said.vlan_tci)) return false;
    p->flags &= (uint16_t)~XS_PKT_TRUNC; /* napi.rx looks again, at what it is now */
    return true;
}

void xs_napi_hints(const struct xs_napi *self, const struct xs_xsk *x, struct xs_batch *b) {
    bool tagged = false;
    for (uint32_t i = 0; i < b->n; i++) {
        if (x->hints)
            tagged |= take(b, i, x->hints);
        else
            self->mem->meta[b->frame[i]].hints = 0;
    }
    if (tagged) b->facts = 0;
}
