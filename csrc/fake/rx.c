/* The fake kernel receives: from the fill ring, into the UMEM, onto the RX ring. See fake.h. */
#include "fake/fake.h"

#include <errno.h>
#include <string.h>

#include "bpf/xdpstack_maps.h"

/* The next usable frame, without taking it off the fill ring: xp_alloc(), xp_check_aligned(). A bad address is skipped
 * and counted. False when there is none. */
static bool peek_fill(struct xs_fake *f, uint32_t at, uint64_t *address) {
    const uint64_t *slots = f->fill.slots;
    *address = slots[(f->fill.cons + at) & f->fill.mask] & ~(uint64_t)(f->chunk_bytes - 1);
    return *address < f->memory_bytes;
}

/* Gathers `n` frames; all or nothing, as xsk_buff_can_alloc() asks before the first is taken. */
static bool allocate(struct xs_fake *f, uint32_t n, uint64_t *frames) {
    if (f->asleep || f->faults.fill_empty) return false;
    uint32_t have = f->nspare;
    memcpy(frames, f->spare, have * sizeof *frames);
    uint32_t taken = 0;
    while (have < n && xs_ring_have(&f->fill, taken + 1) > taken) {
        if (peek_fill(f, taken, &frames[have]))
            have++;
        else
            f->stats.rx_invalid_descs++;
        taken++;
        if (have == XS_FAKE_FRAGS_MAX) break;
    }
    /* what was taken and is not needed, or not enough, is kept for the next packet */
    if (taken) xs_ring_release(&f->fill, taken);
    f->nspare = have >= n ? have - n : have;
    if (have < n)
        memcpy(f->spare, frames, have * sizeof *frames);
    else
        memcpy(f->spare, &frames[n], f->nspare * sizeof *frames);
    return have >= n;
}

static void give_back(struct xs_fake *f, uint32_t n, const uint64_t *frames) {
    memcpy(&f->spare[f->nspare], frames, n * sizeof *frames);
    f->nspare += n;
}

static void announce(struct xs_fake *f, uint64_t address, uint32_t length, bool more) {
    struct xdp_desc *slots = f->rx.slots;
    if (f->faults.rx_bad_addresses) {
        f->faults.rx_bad_addresses--;
        address += f->memory_bytes;
    } else if (f->faults.rx_bad_lengths) {
        f->faults.rx_bad_lengths--;
        length = f->faults.rx_bad_length;
    }
    slots[f->rx.prod & f->rx.mask] =
        (struct xdp_desc){.addr = address, .len = length, .options = more ? XS_UAPI_XDP_PKT_CONTD : 0};
    xs_ring_submit(&f->rx, 1);
}

static void fell_asleep(struct xs_fake *f) {
    if (!f->faults.rx_need_wakeup) return;
    f->asleep = true;
    atomic_fetch_or(f->fill.flags, XDP_RING_NEED_WAKEUP);
}

void xs_fake_wake_rx(struct xs_fake *f) {
    if (f->asleep && !xs_ring_have(&f->fill, 1)) return; /* woken for nothing: sleeps on */
    f->asleep = false;
    atomic_fetch_and(f->fill.flags, ~(uint32_t)XDP_RING_NEED_WAKEUP);
}

/* xsk_rcv_check(), __xsk_rcv() */
int xs_fake_receive(struct xs_fake *f, const uint8_t *bytes, uint32_t length, uint32_t flags) {
    if (f->closed || f->faults.gone) return -ENXIO;
    if (f->faults.down) return -ENETDOWN;
    if (!length) return -EINVAL;
    uint32_t n = (length - 1) / f->frame_bytes + 1;
    if ((n > 1 && !f->xsk->multi) || n > XS_FAKE_FRAGS_MAX) {
        f->stats.rx_dropped++;
        return -ENOSPC;
    }
    uint64_t frames[XS_FAKE_FRAGS_MAX];
    if (!allocate(f, n, frames)) {
        f->stats.rx_dropped++;
        f->stats.rx_fill_ring_empty_descs++;
        fell_asleep(f);
        return -ENOMEM;
    }
    if (f->faults.rx_full || xs_ring_room(&f->rx, n) < n) {
        f->stats.rx_ring_full++;
        give_back(f, n, frames);
        return -ENOBUFS;
    }
    uint8_t *memory = f->stack->mem.data;
    for (uint32_t i = 0, off = 0; i < n; i++, off += f->frame_bytes) {
        uint32_t part = length - off < f->frame_bytes ? length - off : f->frame_bytes;
        uint64_t address = frames[i] + f->xsk->headroom;
        xs_frame_open(&f->stack->mem, (uint32_t)(frames[i] / f->chunk_bytes));
        memcpy(memory + address, bytes + off, part);
        if (i == 0) { /* what the XDP program puts before a frame that it lifts */
            struct xs_xdp_metadata metadata = {.claim_id = f->claim_id};
            memcpy(memory + address - sizeof metadata, &metadata, sizeof metadata);
            memcpy(memory + address - sizeof metadata - sizeof f->hints, &f->hints, sizeof f->hints);
        }
        if (i == 0 && (flags & XS_FAKE_PARTIAL)) xs_fake_make_partial(memory + address, part);
        announce(f, address, part, i + 1 < n);
    }
    f->values.received++;
    return 0;
}
