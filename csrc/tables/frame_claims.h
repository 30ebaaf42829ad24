/* Which queue takes the frames of which claim. Immutable, replaced whole.
 *
 * The XDP program says which claim lifted a frame: struct xs_xdp_metadata (bpf/xdpstack_layout.cdef.h) stands directly
 * before the frame's first byte. Ids count per device. */
#ifndef XS_TABLES_FRAME_CLAIMS_H
#define XS_TABLES_FRAME_CLAIMS_H

#include <stdint.h>
#include <string.h>

#include "base/likely.h"
#include "bpf/xdpstack_maps.h"
#include "include/xdpstack_stage.h"
#include "tables/sockets.h"

/* The claim that lifted the packet whose first byte is at `eth`; 0: nobody says. */
static inline uint32_t xs_claim_of(const struct xs_pkt *p, const uint8_t *eth) {
    struct xs_xdp_metadata metadata;
    if (unlikely(p->data_off < sizeof metadata)) return 0;
    memcpy(&metadata, eth - sizeof metadata, sizeof metadata);
    return metadata.claim_id;
}

struct xs_frame_claims {
    uint32_t n;
    struct {
        uint32_t claim_id;
        uint32_t device; /* the stack's index */
        struct xs_socket *socket;
    } entry[];
};

#endif
