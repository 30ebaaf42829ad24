/* Sums over packets of several frames. See csum_frames.h. */
#include "base/csum_frames.h"

#include <stdbool.h>

/* A frame that begins at an odd byte of the packet adds its bytes the other way round (RFC 1071, 2 B). */
uint64_t xs_csum_add_frames(uint64_t sum, const struct xs_mem *mem, uint32_t frame, uint32_t off,
                            uint32_t bytes) {
    bool odd = false;
    while (frame != XS_NO_FRAME && bytes) {
        const struct xs_pkt *p = &mem->pkt[frame];
        uint32_t here = (uint32_t)p->data_off + p->len - off;
        if (here > bytes) here = bytes;
        uint16_t part = xs_csum_fold(xs_csum_add(0, xs_frame_data(mem, frame) + off, here));
        sum += odd ? (uint16_t)(part << 8 | part >> 8) : part;
        odd ^= here & 1;
        bytes -= here;
        frame = p->frag;
        if (frame != XS_NO_FRAME) off = mem->pkt[frame].data_off;
    }
    return sum;
}
