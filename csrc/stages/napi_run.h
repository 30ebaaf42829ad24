/* Packets of one frame and without a tag, taken in a row: descriptor and Ethernet header in one go, and nothing is called, so
 * that registers keep what is the same for all. Nearly all that comes is so. The header is read once for packets that follow
 * each other with the same one, as those do that come from one router.
 *
 * What is not so (several frames, a tag, too short) is napi.rx's own, which then goes on in a row behind it.
 */
#ifndef XS_STAGES_NAPI_RUN_H
#define XS_STAGES_NAPI_RUN_H

#include <stdalign.h>
#include <string.h>

#include "base/debug.h"
#include "base/likely.h"
#include "include/xdpstack_stage.h"
#include "wire/eth.h"
#include "xsk/xsk.h"

/* A MAC address as a number. Reads 8 bytes: of a frame that has an Ethernet header, of a device that has more behind it. */
static inline uint64_t xs_mac_number(const uint8_t *mac) {
    uint64_t v;
    memcpy(&v, mac, 8);
    return v << 16;
}

/* How the frame was addressed, `own` being the device's MAC as a number. eth_type_trans. */
static inline uint8_t xs_mac_type(const uint8_t *eth, uint64_t own) {
    uint64_t dst = xs_mac_number(eth);
    if (likely(dst == own)) return XS_PACKET_HOST;
    if (!xs_eth_is_group(eth)) return XS_PACKET_OTHERHOST;
    return dst == 0xffffffffffff0000ull ? XS_PACKET_BROADCAST : XS_PACKET_MULTICAST;
}

static inline uint64_t xs_load64(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* The frame with an address, if the address is `off` bytes into it; else a number larger than any frame's. */
static inline uint64_t xs_frame_at(const struct xs_mem *mem, uint64_t addr, uint64_t off) {
    uint64_t start = addr - off; /* what is not zero below a frame's number comes to stand above it */
    return start >> mem->frame_shift | start << (64 - mem->frame_shift);
}

/* Sixteen bytes at once, kept in a register: the compiler would copy a structure from memory to memory. */
typedef uint64_t xs_quarter __attribute__((vector_size(16), aligned(16), may_alias));

/* Headers are in the cache of another core, which polls the device. Taken one after the other they are what a packet costs most,
 * as few of these loads fit into what a CPU looks ahead; so each is asked for so many packets before it is read. No more than
 * that: a CPU waits for a dozen at once, and a longer queue of them is waited for, with nothing else done. */
#define XS_ASK_AHEAD 16u

/* Asks for the headers of the packets of `n` descriptors that lie in a row. An address that no sound kernel writes does no harm:
 * what is only asked for cannot fault. Inlined by order: GCC takes a function that only prefetches for one without an effect, and
 * leaves it out. */
static inline __attribute__((always_inline)) void xs_ask_for_headers(const struct xs_mem *mem,
                                                                     const struct xdp_desc *d, uint32_t n) {
    const uint8_t *data = mem->data;
#pragma GCC unroll 4
    for (uint32_t i = 0; i < n; i++) __builtin_prefetch(data + d[i].addr);
}

/* What is the same for all packets of a run, and how far it is. */
struct xs_run {
    struct xs_mem mem; /* a copy: no store can change it, it stays in registers */
    uint64_t own, off, room;
    alignas(16) struct xs_pkt line; /* the descriptor but for the lengths */
    xs_quarter a, b, c, e;
    uint64_t front, back; /* of the header: two bytes are in both, so that at first none is like this */
    const struct xdp_desc *d;
    uint32_t *next;
    uint64_t bytes;
};

/* Takes descriptors up to `stop`, or to one that is of another kind: whether that is all. `ask`: there are XS_ASK_AHEAD more
 * behind them. */
static inline __attribute__((always_inline)) bool xs_run_to(struct xs_run *r, const struct xdp_desc *stop,
                                                            bool ask) {
    for (; r->d != stop; r->d++, r->next++) {
        if (ask) xs_ask_for_headers(&r->mem, r->d + XS_ASK_AHEAD, 1);
        uint64_t addr = r->d->addr,
                 len = r->d->len | (uint64_t)r->d->options << 32; /* with options: longer than any */
        uint64_t frame = xs_frame_at(&r->mem, addr, r->off);
        if (unlikely(frame >= r->mem.nframes || len - XS_ETH_BYTES > r->room - XS_ETH_BYTES)) return false;
        xs_frame_open(&r->mem, (uint32_t)frame);
        xs_frame_close(&r->mem, (uint32_t)frame, (uint32_t)(r->off + len));
        const uint8_t *eth = r->mem.data + addr;
        if (unlikely(xs_load64(eth) != r->front || xs_load64(eth + 6) != r->back)) {
            uint16_t proto = xs_eth_type(eth);
            if (proto == XS_ETHERTYPE_VLAN || proto == XS_ETHERTYPE_QINQ) return false;
            r->line.l3_proto = proto;
            r->line.pkt_type = xs_mac_type(eth, r->own);
            r->b = ((const xs_quarter *)&r->line)[1];
            r->front = xs_load64(eth);
            r->back = xs_load64(eth + 6);
        }
        struct xs_pkt *p = &r->mem.pkt[frame];
        xs_quarter *quarter = (xs_quarter *)p;
        quarter[0] = r->a;
        quarter[1] = r->b;
        quarter[2] = r->c;
        quarter[3] = r->e;
        p->pkt_len = (uint32_t)len;
        p->len = (uint16_t)len;
        *r->next = (uint32_t)frame;
        r->bytes += len;
    }
    return true;
}

/* Takes descriptors from `d` on, at most `most`, at least one, which lie in a row. Of a poll the first XS_ASK_AHEAD headers were
 * asked for. Returns how many it took, and adds their bytes to `bytes`. `fresh` is the descriptor of any packet of the queue before
 * anything is known of it. */
static __attribute__((noinline, unused)) uint32_t xs_napi_run(const struct xs_pkt *fresh, uint64_t own,
                                                              const struct xs_mem *mem,
                                                              const struct xdp_desc *d, uint32_t most,
                                                              uint32_t *frames, uint64_t *bytes) {
    const uint64_t chunk = 1u << mem->frame_shift, off = d->addr & (chunk - 1);
    if (chunk - off < XS_ETH_BYTES) return 0;
    struct xs_run r = {.mem = *mem,
                       .own = own,
                       .off = off,
                       .room = chunk - off,
                       .line = *fresh,
                       .back = ~0ull,
                       .d = d,
                       .next = frames};
    r.line.data_off = (uint16_t)off;
    r.line.l3_off = (uint16_t)(off + XS_ETH_BYTES);
    const xs_quarter *quarters = (const xs_quarter *)&r.line;
    r.a = quarters[0], r.b = quarters[1], r.c = quarters[2], r.e = quarters[3];
    if (xs_run_to(&r, d + (most > XS_ASK_AHEAD ? most - XS_ASK_AHEAD : 0), true))
        xs_run_to(&r, d + most, false);
    *bytes += r.bytes;
    return (uint32_t)(r.next - frames);
}

#endif
