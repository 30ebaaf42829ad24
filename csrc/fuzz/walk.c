/* Fuzzes the receive walk: frames arrive on memory devices and take the whole path, whatever is in them.
 *
 * An input is a list of records: a byte of flags, two bytes of length (big-endian), so many bytes of frame.
 *
 *      0x01  the IPv4 header checksum is made right first     0x08  it arrives on b0 instead of a0
 *      0x02  the UDP or TCP checksum is made right first      0x10  a poll before it
 *      0x04  that checksum is partial                         0x20  `length` counts 16 bytes: the frame is repeated up to it
 *
 * So the mutator gets past checksums, and the corpus (csrc/fuzz/corpus/walk) past everything else. The address sanitizer sees
 * every byte read behind the end of a frame (csrc/base/debug.h).
 */
#include "base/csum.h"
#include "fuzz/host.h"
#include "wire/wire.h"

#define MAKE_IP_CSUM 0x01u
#define MAKE_CSUM 0x02u
#define MAKE_PARTIAL 0x04u
#define OTHER_DEVICE 0x08u
#define POLL_FIRST 0x10u
#define LARGE 0x20u
#define LARGEST 9216u

static void make_ip_csum(uint8_t *frame, uint32_t length) {
    uint32_t l3 = length > 18 && xs_get16(frame + 12) == 0x8100 ? 18 : 14;
    if (length < l3 + 20) return;
    uint32_t header = (frame[l3] & 15u) * 4u;
    if (header < 20 || l3 + header > length) return;
    memset(frame + l3 + 10, 0, 2);
    uint16_t sum = xs_csum_finish(xs_csum_add(0, frame + l3, header));
    memcpy(frame + l3 + 10, &sum, 2);
}

static void make_csum(uint8_t *frame, uint32_t length) {
    uint32_t where[2];
    if (xs_fake_checksum_field(frame, length, where)) return;
    xs_fake_make_partial(frame, length);
    uint16_t sum = xs_csum_finish(xs_csum_add(0, frame + where[0], length - where[0]));
    if (!sum) sum = 0xffff;
    memcpy(frame + where[0] + where[1], &sum, 2);
}

static void arrive(struct host *h, uint8_t flags, const uint8_t *bytes, uint32_t n, uint32_t length) {
    static uint8_t frame[LARGEST];
    memset(frame, 0, length);
    for (uint32_t at = 0; n && at < length; at += n)
        memcpy(frame + at, bytes, n < length - at ? n : length - at);
    if (flags & MAKE_IP_CSUM) make_ip_csum(frame, length);
    if (flags & MAKE_CSUM) make_csum(frame, length);
    if (flags & POLL_FIRST) host_step(h);
    xs_fake_inject(h->device[flags & OTHER_DEVICE ? 1 : 0], frame, length,
                   flags & MAKE_PARTIAL ? XS_FAKE_PARTIAL : 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct host host;
    if (!host.stack) host_init(&host);
    while (size > 3) {
        uint8_t flags = data[0];
        uint32_t length = xs_get16(data + 1), n = length;
        data += 3;
        size -= 3;
        if (n > size) n = (uint32_t)size;
        if (flags & LARGE)
            length = length * 16u < LARGEST ? length * 16u : LARGEST;
        else
            length = n < LARGEST ? n : LARGEST;
        arrive(&host, flags, data, n, length);
        data += n;
        size -= n;
    }
    host_rest(&host);
    return 0;
}
