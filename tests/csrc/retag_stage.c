/* A user's stage in C, built against the public headers alone: what is in VLAN 5 goes to VLAN 6, and all gets a service tag. */
#include "xdpstack_vlan.h"

enum { PASS };

static void retag(void *self, struct xs_batch *b) {
    for (uint32_t i = 0; i < b->n; i++) {
        b->next[i] = PASS;
        if (xs_pkt(b, i)->flags & XS_PKT_VLAN && (xs_meta(b, i)->vlan_tci & XS_VLAN_VID) == 5)
            xs_vlan_modify(b, i, XS_VLAN_PROTO_8021Q, 6);
        if (xs_vlan_push(b, i, XS_VLAN_PROTO_8021AD, 100)) xs_drop(b, i, XS_REASON_NOMEM);
    }
}

static const struct xs_stage_def retag_def = {.name = "retag", .fn = retag, .edges = {"accept"}};

XS_EXPORT_STAGE(retag_def, 0);
