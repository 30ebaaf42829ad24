/* taps.rx: a frame whose claim somebody reads goes onto that queue, whole. Contract: xdpstack/stages/taps.py.
 * Path: napi.rx > taps.rx > ip.rx. Off until Stack.frames(). */
#include "stages/taps.h"

#include "tables/frame_claims.h"

static struct xs_socket *taker(const struct xs_frame_claims *claims, const struct xs_batch *b, uint32_t i) {
    const struct xs_pkt *p = xs_pkt(b, i);
    uint32_t claim_id = xs_claim_of(p, xs_data(b, i) + p->data_off);
    for (uint32_t k = 0; k < claims->n; k++)
        if (claims->entry[k].claim_id == claim_id && claims->entry[k].device == p->device)
            return claims->entry[k].socket;
    return NULL;
}

void xs_taps_rx(struct xs_taps *self, struct xs_batch *b) {
    const struct xs_frame_claims *claims = xs_table(self->tables, frame_claims);
    for (uint32_t i = 0; i < b->n; i++) {
        b->next[i] = XS_TAPS_RX_RECEIVE;
        struct xs_socket *s = claims ? taker(claims, b, i) : NULL;
        if (!s) continue;
        struct xs_pkt *p = xs_pkt(b, i);
        p->payload_off = p->data_off;
        p->payload_len = p->pkt_len < UINT16_MAX ? (uint16_t)p->pkt_len : UINT16_MAX;
        uint16_t why = xs_inbox_put(self->inbox, s, b->frame[i], xs_truesize(p->payload_len, false));
        if (why) {
            xs_drop(b, i, why);
            continue;
        }
        b->next[i] = XS_KEPT;
        b->ledger->delivered++;
        b->count[XS_TAPS_RX_TAKEN]++;
    }
}

void xs_taps_rx_tick(struct xs_taps *self, struct xs_batch *b) { xs_inbox_flush(self->inbox); }

const struct xs_stage_def xs_taps_rx_def = {
    .name = "taps.rx",
    .fn = (xs_stage_fn *)xs_taps_rx,
    .tick = (xs_tick_fn *)xs_taps_rx_tick,
    .edges = {"receive"},
    .counters = {"taken"},
};
