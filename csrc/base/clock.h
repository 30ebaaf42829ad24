/* Clocks of the kernel, in ns. */
#ifndef XS_BASE_CLOCK_H
#define XS_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t xs_timespec_ns(struct timespec t) {
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static inline uint64_t xs_clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return xs_timespec_ns(t);
}

/* Since some moment in the past; never set. What the XDP program reads, as of the last tick (bpf_ktime_get_coarse_ns()). */
static inline uint64_t xs_monotonic_ns(void) { return xs_clock_ns(CLOCK_MONOTONIC); }

#endif
