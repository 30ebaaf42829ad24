/* What CHECKSUM_PARTIAL looks like on a veth or virtio: the transport checksum's field holds the folded sum of the
 * pseudo-header, for hardware to go on from (udp4_hwcsum, udp6_hwcsum_outgoing, __tcp_v4_send_check). See fake.h. */
#include <errno.h>

#include "base/csum.h"
#include "fake/fake.h"
#include "wire/wire.h"

#define TCP 6u
#define UDP 17u

/* Where things are in a frame that has a transport checksum. */
struct where {
    uint64_t addresses; /* sum over both */
    uint32_t l4;        /* offset of the transport header */
    uint32_t l4_bytes;  /* header and payload, as the IP header says */
    uint32_t field;     /* offset of the checksum in the transport header */
    uint8_t proto;
};

/* Offset of the transport header behind the IPv6 header at `at`, over extension headers; 0 when there is none. */
static uint32_t behind_ipv6(const uint8_t *frame, uint32_t length, uint32_t at, uint8_t *proto) {
    uint32_t off = at + 40;
    *proto = frame[at + 6];
    while (*proto == 0 || *proto == 43 || *proto == 60) { /* hop-by-hop, routing, destination options */
        if (off + 8 > length) return 0;
        *proto = frame[off];
        off += 8u + frame[off + 1] * 8u;
    }
    return off;
}

static int find(const uint8_t *frame, uint32_t length, struct where *out) {
    struct where w = {0};
    uint32_t l3 = 14;
    if (length < l3 + 20) return -EINVAL;
    uint16_t ethertype = xs_get16(frame + 12);
    if (ethertype == 0x8100 || ethertype == 0x88a8) {
        ethertype = xs_get16(frame + 16);
        l3 += 4;
    }
    uint32_t total;
    if (ethertype == 0x0800 && length >= l3 + 20) {
        if (xs_get16(frame + l3 + 6) & 0x3fff) return -EINVAL; /* a fragment's is never partial */
        w.proto = frame[l3 + 9];
        w.l4 = l3 + (frame[l3] & 15u) * 4u;
        w.addresses = xs_csum_add(0, frame + l3 + 12, 8);
        total = xs_get16(frame + l3 + 2);
    } else if (ethertype == 0x86dd && length >= l3 + 40) {
        w.l4 = behind_ipv6(frame, length, l3, &w.proto);
        w.addresses = xs_csum_add(0, frame + l3 + 8, 32);
        total = 40u + xs_get16(frame + l3 + 4);
    } else {
        return -EINVAL;
    }
    w.field = w.proto == UDP ? 6 : 16;
    if ((w.proto != UDP && w.proto != TCP) || w.l4 < l3 + 20 || w.l4 + w.field + 2 > length ||
        total < w.l4 - l3 + w.field + 2)
        return -EINVAL;
    w.l4_bytes = total - (w.l4 - l3);
    *out = w;
    return 0;
}

int xs_fake_checksum_field(const uint8_t *frame, uint32_t length, uint32_t *out) {
    struct where w;
    int rc = find(frame, length, &w);
    if (rc) return rc;
    out[0] = w.l4;
    out[1] = w.field;
    return 0;
}

void xs_fake_make_partial(uint8_t *frame, uint32_t length) {
    struct where w;
    if (find(frame, length, &w)) return;
    /* as loaded: what is in host order is swapped first, and the sum goes back as it is */
    uint16_t sum =
        xs_csum_fold(w.addresses + __builtin_bswap16((uint16_t)w.l4_bytes) + __builtin_bswap16(w.proto));
    memcpy(frame + w.l4 + w.field, &sum, sizeof sum);
}
