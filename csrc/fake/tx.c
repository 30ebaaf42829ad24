/* The fake kernel sends: from the TX ring into a list of bytes, then onto the completion ring. See fake.h. */
#include "fake/fake.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Appends; out of memory ends the test run: there is no kernel to stand in for then. */
static void append(struct xs_fake_bytes *b, const void *bytes, size_t n) {
    if (b->n + n > b->cap) {
        while (b->n + n > b->cap) b->cap = b->cap ? b->cap * 2 : 4096;
        b->at = realloc(b->at, b->cap);
        if (!b->at) abort();
    }
    memcpy(b->at + b->n, bytes, n);
    b->n += n;
}

/* xp_aligned_validate_desc() */
static bool valid(const struct xs_fake *f, const struct xdp_desc *d) {
    uint64_t offset = d->addr & (f->chunk_bytes - 1);
    return d->len && offset + d->len <= f->chunk_bytes && d->addr < f->memory_bytes &&
           !(d->options & ~(uint32_t)(XS_UAPI_XDP_PKT_CONTD | XS_UAPI_XDP_TX_METADATA));
}

static void begin_packet(struct xs_fake *f) {
    uint32_t length = 0;
    f->open_at = f->sent.n;
    append(&f->sent, &length, sizeof length);
}

static void end_packet(struct xs_fake *f) {
    uint32_t length = (uint32_t)(f->sent.n - f->open_at - sizeof length);
    memcpy(f->sent.at + f->open_at, &length, sizeof length);
    f->open_pending = 0;
    f->values.sent++;
}

/* xsk_drop_skb(): nothing leaves, but its descriptors complete. */
static void drop_packet(struct xs_fake *f) {
    if (!f->open_pending) return;
    f->sent.n = f->open_at;
    f->open_pending = 0;
    f->values.tx_dropped++;
}

/* xskq_cons_read_desc_batch(): in zero-copy the descriptors of a packet that has more of them than the driver sends are gone, and
 * their frames with them; what is left of it is taken for a packet of its own. */
static void lose_packet(struct xs_fake *f) {
    f->npending -= f->open_pending;
    f->values.lost += f->open_pending;
    drop_packet(f);
}

int xs_fake_transmit(struct xs_fake *f, uint32_t budget) {
    const struct xdp_desc *slots = f->tx.slots;
    const uint8_t *memory = f->stack->mem.data;
    while (xs_ring_have(&f->tx, 1)) {
        struct xdp_desc d = slots[f->tx.cons & f->tx.mask];
        if (!valid(
                f,
                &d)) { /* it is skipped, never completed, and takes down the packet it is in; the rest waits */
            f->stats.tx_invalid_descs++;
            drop_packet(f);
            xs_ring_release(&f->tx, 1);
            return 0;
        }
        if (budget-- == 0) return -EAGAIN;
        /* a slot of the completion ring is reserved before anything is sent: xsk_cq_reserve_locked() */
        if (xs_ring_room(&f->comp, f->comp.size) <= f->npending) return -EAGAIN;
        if (!f->open_pending) begin_packet(f);
        append(&f->sent, memory + d.addr, d.len);
        f->pending[f->npending++] =
            (struct xs_fake_pending){.address = d.addr, .sent_ns = xs_stack_now_ns(f->stack)};
        f->open_pending++;
        xs_ring_release(&f->tx, 1);
        if (!(d.options & XS_UAPI_XDP_PKT_CONTD))
            end_packet(f);
        else if (f->open_pending == f->zc_max_segs)
            lose_packet(f);
        else if (f->open_pending == XS_FAKE_FRAGS_MAX)
            drop_packet(f);
    }
    f->stats.tx_ring_empty_descs++;
    return 0;
}

static void report(struct xs_fake *f, uint64_t address) {
    uint64_t *slots = f->comp.slots;
    if (f->faults.completions_lost) {
        f->faults.completions_lost--;
        f->values.lost++;
        return;
    }
    if (f->faults.completions_bad) {
        f->faults.completions_bad--;
        address += f->memory_bytes;
    }
    slots[f->comp.prod & f->comp.mask] = address;
    xs_ring_submit(&f->comp, 1);
    f->values.completed++;
}

/* xsk_destruct_skb(): completes what has been sent for long enough. */
void xs_fake_complete(struct xs_fake *f) {
    if (f->closed || f->faults.gone) return;
    uint64_t now = xs_stack_now_ns(f->stack), delay = f->faults.completion_delay_ns;
    uint32_t whole = f->npending - f->open_pending, due = 0;
    while (due < whole && (!delay || (delay != UINT64_MAX && now - f->pending[due].sent_ns >= delay))) due++;
    for (uint32_t i = 0; i < due; i++)
        report(f, f->pending[f->faults.completions_reversed ? due - 1 - i : i].address);
    f->npending -= due;
    memmove(f->pending, f->pending + due, f->npending * sizeof f->pending[0]);
}
