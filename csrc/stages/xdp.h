/* xdp: what becomes at once of frames that were lifted. Contract: xdpstack/stages/xdp.py. xdp.rx itself, the program that lifts,
 * is bpf/xdpstack.bpf.c; csrc/xdp/ has what loads it. xdp.redirect is off until Stack.redirect(). */
#ifndef XS_STAGES_XDP_H
#define XS_STAGES_XDP_H

#include "include/xdpstack_stage.h"
#include "tables/config.h"

struct xs_xdp {
    const struct xs_tables *tables;
};

enum { XS_XDP_REDIRECT_RECEIVE, XS_XDP_REDIRECT_XMIT };
enum xs_xdp_redirect_counter { XS_XDP_REDIRECT_REDIRECTED };

void xs_xdp_redirect(struct xs_xdp *self, struct xs_batch *b);

extern const struct xs_stage_def xs_xdp_redirect_def;

#endif
