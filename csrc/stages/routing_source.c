/* May a packet with this source have come in here? IPv4's fib_validate_source(), net/ipv4/fib_frontend.c. IPv6 has none. */
#include "stages/routing.h"

/* The route back to the source leaves through the device it came in by (fib_info_nh_uses_dev). */
static bool leads_back(const struct xs_fib *fib, const struct xs_fib_route *r,
                       const struct xs_device_config *device) {
    for (uint32_t i = 0; i < r->nhops; i++)
        if (fib->hop[r->hop + i].ifindex == device->ifindex) return true;
    return r->type == XS_ROUTE_LOCAL && device->flags & XS_DEV_LOOPBACK;
}

/* __fib_validate_source(): asks for the route back. */
static enum xs_reason full_check(const struct xs_fib *fib, const struct xs_device_config *device,
                                 const struct xs_fib_key *key, struct xs_addr dst, uint32_t oif) {
    struct xs_fib_key back = {
        .dst = key->src,
        .src = dst,
        .iif = oif ? oif : XS_FIB_LOOPBACK,
        .mark = device->flags & XS_DEV_SRC_VALID_MARK ? key->mark : 0,
        .tos = key->tos,
        .proto = key->proto,
        .sport = key->dport,
        .dport = key->sport,
    };
    struct xs_fib_result found;
    if (xs_fib_lookup(fib, &back, &found) != XS_FIB_FOUND)
        return device->rp_filter ? XS_REASON_IP_RPFILTER : XS_ROUTING_PASS;
    if (found.route->type == XS_ROUTE_LOCAL) {
        if (!(device->flags & XS_DEV_ACCEPT_LOCAL)) return XS_REASON_IP_LOCAL_SOURCE;
    } else if (found.route->type != XS_ROUTE_UNICAST) {
        return XS_REASON_IP_INVALID_SOURCE;
    }
    if (leads_back(fib, found.route, device)) return XS_ROUTING_PASS;
    if (device->flags & XS_DEV_NO_IPV4) return device->rp_filter ? XS_REASON_IP_RPFILTER : XS_ROUTING_PASS;
    return device->rp_filter == 1 ? XS_REASON_IP_RPFILTER : XS_ROUTING_PASS; /* 2: any route back will do */
}

enum xs_reason xs_routing_validate(const struct xs_fib *fib, const struct xs_device_config *device,
                                   const struct xs_fib_key *key, struct xs_addr dst, uint32_t oif) {
    /* the short way, without reverse path filter; a redirect (out again where it came in) needs the route back */
    bool in_full = device->rp_filter || fib->family[0].realms;
    if (!in_full && (oif != device->ifindex || !(device->flags & XS_DEV_SEND_REDIRECTS))) {
        if (device->flags & XS_DEV_ACCEPT_LOCAL) return XS_ROUTING_PASS;
        if (!fib->family[0].custom_rules && !fib->family[0].custom_local)
            return xs_fib_local(fib, key->src) ? XS_REASON_IP_LOCAL_SOURCE : XS_ROUTING_PASS;
    }
    return full_check(fib, device, key, dst, oif);
}
