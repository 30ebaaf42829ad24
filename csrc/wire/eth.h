/* Ethernet II and one IEEE 802.1Q tag.
 *
 *       0                   6                  12
 *      +-------------------+-------------------+------+
 *      | destination       | source            | type |        tagged:  ... | 8100 or 88a8 | TCI | type |
 *      +-------------------+-------------------+------+
 */
#ifndef XS_WIRE_ETH_H
#define XS_WIRE_ETH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "wire/wire.h"

/* ---- layout ---- */

#define XS_ETH_BYTES 14u
#define XS_ETH_ADDR_BYTES 6u
#define XS_VLAN_BYTES 4u
#define XS_VLAN_VID_MASK 0x0fffu /* of a TCI */
#define XS_ETH_DST 0u
#define XS_ETH_SRC 6u
#define XS_ETH_TYPE 12u

#define XS_ETHERTYPE_MIN 0x0600u /* below, the field is the length of an 802.3 frame */
#define XS_ETHERTYPE_IPV4 0x0800u
#define XS_ETHERTYPE_ARP 0x0806u
#define XS_ETHERTYPE_VLAN 0x8100u
#define XS_ETHERTYPE_IPV6 0x86ddu
#define XS_ETHERTYPE_QINQ 0x88a8u

/* ---- check ---- */

static inline bool xs_eth_fits(size_t bytes) { return bytes >= XS_ETH_BYTES; }

/* ---- read ---- */

static inline uint16_t xs_eth_type(const uint8_t *p) { return xs_get16(p + XS_ETH_TYPE); }
static inline bool xs_eth_is_group(const uint8_t *p) { return p[XS_ETH_DST] & 1; }

/* ---- write ---- */

static inline void xs_eth_write(uint8_t *p, const uint8_t *dst, const uint8_t *src, uint16_t type) {
    memcpy(p + XS_ETH_DST, dst, XS_ETH_ADDR_BYTES);
    memcpy(p + XS_ETH_SRC, src, XS_ETH_ADDR_BYTES);
    xs_put16(p + XS_ETH_TYPE, type);
}

/* ---- print: as snprintf does, into `out` of `cap` bytes ---- */

static inline int xs_eth_print(char *out, size_t cap, const uint8_t *p) {
    const uint8_t *d = p + XS_ETH_DST, *s = p + XS_ETH_SRC;
    return snprintf(out, cap, "%02x:%02x:%02x:%02x:%02x:%02x > %02x:%02x:%02x:%02x:%02x:%02x %04x", s[0],
                    s[1], s[2], s[3], s[4], s[5], d[0], d[1], d[2], d[3], d[4], d[5], xs_eth_type(p));
}

#endif
