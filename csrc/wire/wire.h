/* Reading and writing headers. Big-endian values live only here: what comes out of these functions is in host order.
 * Callers check bounds first; the *_BYTES constants say how many bytes each accessor group needs. */
#ifndef XS_WIRE_WIRE_H
#define XS_WIRE_WIRE_H

#include <stdint.h>
#include <string.h>

static inline uint16_t xs_get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static inline uint32_t xs_get32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return __builtin_bswap32(v);
}
static inline void xs_put16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}
static inline void xs_put32(uint8_t *p, uint32_t v) {
    v = __builtin_bswap32(v);
    memcpy(p, &v, 4);
}

#endif
