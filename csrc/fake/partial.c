/* What CHECKSUM_PARTIAL looks like on the wire of a veth or virtio: the transport checksum's field holds the folded sum of the
 * pseudo-header, for hardware to go on from (skb_checksum_setup, udp4_hwcsum, __tcp_v4_send_check). See fake.h. */
#include "base/csum.h"
#include "fake/fake.h"
#include "wire/wire.h"

#define UDP 17u
#define TCP 6u

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

void xs_fake_make_partial(uint8_t *frame, uint32_t length) {
    uint32_t l3 = 14, l4;
    if (length < l3 + 20) return;
    uint16_t ethertype = xs_get16(frame + 12);
    if (ethertype == 0x8100 || ethertype == 0x88a8) {
        ethertype = xs_get16(frame + 16);
        l3 += 4;
    }
    uint8_t proto;
    uint64_t sum = 0;
    uint32_t l4_bytes;
    if (ethertype == 0x0800 && length >= l3 + 20) {
        uint32_t header = (frame[l3] & 15u) * 4u;
        uint32_t total = xs_get16(frame + l3 + 2);
        if (total < header || (xs_get16(frame + l3 + 6) & 0x3fff)) return; /* a fragment's is never partial */
        proto = frame[l3 + 9];
        l4 = l3 + header;
        l4_bytes = total - header;
        sum = xs_csum_add(sum, frame + l3 + 12, 8);
    } else if (ethertype == 0x86dd && length >= l3 + 40) {
        l4 = behind_ipv6(frame, length, l3, &proto);
        uint32_t total = 40u + xs_get16(frame + l3 + 4);
        if (!l4 || total < l4 - l3) return;
        l4_bytes = total - (l4 - l3);
        sum = xs_csum_add(sum, frame + l3 + 8, 32);
    } else {
        return;
    }
    uint32_t field = proto == UDP ? l4 + 6 : l4 + 16;
    if ((proto != UDP && proto != TCP) || field + 2 > length) return;
    sum += __builtin_bswap16((uint16_t)l4_bytes) + __builtin_bswap16(proto);
    uint16_t folded = xs_csum_fold(sum); /* as loaded: goes back as it is */
    memcpy(frame + field, &folded, sizeof folded);
}
