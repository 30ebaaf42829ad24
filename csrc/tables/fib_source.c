/* Choosing an IPv6 source address: RFC 6724, section 5, as ipv6_dev_get_saddr() and ipv6_get_saddr_eval() do it
 * (net/ipv6/addrconf.c). IPv4 needs nothing here: its source depends on the hop alone and was worked out by control. */
#include "tables/fib.h"

#include <errno.h>

#define SCOPE_LINK 2u
#define SCOPE_SITE 5u
#define SCOPE_GLOBAL 14u

/* ipv6_addr_src_scope(): 14 global, 5 site, 2 link (::1 as well: RFC 6724, 3.4); of a multicast address its own. */
static uint32_t scope_of(struct xs_addr a) {
    if (xs_ip6_is_multicast(a)) return (uint32_t)(a.hi >> 48) & 0xf;
    if (xs_ip6_is_link_local(a) || xs_ip6_is_loopback(a)) return SCOPE_LINK;
    if (a.hi >> 54 == 0xfec0 >> 6) return SCOPE_SITE;
    return SCOPE_GLOBAL;
}

/* The policy table, ip6addrlbl_init_table[] (RFC 6724, 2.1 and 10.3), longest prefix first. */
static const struct {
    struct xs_addr prefix;
    uint8_t length, label;
} policy[] = {
    {{0, 1}, 128, 0},                  /* ::1 */
    {{0, 0}, 96, 3},                   /* ::/96 */
    {{0, XS_MAPPED}, 96, 4},           /* ::ffff:0:0/96 */
    {{0x2001000000000000, 0}, 32, 6},  /* Teredo */
    {{0x2001001000000000, 0}, 28, 7},  /* ORCHID */
    {{0x2002000000000000, 0}, 16, 2},  /* 6to4 */
    {{0x3ffe000000000000, 0}, 16, 12}, /* 6bone */
    {{0xfec0000000000000, 0}, 10, 11}, /* site-local */
    {{0xfc00000000000000, 0}, 7, 5},   /* unique local */
};

static uint32_t label_of(struct xs_addr a) {
    for (uint32_t i = 0; i < sizeof policy / sizeof policy[0]; i++)
        if (xs_addr_match(a, policy[i].prefix, xs_addr_mask(policy[i].length))) return policy[i].label;
    return 1;
}

/* ipv6_saddr_preferred(): ::1, IPv4-compatible and IPv4-mapped addresses do not get old. */
static bool is_timeless(struct xs_addr a) { return !a.hi && (a.lo >> 32 == 0 || a.lo >> 32 == 0xffff); }

void xs_fib_classify(struct xs_fib_source *s) {
    s->scope = (uint8_t)scope_of(s->address);
    s->label = (uint8_t)label_of(s->address);
}

static bool is_orchid(struct xs_addr a) { return a.hi >> 36 == 0x2001001; }

struct destination {
    struct xs_addr address;
    uint32_t ifindex, scope, label;
};

/* The rules, in order; the larger value wins. What does not depend on the destination alone is in the source's flags. */
enum rule {
    SAME,
    SCOPE,
    PREFERRED,
    HOME,
    DEVICE,
    LABEL,
    TEMPORARY,
    ORCHID,
    LONGEST_PREFIX,
    NOT_OPTIMISTIC,
    RULES
};

static int evaluate(const struct xs_fib_source *s, const struct destination *d, enum rule rule) {
    switch (rule) {
    case SAME: return xs_addr_equal(s->address, d->address);
    case SCOPE: { /* the smallest that reaches; else the largest */
        int scope = s->scope;
        return scope >= (int)d->scope ? -scope : scope - 128;
    }
    case PREFERRED: return is_timeless(s->address) || !(s->flags & XS_SOURCE_AVOID);
    case HOME: return !!(s->flags & XS_SOURCE_HOME);
    case DEVICE: return !d->ifindex || d->ifindex == s->ifindex;
    case LABEL: return s->label == d->label;
    case TEMPORARY: return !(s->flags & XS_SOURCE_TEMPORARY) ^ !!(s->flags & XS_SOURCE_PREFER_TEMPORARY);
    case ORCHID: return is_orchid(s->address) == is_orchid(d->address);
    case LONGEST_PREFIX: {
        uint32_t common = xs_addr_common(s->address, d->address);
        return (int)(common < s->length ? common : s->length);
    }
    default: return !(s->flags & XS_SOURCE_OPTIMISTIC);
    }
}

static bool better(const struct xs_fib_source *a, const struct xs_fib_source *b,
                   const struct destination *d) {
    for (enum rule rule = 0; rule < RULES; rule++) {
        int x = evaluate(a, d, rule), y = evaluate(b, d, rule);
        if (x != y) return x > y;
    }
    return false;
}

bool xs_fib_source6(const struct xs_fib *fib, struct xs_addr dst, uint32_t ifindex, bool own_addresses,
                    struct xs_addr *out) {
    struct destination d = {dst, ifindex, scope_of(dst), label_of(dst)};
    /* RFC 6724, 4: for these only addresses of the outgoing device are candidates */
    bool only = ifindex && (own_addresses || xs_ip6_is_multicast(dst) || d.scope <= SCOPE_LINK);
    const struct xs_fib_source *best = NULL;
    for (uint32_t i = 0; i < fib->nsources; i++) {
        const struct xs_fib_source *s = &fib->source[i];
        if (only && s->ifindex != ifindex) continue;
        if (!best || better(s, best, &d)) best = s;
    }
    if (!best) return false;
    *out = best->address;
    return true;
}

int xs_fib_ask_source(const struct xs_fib *fib, const struct xs_addr *dst, uint32_t ifindex,
                      uint32_t own_addresses, struct xs_addr *out) {
    return xs_fib_source6(fib, *dst, ifindex, own_addresses, out) ? 0 : -EADDRNOTAVAIL;
}
