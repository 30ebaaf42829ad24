/* Checks of who owns a frame, in builds that look for defects: XS_DEBUG (assertions), and the address sanitizer (the bytes of a
 * frame that is nobody's may not be touched, nor those behind what was received). They cost nothing elsewhere.
 *
 *      free ------ get ------> open: headroom and all, to build a packet in
 *      with the kernel, taken: open up to the last byte received; what reads on reads another packet's bytes
 *      put ------------------> closed
 *
 * A stage that makes a received packet longer at its end says xs_frame_open() first.
 */
#ifndef XS_BASE_DEBUG_H
#define XS_BASE_DEBUG_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "include/xdpstack_stage.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define XS_POISON 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define XS_POISON 1
#endif

static inline void xs_assert(bool holds, const char *what) {
#ifdef XS_DEBUG
    if (!holds) {
        fprintf(stderr, "xdpstack: defect: %s\n", what);
        abort();
    }
#endif
    (void)holds;
    (void)what;
}

#ifdef XS_POISON

void __asan_poison_memory_region(void const volatile *at, size_t bytes);
void __asan_unpoison_memory_region(void const volatile *at, size_t bytes);

static inline void xs_frame_open(const struct xs_mem *m, uint32_t frame) {
    __asan_unpoison_memory_region(xs_frame_data(m, frame), (size_t)1 << m->frame_shift);
}
/* Closes all of the frame behind its first `bytes` bytes. */
static inline void xs_frame_close(const struct xs_mem *m, uint32_t frame, uint32_t bytes) {
    __asan_poison_memory_region(xs_frame_data(m, frame) + bytes, ((size_t)1 << m->frame_shift) - bytes);
}

#else

static inline void xs_frame_open(const struct xs_mem *m, uint32_t frame) { (void)m, (void)frame; }
static inline void xs_frame_close(const struct xs_mem *m, uint32_t frame, uint32_t bytes) {
    (void)m, (void)frame, (void)bytes;
}

#endif
#endif
