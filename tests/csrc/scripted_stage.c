/* A stage that does what the packet says: each packet carries a script in its bytes, one action for each stage that it meets.
 *
 *      byte 14 + k is the action of the k-th stage on the packet's way:  edge | KEEP (0x40) | EMIT (0x80), or DROP
 *
 * KEEP: it is held, and released by that edge at the tick `ticks` ticks later. EMIT: a further packet with an empty script is
 * made, and takes edge 0. A script that is over says edge 0. The number of stages met so far is in the packet's mark.
 */
#include <string.h>

#include "xdpstack_stage.h"

#define KEEP 0x40u
#define EMIT 0x80u
#define DROP 0xffu
#define SCRIPT_AT 14u
#define SCRIPT_BYTES 32u
#define HELD_MAX 4096u

struct scripted {
    uint32_t level; /* which stage this is, for the log */
    uint32_t ticks; /* a kept packet waits for so many */
    uint32_t not_emitted;
    uint32_t nheld;
    struct {
        uint32_t frame, age;
        uint8_t edge;
    } held[HELD_MAX];
};

uint32_t scripted_bytes = sizeof(struct scripted);

/* Which stage ran on how many packets, in order. */
uint32_t log_entries;
uint32_t log_level[65536], log_packets[65536];

static uint8_t action(struct xs_batch *b, uint32_t i) {
    struct xs_pkt *p = xs_pkt(b, i);
    uint32_t at = SCRIPT_AT + p->mark++;
    return at < p->len && at < SCRIPT_AT + SCRIPT_BYTES ? xs_data(b, i)[p->data_off + at] : 0;
}

static void emit(struct scripted *self, struct xs_batch *b) {
    int made = xs_emit(b, 0);
    if (made < 0) {
        self->not_emitted++;
        return;
    }
    struct xs_pkt *p = xs_pkt(b, (uint32_t)made);
    p->data_off = 256;
    p->len = 60;
    p->pkt_len = 60;
    memset(xs_data(b, (uint32_t)made) + p->data_off, 0, p->len);
}

static void keep(struct scripted *self, struct xs_batch *b, uint32_t i, uint8_t edge) {
    xs_own(b->mem, b->frame[i], XS_HELD);
    self->held[self->nheld].frame = b->frame[i];
    self->held[self->nheld].age = 0;
    self->held[self->nheld++].edge = edge;
    b->next[i] = XS_KEPT;
}

void scripted(struct scripted *self, struct xs_batch *b) {
    if (log_entries < 65536) {
        log_level[log_entries] = self->level;
        log_packets[log_entries++] = b->n;
    }
    uint32_t n = b->n;
    b->count[0] += n;
    for (uint32_t i = 0; i < n; i++) {
        uint8_t what = action(b, i);
        if (what == DROP) {
            xs_drop(b, i, XS_REASON_HOOK);
            continue;
        }
        uint8_t edge = what & 0x3f;
        if (what & KEEP)
            keep(self, b, i, edge);
        else
            b->next[i] = edge;
        if (what & EMIT) emit(self, b);
    }
}

void scripted_tick(struct scripted *self, struct xs_batch *b) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < self->nheld; i++) {
        if (++self->held[i].age > self->ticks && xs_release(b, self->held[i].frame, self->held[i].edge) >= 0)
            continue;
        self->held[kept++] = self->held[i];
    }
    self->nheld = kept;
}

/* A stage with a defect: it passes a held packet on, or keeps a walking one. Only run where that is looked for. */
void breaks_hand_over(struct scripted *self, struct xs_batch *b) {
    for (uint32_t i = 0; i < b->n; i++) {
        xs_own(b->mem, b->frame[i], XS_HELD);
        b->next[i] = 0;
    }
}

const struct xs_stage_def scripted_def = {
    .name = "scripted",
    .fn = (xs_stage_fn *)scripted,
    .tick = (xs_tick_fn *)scripted_tick,
    .edges = {"zero", "one", "two", "three"},
    .counters = {"seen"},
};
static struct scripted state;
XS_EXPORT_STAGE(scripted_def, &state)
