/* The flow of a packet, as a number. See rps.h. Mirrors __skb_get_hash, __skb_flow_dissect, __flow_hash_from_keys. */
#include "stages/rps.h"

#include <string.h>

#include "base/siphash.h"
#include "wire/eth.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

enum { TCP = 6, UDP = 17, DCCP = 33, SCTP = 132, UDPLITE = 136 };

/* Protocols whose header begins with the two ports. */
static bool has_ports(uint8_t protocol) {
    return protocol == UDP || protocol == TCP || protocol == SCTP || protocol == UDPLITE || protocol == DCCP;
}

/* Both directions of a flow have the same: __flow_hash_consistentify. Which of the two comes first does not matter, so addresses are
 * compared as they were loaded. */
static inline uint32_t turned(uint32_t ports) { return ports << 16 | ports >> 16; }

static uint64_t hash4(const uint64_t key[2], const uint8_t *src, const uint8_t *dst, uint32_t ports,
                      uint32_t rest) {
    uint32_t a, b;
    memcpy(&a, src, 4);
    memcpy(&b, dst, 4);
    bool turn = b < a || (a == b && (ports & 0xffff) < ports >> 16);
    const uint64_t word[2] = {turn ? (uint64_t)b << 32 | a : (uint64_t)a << 32 | b,
                              (uint64_t)(turn ? turned(ports) : ports) << 32 | rest};
    return xs_siphash(key, word, 2);
}

static uint64_t hash6(const uint64_t key[2], const uint8_t *src, const uint8_t *dst, uint32_t ports,
                      uint32_t rest) {
    uint64_t a[2], b[2];
    memcpy(a, src, 16);
    memcpy(b, dst, 16);
    bool same = a[0] == b[0] && a[1] == b[1];
    bool turn = same ? (ports & 0xffff) < ports >> 16 : b[0] < a[0] || (b[0] == a[0] && b[1] < a[1]);
    const uint64_t *first = turn ? b : a, *second = turn ? a : b;
    const uint64_t word[5] = {first[0], first[1], second[0], second[1],
                              (uint64_t)(turn ? turned(ports) : ports) << 32 | rest};
    return xs_siphash(key, word, 5);
}

/* Source and destination port, if they are in the first frame; 0 where there are none. */
static uint32_t ports_at(const struct xs_pkt *p, const uint8_t *frame, uint32_t at, uint8_t protocol) {
    if (!has_ports(protocol) || at + 4 > (uint32_t)p->data_off + p->len) return 0;
    return xs_get32(frame + at);
}

uint32_t xs_flow_hash(const uint64_t key[2], const struct xs_pkt *p, const uint8_t *frame) {
    uint32_t end = (uint32_t)p->data_off + p->len, off = p->l3_off;
    uint32_t have = end > off ? end - off : 0;
    const uint8_t *ip = frame + off;
    uint64_t hash;
    if (p->l3_proto == XS_ETHERTYPE_IPV4 && have >= XS_IPV4_BYTES && ip[0] >> 4 == 4 && (ip[0] & 15) >= 5) {
        uint8_t protocol = ip[XS_IPV4_PROTOCOL];
        bool whole =
            !(xs_get16(ip + XS_IPV4_FRAG) & (XS_IPV4_MF | XS_IPV4_OFFSET)); /* fragments go together */
        uint32_t ports = whole ? ports_at(p, frame, off + (ip[0] & 15) * 4u, protocol) : 0;
        hash = hash4(key, ip + XS_IPV4_SRC, ip + XS_IPV4_DST, ports, protocol);
    } else if (p->l3_proto == XS_ETHERTYPE_IPV6 && have >= XS_IPV6_BYTES && xs_ipv6_version(ip) == 6) {
        uint32_t label = xs_ipv6_flow_label(ip); /* FLOW_DISSECTOR_F_STOP_AT_FLOW_LABEL */
        uint8_t next = xs_ipv6_next(ip);
        uint32_t ports = label ? 0 : ports_at(p, frame, off + XS_IPV6_BYTES, next);
        hash = hash6(key, xs_ipv6_src(ip), xs_ipv6_dst(ip), ports, label ? label << 8 : next);
    } else {
        return 0;
    }
    return (uint32_t)hash ? (uint32_t)hash : 1;
}
