/* Looking up the FIB. See fib.h for the picture. Every function here runs per packet: no allocation, no stores but to `out`. */
#include "tables/fib.h"

#define IPTOS_RT_MASK \
    0x1cu /* the bits of a TOS that IPv4 routes and legacy rules compare (RT_TOS, INET_DSCP_MASK) */

/* ---- one routing table ---- */

static inline const struct xs_fib_slot *find(const struct xs_fib_table *t, struct xs_addr prefix,
                                             uint8_t length) {
    for (uint32_t at = xs_addr_hash(prefix, length);; at++) {
        const struct xs_fib_slot *s = &t->slot[at & t->mask];
        if (!s->nroutes) return NULL;
        if (s->length == length && xs_addr_equal(s->prefix, prefix)) return s;
    }
}

/* fib_props[].error of the types that end a lookup. */
static inline uint32_t refusal(uint8_t type) {
    switch (type) {
    case XS_ROUTE_BLACKHOLE: return XS_FIB_BLACKHOLE;
    case XS_ROUTE_UNREACHABLE: return XS_FIB_UNREACHABLE;
    case XS_ROUTE_PROHIBIT: return XS_FIB_PROHIBITED;
    case XS_ROUTE_THROW: return XS_FIB_NEXT;
    default: return XS_FIB_FOUND;
    }
}

/* ---- several hops ---- */

/* 31 bits over the fields that the family's policy names: fib_multipath_hash(), rt6_multipath_hash(). */
static uint32_t hash_of(const struct xs_fib *fib, const struct xs_fib_key *key) {
    if (key->flags & XS_FIB_HASHED) return key->hash;
    uint32_t fields = fib->family[key->flags & XS_FIB_IPV6].hash_fields;
    uint64_t h = 0;
#define MIX(value) h = (h ^ (value)) * 0x9e3779b97f4a7c15ull, h ^= h >> 29
    if (fields & XS_HASH_SRC) MIX(key->src.hi), MIX(key->src.lo);
    if (fields & XS_HASH_DST) MIX(key->dst.hi), MIX(key->dst.lo);
    if (fields & XS_HASH_PROTO) MIX(key->proto);
    if (fields & XS_HASH_FLOW_LABEL) MIX(key->flow_label);
    if (fields & XS_HASH_SPORT) MIX(key->sport);
    if (fields & XS_HASH_DPORT) MIX(key->dport);
#undef MIX
    return (uint32_t)(h >> 33);
}

/* nexthop_select_path_hthr(): in a next-hop group the hop that the hash falls to and that answers; else the first that
 * answers; else the first. */
static const struct xs_fib_hop *select_grouped(const struct xs_fib_hop *hop, uint32_t n, uint32_t hash) {
    const struct xs_fib_hop *first = NULL;
    for (uint32_t i = 0; i < n; i++) {
        if (hop[i].flags & XS_HOP_SILENT) continue;
        if (hash <= hop[i].bound) return &hop[i];
        if (!first) first = &hop[i];
    }
    return first ? first : hop;
}

/* fib_select_multipath(): the hop that the hash falls to; before it, one that has the sender's own source. */
static const struct xs_fib_hop *select_by_source(const struct xs_fib_hop *hop, uint32_t n, uint32_t src,
                                                 bool avoid_silent, uint32_t hash) {
    const struct xs_fib_hop *best = NULL;
    int best_score = -1;
    for (uint32_t i = 0; i < n; i++) {
        if (hop[i].bound < 0 || (avoid_silent && hop[i].flags & XS_HOP_SILENT)) continue;
        int s = (src && hop[i].own == src ? 2 : 0) + (hash <= hop[i].bound);
        if (s <= best_score) continue;
        best = &hop[i];
        best_score = s;
    }
    return best;
}

void xs_fib_select4(const struct xs_fib *fib, const struct xs_fib_key *key, struct xs_fib_result *result) {
    const struct xs_fib_route *r = result->route;
    bool sent_here = key->iif == XS_FIB_LOOPBACK;
    if (r->nhops < 2) {
        if (sent_here && r->detour != XS_HOP_NONE) result->hop = &fib->hop[r->detour];
        return;
    }
    const struct xs_fib_hop *hop = &fib->hop[r->hop], *chosen;
    uint32_t hash = hash_of(fib, key);
    if (r->grouped)
        chosen = select_grouped(hop, r->nhops, hash);
    else
        chosen = select_by_source(hop, r->nhops, sent_here ? xs_addr_to4(key->src) : 0,
                                  fib->family[0].avoid_silent, hash);
    if (chosen) result->hop = chosen;
}

/* ---- one routing table: IPv4 ---- */

static const struct xs_fib_hop *first_hop(const struct xs_fib *fib, const struct xs_fib_route *r,
                                          uint32_t oif) {
    const struct xs_fib_hop *hop = &fib->hop[r->hop];
    for (uint32_t i = 0; i < r->nhops; i++)
        if (!(hop[i].flags & XS_HOP_DOWN) && (!oif || hop[i].ifindex == oif)) return &hop[i];
    return NULL;
}

/* fib_table_lookup(): the first route of the longest prefix that fits; else on to shorter prefixes. A route through a
 * next-hop object that does not fit hides all that follow it in its leaf of the trie: every prefix of the same address. */
static uint32_t lookup4(const struct xs_fib *fib, uint32_t table, const struct xs_fib_key *key,
                        struct xs_fib_result *out) {
    const struct xs_fib_table *t = &fib->table[table];
    uint64_t hidden = UINT64_MAX;
    for (uint32_t l = 0; l < t->nlengths; l++) {
        const struct xs_fib_slot *slot = find(t, xs_addr_and(key->dst, t->length_mask[l]), t->length[l]);
        if (!slot || slot->prefix.lo == hidden) continue;
        for (uint32_t i = 0; i < slot->nroutes; i++) {
            const struct xs_fib_route *r = &fib->route[slot->route + i];
            if (r->tos && r->tos != (key->tos & IPTOS_RT_MASK)) continue;
            if (r->type >= XS_ROUTE_BLACKHOLE) return refusal(r->type);
            const struct xs_fib_hop *hop = first_hop(fib, r, key->oif);
            if (!hop && r->grouped) {
                hidden = slot->prefix.lo;
                break;
            }
            if (!hop) continue;
            *out = (struct xs_fib_result){.route = r, .hop = hop, .table = table};
            return XS_FIB_FOUND;
        }
    }
    return XS_FIB_NEXT;
}

/* ---- one routing table: IPv6 ---- */

/* rt6_score_route(): -1 = cannot be used. `avoid` are the XS_HOP_* that make a hop unusable. */
static inline int score(const struct xs_fib_route *r, const struct xs_fib_hop *hop,
                        const struct xs_fib_key *key, uint32_t avoid) {
    bool fits = !key->prefer || hop->ifindex == key->prefer;
    if ((!fits && key->flags & XS_FIB_STRICT) || hop->flags & avoid) return -1;
    return (fits ? 2 : 0) | r->preference << 2;
}

/* __find_rr_leaf(): the first of the best score. A blackhole object ends the search wherever it stands; of a group counts the
 * first member that is better than what came before it (rt6_nh_find_match). */
static bool best6(const struct xs_fib *fib, const struct xs_fib_route *r, uint32_t n,
                  const struct xs_fib_key *key, uint32_t avoid, struct xs_fib_result *out) {
    int best = -1;
    for (uint32_t i = 0; i < n; i++) {
        if (r[i].grouped && !r[i].nhops) {
            out->route = &r[i];
            return true;
        }
        for (uint32_t h = 0; h < r[i].nhops; h++) {
            const struct xs_fib_hop *hop = &fib->hop[r[i].hop + h];
            int s = score(&r[i], hop, key, avoid | XS_HOP_DOWN);
            if (s <= best) continue;
            best = s;
            out->route = &r[i];
            out->hop = hop;
            if (r[i].grouped) break;
        }
    }
    return best >= 0;
}

/* find_rr_leaf(): the best of the lowest metric, else the best of all others. */
static bool select6(const struct xs_fib *fib, const struct xs_fib_route *r, uint32_t n,
                    const struct xs_fib_key *key, uint32_t avoid, struct xs_fib_result *out) {
    uint32_t lowest = 1;
    while (lowest < n && r[lowest].metric == r[0].metric) lowest++;
    return best6(fib, r, lowest, key, avoid, out) ||
           (lowest < n && best6(fib, r + lowest, n - lowest, key, avoid, out));
}

static inline bool same_source(const struct xs_fib_route *a, const struct xs_fib_route *b) {
    return xs_addr_equal(a->source, b->source) && xs_addr_equal(a->source_mask, b->source_mask);
}

/* fib6_node_lookup(), fib6_backtrack(): one prefix after the other until a route of one can be used. A prefix with
 * source-specific routes is a tree of its own over the source (FIB6_SUBTREE). When nothing came before it, and it is not
 * the root, it only counts if a source in it matches: a quirk of the kernel's. */
static bool visit6(const struct xs_fib *fib, const struct xs_fib_table *t, const struct xs_fib_key *key,
                   uint32_t avoid, struct xs_fib_result *out) {
    bool started = false;
    for (uint32_t l = 0; l < t->nlengths; l++) {
        const struct xs_fib_slot *slot = find(t, xs_addr_and(key->dst, t->length_mask[l]), t->length[l]);
        if (!slot) continue;
        const struct xs_fib_route *r = &fib->route[slot->route];
        bool ordinary_counts = !slot->has_sources || started || !slot->length;
        for (uint32_t i = 0, n; i < slot->nroutes; i += n) {
            for (n = 1; i + n < slot->nroutes && same_source(&r[i], &r[i + n]);) n++;
            bool ordinary = !r[i].source_mask.hi;
            if (ordinary ? !ordinary_counts : !xs_addr_match(key->src, r[i].source, r[i].source_mask))
                continue;
            started = ordinary_counts = true;
            if (select6(fib, &r[i], n, key, avoid, out)) return true;
        }
    }
    return false;
}

/* fib6_select_path(): of several hops the one that the hash falls to, if it will do. */
static void select_path6(const struct xs_fib *fib, const struct xs_fib_key *key, uint32_t avoid,
                         struct xs_fib_result *found) {
    const struct xs_fib_route *r = found->route;
    if (r->nhops < 2) return;
    const struct xs_fib_hop *hop = &fib->hop[r->hop];
    uint32_t hash = hash_of(fib, key);
    if (r->grouped) {
        found->hop = select_grouped(hop, r->nhops, hash);
        return;
    }
    for (uint32_t i = 0; i < r->nhops; i++) {
        if (hash > hop[i].bound) continue;
        if (score(r, &hop[i], key, avoid) >= 0) found->hop = &hop[i];
        return;
    }
}

/* ip6_pol_route(). A host that is no router takes a failed gateway only if there is nothing else (RT6_LOOKUP_F_REACHABLE). */
static uint32_t lookup6(const struct xs_fib *fib, uint32_t table, const struct xs_fib_key *key,
                        struct xs_fib_result *out) {
    const struct xs_fib_table *t = &fib->table[table];
    uint32_t avoid = fib->family[1].avoid_silent ? XS_HOP_FAILED : 0;
    out->table = table;
    if (!visit6(fib, t, key, avoid, out) && !(avoid && visit6(fib, t, key, 0, out))) return XS_FIB_NEXT;
    if (out->route->type >= XS_ROUTE_BLACKHOLE) return refusal(out->route->type);
    select_path6(fib, key, avoid, out);
    return XS_FIB_FOUND;
}

static inline uint32_t ask_table(const struct xs_fib *fib, uint32_t table, const struct xs_fib_key *key,
                                 struct xs_fib_result *out) {
    return key->flags & XS_FIB_IPV6 ? lookup6(fib, table, key, out) : lookup4(fib, table, key, out);
}

uint32_t xs_fib_table_lookup(const struct xs_fib *fib, uint32_t table, const struct xs_fib_key *key,
                             struct xs_fib_result *out) {
    return ask_table(fib, table, key, out);
}

/* ---- rules ---- */

static inline bool port_fits(const struct xs_fib_ports *range, uint16_t port) {
    uint16_t masked = port & range->mask;
    return !range->mask || (masked >= range->first && masked <= range->last);
}

/* fib_rule_match(), fib4_rule_match(), fib6_rule_match(). */
static bool selects(const struct xs_fib_rule *r, const struct xs_fib_key *key) {
    bool no_source = key->flags & XS_FIB_IPV6 && !(key->flags & XS_FIB_HAS_SOURCE);
    return !(r->flags & XS_RULE_NEVER) && (!r->iif || r->iif == key->iif) &&
           (!r->oif || r->oif == key->oif) && !((r->mark ^ key->mark) & r->mark_mask) &&
           xs_addr_match(key->dst, r->dst, r->dst_mask) && xs_addr_match(key->src, r->src, r->src_mask) &&
           !(r->src_mask.hi && no_source) && !((r->tos ^ key->tos) & r->tos_mask) &&
           (!r->proto || r->proto == key->proto) && port_fits(&r->sport, key->sport) &&
           port_fits(&r->dport, key->dport) && !((r->flow_label ^ key->flow_label) & r->flow_label_mask) &&
           (!(r->flags & XS_RULE_USERS) || (key->user >= r->user_first && key->user <= r->user_last));
}

/* fib4_rule_suppress() looks at the route's first hop, fib6_rule_suppress() at the one that is taken. */
static inline bool suppressed(const struct xs_fib *fib, const struct xs_fib_rule *r, bool ipv6,
                              const struct xs_fib_result *found) {
    if (found->route->length <= r->suppress_length) return true;
    const struct xs_fib_hop *hop = ipv6 ? found->hop : &fib->hop[found->route->hop];
    return r->suppress_group >= 0 && hop->group == (uint32_t)r->suppress_group;
}

static uint32_t act(const struct xs_fib *fib, const struct xs_fib_rule *r, const struct xs_fib_key *key,
                    struct xs_fib_result *out) {
    switch (r->action) {
    case XS_RULE_TABLE: {
        if (r->table == XS_FIB_NO_TABLE) return XS_FIB_NEXT;
        uint32_t verdict = xs_fib_table_lookup(fib, r->table, key, out);
        return verdict == XS_FIB_FOUND && suppressed(fib, r, key->flags & XS_FIB_IPV6, out) ? XS_FIB_NEXT
                                                                                            : verdict;
    }
    case XS_RULE_NOP: return XS_FIB_NEXT;
    case XS_RULE_UNREACHABLE: return XS_FIB_NONE; /* the network, not the host: ENETUNREACH */
    case XS_RULE_PROHIBIT: return XS_FIB_PROHIBITED;
    default: return XS_FIB_BLACKHOLE;
    }
}

/* fib_rules_lookup(). Jumps lead forward only (xs_fib_create checks), so this ends. */
static uint32_t ask_rules(const struct xs_fib *fib, const struct xs_fib_family *f,
                          const struct xs_fib_key *key, struct xs_fib_result *out) {
    for (uint32_t i = 0; i < f->nrules;) {
        const struct xs_fib_rule *r = &f->rule[i++];
        bool matches = r->flags & XS_RULE_ALL || selects(r, key);
        if (matches == !!(r->flags & XS_RULE_INVERT)) continue;
        if (r->action == XS_RULE_GOTO) {
            if (r->target != XS_FIB_NO_RULE) i = r->target;
            continue;
        }
        uint32_t verdict = act(fib, r, key, out);
        if (verdict != XS_FIB_NEXT) return verdict;
    }
    return XS_FIB_NONE;
}

uint32_t xs_fib_lookup(const struct xs_fib *fib, const struct xs_fib_key *key, struct xs_fib_result *out) {
    const struct xs_fib_family *f = &fib->family[key->flags & XS_FIB_IPV6];
    if (!f->plain) return ask_rules(fib, f, key, out);
    for (uint32_t i = 0; i < f->nplain; i++) {
        uint32_t verdict = ask_table(fib, f->plain_table[i], key, out);
        if (verdict != XS_FIB_NEXT) return verdict;
    }
    return XS_FIB_NONE;
}

/* ---- asking from control ---- */

void xs_fib_ask(const struct xs_fib *fib, const struct xs_fib_key *keys, uint32_t n,
                struct xs_fib_answer *answers) {
    for (uint32_t i = 0; i < n; i++) {
        struct xs_fib_result found;
        answers[i] = (struct xs_fib_answer){.verdict = xs_fib_lookup(fib, &keys[i], &found)};
        if (answers[i].verdict != XS_FIB_FOUND) continue;
        if (!(keys[i].flags & XS_FIB_IPV6) && !keys[i].oif) xs_fib_select4(fib, &keys[i], &found);
        answers[i].table = found.table;
        answers[i].metric = found.route->metric;
        answers[i].type = found.route->type;
        answers[i].length = found.route->length;
        answers[i].nexthop = found.hop->nexthop;
        answers[i].ifindex = found.hop->ifindex;
    }
}
