/* A frame's headers as text: walks Ethernet, VLAN tags, IP and UDP by each header's own print. */
#include "wire/print.h"

#include <stdarg.h>

#include "wire/eth.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/udp.h"

struct text {
    char *out;
    uint32_t cap, used;
};

/* Where the next header's text goes; beyond the end it is only counted. */
static char *at(const struct text *t) { return t->used < t->cap ? t->out + t->used : NULL; }
static uint32_t left(const struct text *t) { return t->used < t->cap ? t->cap - t->used : 0; }

static void say(struct text *t, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(at(t), left(t), format, args);
    va_end(args);
    t->used += (uint32_t)n;
}

static void transport(struct text *t, uint8_t protocol, const uint8_t *p, uint32_t len) {
    if (protocol != IPPROTO_UDP || !xs_udp_fits(len)) return;
    say(t, " | ");
    t->used += (uint32_t)xs_udp_print(at(t), left(t), p);
}

static void ipv4(struct text *t, const uint8_t *p, uint32_t len) {
    t->used += (uint32_t)xs_ipv4_print(at(t), left(t), p);
    uint32_t header = xs_ipv4_header_bytes(p);
    if (header < XS_IPV4_BYTES || header > len) return;
    if (!(xs_ipv4_frag(p) & XS_IPV4_OFFSET)) transport(t, xs_ipv4_protocol(p), p + header, len - header);
}

static void ipv6(struct text *t, const uint8_t *p, uint32_t len) {
    t->used += (uint32_t)xs_ipv6_print(at(t), left(t), p);
    transport(t, xs_ipv6_next(p), p + XS_IPV6_BYTES, len - XS_IPV6_BYTES);
}

int xs_wire_print(const uint8_t *frame, uint32_t len, char *out, uint32_t cap) {
    struct text t = {.out = out, .cap = cap};
    if (cap) out[0] = '\0';
    if (!xs_eth_fits(len)) {
        say(&t, "%u bytes: no Ethernet header", len);
        return (int)t.used;
    }
    t.used += (uint32_t)xs_eth_print(at(&t), left(&t), frame);
    uint32_t off = XS_ETH_BYTES;
    uint16_t type = xs_eth_type(frame);
    while ((type == XS_ETHERTYPE_VLAN || type == XS_ETHERTYPE_QINQ) && len >= off + XS_VLAN_BYTES) {
        say(&t, " vlan %u", xs_get16(frame + off) & 0xfffu);
        type = xs_get16(frame + off + 2);
        off += XS_VLAN_BYTES;
    }
    const uint8_t *l3 = frame + off;
    len -= off;
    bool is4 = type == XS_ETHERTYPE_IPV4 && xs_ipv4_fits(len) && xs_ipv4_version(l3) == 4;
    bool is6 = type == XS_ETHERTYPE_IPV6 && xs_ipv6_fits(len) && xs_ipv6_version(l3) == 6;
    if (is4 || is6) {
        say(&t, " | ");
        (is4 ? ipv4 : ipv6)(&t, l3, len);
    }
    return (int)t.used;
}
