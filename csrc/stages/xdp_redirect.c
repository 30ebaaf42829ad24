/* xdp.redirect: a frame whose claim is redirected leaves by another device, or by its own. Contract: xdpstack/stages/xdp.py.
 * Path: napi.rx > xdp.redirect > ip.rx, napi.tx. Off until Stack.redirect(). */
#include "stages/xdp.h"

#include <string.h>

#include "base/likely.h"
#include "tables/frame_claims.h"
#include "tables/redirects.h"
#include "wire/eth.h"

/* What is the same for all frames of one claim that came by one device. */
struct way {
    uint32_t claim_id, device;             /* the frames */
    const struct xs_redirect_entry *entry; /* NULL: these stay */
    uint32_t most;                         /* bytes */
    enum xs_reason why;                    /* they cannot leave */
};

/* __xdp_enqueue, xdp_ok_fwd_dev */
static struct way find(const struct xs_redirects *t, const struct xs_config *config, uint32_t claim_id,
                       uint32_t device) {
    struct way way = {.claim_id = claim_id, .device = device};
    for (uint32_t i = 0; i < t->n && !way.entry; i++)
        if (t->entry[i].claim_id == claim_id && t->entry[i].device == device) way.entry = &t->entry[i];
    if (!way.entry) return way;
    const struct xs_device_config *to = &config->device[way.entry->to];
    way.most = to->mtu + XS_ETH_BYTES + XS_VLAN_BYTES;
    if (!(to->flags & XS_DEV_UP)) way.why = XS_REASON_DEV_READY;
    return way;
}

static inline void swap_addresses(uint8_t *eth) {
    uint8_t dst[XS_ETH_ADDR_BYTES];
    memcpy(dst, eth + XS_ETH_DST, sizeof dst);
    memcpy(eth + XS_ETH_DST, eth + XS_ETH_SRC, sizeof dst);
    memcpy(eth + XS_ETH_SRC, dst, sizeof dst);
}

void xs_xdp_redirect(struct xs_xdp *self, struct xs_batch *b) {
    const struct xs_redirects *t = xs_table(self->tables, redirects);
    if (!t) return xs_next_all(b, XS_XDP_REDIRECT_RECEIVE);
    const struct xs_config *config = xs_table(self->tables, config);
    const struct xs_mem mem = *b->mem; /* a copy: no store can change it, it stays in registers */
    struct way way = {.device = XS_NO_DEVICE};
    uint64_t redirected = 0;
    for (uint32_t i = 0, n = b->n; i < n; i++) {
        struct xs_pkt *p = &mem.pkt[b->frame[i]];
        uint8_t *eth = xs_frame_data(&mem, b->frame[i]) + p->data_off;
        uint32_t claim_id = xs_claim_of(p, eth);
        if (unlikely(claim_id != way.claim_id || p->device != way.device))
            way = find(t, config, claim_id, p->device);
        b->next[i] = XS_XDP_REDIRECT_RECEIVE;
        if (!way.entry) continue;
        if (unlikely(way.why || p->pkt_len > way.most)) {
            xs_drop(b, i, way.why ? way.why : XS_REASON_PKT_TOO_BIG);
            continue;
        }
        if (way.entry->swap && p->len >= XS_ETH_BYTES) swap_addresses(eth);
        p->device = way.entry->to;
        b->next[i] = XS_XDP_REDIRECT_XMIT;
        redirected++;
    }
    b->count[XS_XDP_REDIRECT_REDIRECTED] += redirected;
}

const struct xs_stage_def xs_xdp_redirect_def = {
    .name = "xdp.redirect",
    .fn = (xs_stage_fn *)xs_xdp_redirect,
    .edges = {"receive", "xmit"},
    .counters = {"redirected"},
};
