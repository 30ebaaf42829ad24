/* Sums over packets of several frames. Sums of bytes: base/csum.h. */
#ifndef XS_BASE_CSUM_FRAMES_H
#define XS_BASE_CSUM_FRAMES_H

#include "base/csum.h"
#include "include/xdpstack_stage.h"

/* Adds `bytes` bytes of a packet to `sum`, from offset `off` of its frame `frame` on, and through the frames behind it. */
uint64_t xs_csum_add_frames(uint64_t sum, const struct xs_mem *mem, uint32_t frame, uint32_t off,
                            uint32_t bytes);

#endif
