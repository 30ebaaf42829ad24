/* Which queue takes the frames of which claim. Immutable, replaced whole.
 *
 * The XDP program says which claim lifted a frame: struct xs_xdp_metadata (bpf/xdpstack_layout.cdef.h) stands directly
 * before the frame's first byte. Ids count per device. */
#ifndef XS_TABLES_FRAME_CLAIMS_H
#define XS_TABLES_FRAME_CLAIMS_H

#include <stdint.h>

#include "tables/sockets.h"

struct xs_frame_claims {
    uint32_t n;
    struct {
        uint32_t claim_id;
        uint32_t device; /* the stack's index */
        struct xs_socket *socket;
    } entry[];
};

#endif
