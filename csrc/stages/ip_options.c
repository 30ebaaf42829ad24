/* IPv4 options of received packets. Mirrors net/ipv4/ip_options.c: ip_options_compile, ip_options_rcv_srr.
 *
 * Options are judged, not carried out: no address or time is recorded in the packet. */
#include "stages/ip.h"

#include "wire/ipv4.h"

/* An option has at least these bytes before its first slot, counted from 1: type, length, pointer (and flags). */
#define FIRST_ROUTE_SLOT 4u
#define FIRST_TIME_SLOT 5u
#define OVERFLOW_FULL 15u

/* Which options have been seen; each of these may be there once. */
struct seen {
    const uint8_t *source_route, *record_route, *timestamp;
};

static bool source_route_ok(const uint8_t *o, uint32_t len, struct seen *seen) {
    if (len < 3 || o[2] < FIRST_ROUTE_SLOT || seen->source_route) return false;
    seen->source_route = o;
    return true;
}

static bool record_route_ok(const uint8_t *o, uint32_t len, struct seen *seen) {
    if (seen->record_route || len < 3 || o[2] < FIRST_ROUTE_SLOT) return false;
    if (o[2] <= len && o[2] + 3u > len) return false; /* there is room, but not for an address */
    seen->record_route = o;
    return true;
}

static bool timestamp_ok(const uint8_t *o, uint32_t len, struct seen *seen) {
    if (seen->timestamp || len < 4 || o[2] < FIRST_TIME_SLOT) return false;
    uint32_t kind = o[3] & 0xfu;
    if (o[2] <= len) {
        bool with_address = kind == XS_IPV4_TS_AND_ADDRESS || kind == XS_IPV4_TS_PRESPECIFIED;
        if (o[2] + (with_address ? 7u : 3u) > len) return false;
    } else if (kind != XS_IPV4_TS_PRESPECIFIED && o[3] >> 4 == OVERFLOW_FULL) {
        return false;
    }
    seen->timestamp = o;
    return true;
}

static bool option_ok(const uint8_t *o, uint32_t len, struct seen *seen) {
    switch (o[0]) {
    case XS_IPV4_OPT_LOOSE_ROUTE:
    case XS_IPV4_OPT_STRICT_ROUTE: return source_route_ok(o, len, seen);
    case XS_IPV4_OPT_RECORD_ROUTE: return record_route_ok(o, len, seen);
    case XS_IPV4_OPT_TIMESTAMP: return timestamp_ok(o, len, seen);
    case XS_IPV4_OPT_ROUTER_ALERT: return len >= 4;
    case XS_IPV4_OPT_CIPSO: return false; /* valid only for a domain of interpretation that is configured */
    default: return true;
    }
}

enum xs_reason xs_ip_options(const uint8_t *l3, uint32_t header_bytes, uint8_t pkt_type,
                             bool accept_source_route) {
    struct seen seen = {0};
    for (const uint8_t *o = l3 + XS_IPV4_BYTES, *end = l3 + header_bytes; o < end;) {
        if (o[0] == XS_IPV4_OPT_END) break;
        if (o[0] == XS_IPV4_OPT_NOOP) {
            o++;
            continue;
        }
        uint32_t left = (uint32_t)(end - o), len = left > 1 ? o[1] : 0;
        if (len < 2 || len > left || !option_ok(o, len, &seen)) return XS_REASON_IP_INHDR;
        o += len;
    }
    if (!seen.source_route) return XS_IP_PASS;
    if (!accept_source_route || pkt_type != XS_PACKET_HOST) return XS_REASON_IP_SOURCE_ROUTE;
    /* At its end (the pointer is behind the last slot) the packet is where it was to go. */
    return seen.source_route[2] > seen.source_route[1] ? XS_IP_PASS : XS_REASON_IP_SOURCE_ROUTE;
}

bool xs_ip_source_route(const uint8_t *l3, uint32_t header_bytes) {
    const uint8_t *o = l3 + XS_IPV4_BYTES, *end = l3 + header_bytes;
    while (end - o > 1 && o[0] != XS_IPV4_OPT_END) {
        if (o[0] == XS_IPV4_OPT_LOOSE_ROUTE || o[0] == XS_IPV4_OPT_STRICT_ROUTE) return true;
        uint32_t len = o[0] == XS_IPV4_OPT_NOOP ? 1 : o[1];
        if (!len) break; /* a hook has written it */
        o += len;
    }
    return false;
}
