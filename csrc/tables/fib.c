/* Building and publishing the FIB. See fib.h for what it is made of; looking it up is in fib_lookup.c. */
#include "tables/fib.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct xs_fib_address no_address;
static struct xs_nexthop no_nexthop;

const struct xs_fib xs_fib_empty = {
    .family = {{.plain = 1, .local_table = XS_FIB_NO_TABLE}, {.plain = 1, .local_table = XS_FIB_NO_TABLE}},
    .nexthop = &no_nexthop,
    .nnexthops = 1,
    .here = {.entry = &no_address},
    .local = {.entry = &no_address},
    .groups = {.entry = &no_address},
};

/* ---- checks: an index that control got wrong must not become a wild pointer ---- */

static bool route_is_sound(const struct xs_fib_values *v, const struct xs_fib_route_values *r) {
    if (r->table >= v->ntables || r->length > 128 || r->source_length > 128) return false;
    if (!r->ipv6 && r->length < XS_MAPPED_BITS) return false;
    if (!xs_addr_equal(xs_addr_and(r->prefix, xs_addr_mask(r->length)), r->prefix)) return false;
    if (r->nhops > v->nhops || r->hop > v->nhops - r->nhops) return false;
    if (r->detour != XS_HOP_NONE && r->detour >= v->nhops) return false;
    return r->nhops || r->type >= XS_ROUTE_BLACKHOLE; /* what delivers or sends has somewhere to */
}

static bool family_is_sound(const struct xs_fib_values *v, const struct xs_fib_family *f) {
    if (f->local_table != XS_FIB_NO_TABLE && f->local_table >= v->ntables) return false;
    for (uint32_t i = 0; i < f->nrules; i++) {
        const struct xs_fib_rule *r = &f->rule[i];
        if (r->table != XS_FIB_NO_TABLE && r->table >= v->ntables) return false;
        /* jumps lead forward, so that a walk over the rules ends */
        if (r->target != XS_FIB_NO_RULE && (r->target >= f->nrules || r->target <= i)) return false;
    }
    return true;
}

static bool values_are_sound(const struct xs_fib_values *v) {
    if (!v->nnexthops || v->nnexthops > XS_NEXTHOP_SLOT_MASK || v->nlinks > XS_DEVICES_MAX) return false;
    for (uint32_t i = 0; i < v->nroutes; i++)
        if (!route_is_sound(v, &v->routes[i])) return false;
    for (uint32_t i = 0; i < v->nnexthops; i++)
        if (v->nexthops[i].device >= XS_DEVICES_MAX && v->nexthops[i].device != XS_NO_DEVICE) return false;
    return family_is_sound(v, &v->family[0]) && family_is_sound(v, &v->family[1]);
}

/* ---- building ---- */

/* A copy of an array; of none, something that free() takes. */
static void *copy(const void *from, uint32_t n, size_t bytes) {
    void *to = malloc(n ? n * bytes : 1);
    if (to && n) memcpy(to, from, n * bytes);
    return to;
}

/* Twice as many slots as entries, a power of two, so that there always is an empty one. */
static uint32_t slots_for(uint32_t n) {
    uint32_t slots = 4;
    while (slots < 2 * n) slots *= 2;
    return slots;
}

static int set_build(struct xs_addr_set *set, const struct xs_fib_address *from, uint32_t n,
                     bool with_device) {
    uint32_t slots = slots_for(n);
    set->entry = calloc(slots, sizeof *set->entry);
    set->mask = slots - 1;
    if (!set->entry) return -ENOMEM;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = xs_addr_hash(from[i].address, with_device ? from[i].ifindex : 0);
        while (set->entry[at & set->mask].ifindex) at++;
        set->entry[at & set->mask] = from[i];
    }
    return 0;
}

/* A route to be, and all that orders it: by table, by prefix, and within a prefix as the kernel tries them: source-specific
 * ones first (fib6_node_lookup), then by falling TOS (fib_find_alias), metric, and as they came. */
struct draft {
    const struct xs_fib_route_values *from;
    uint32_t at;
};

#define ORDER(a, b) \
    if ((a) != (b)) return (a) < (b) ? -1 : 1

static int compare(const void *left, const void *right) {
    const struct xs_fib_route_values *a = ((const struct draft *)left)->from,
                                     *b = ((const struct draft *)right)->from;
    ORDER(a->table, b->table);
    ORDER(b->length, a->length);
    ORDER(a->prefix.hi, b->prefix.hi);
    ORDER(a->prefix.lo, b->prefix.lo);
    ORDER(b->source_length, a->source_length);
    ORDER(a->source.hi, b->source.hi);
    ORDER(a->source.lo, b->source.lo);
    ORDER(a->rank, b->rank);
    ORDER(b->tos, a->tos);
    ORDER(a->metric, b->metric);
    ORDER(((const struct draft *)left)->at, ((const struct draft *)right)->at);
    return 0;
}

static bool same_prefix(const struct xs_fib_route_values *a, const struct xs_fib_route_values *b) {
    return a->table == b->table && a->length == b->length && xs_addr_equal(a->prefix, b->prefix);
}

static void keep(struct xs_fib_route *to, const struct xs_fib_route_values *from) {
    struct xs_addr mask = xs_addr_mask(from->source_length);
    *to = (struct xs_fib_route){
        .source = xs_addr_and(from->source, mask),
        .source_mask = mask,
        .metric = from->metric,
        .hop = from->hop,
        .nhops = from->nhops,
        .detour = from->detour,
        .type = from->type,
        .tos = from->tos,
        .preference = from->preference,
        .length = (uint8_t)(from->length - (from->ipv6 ? 0 : XS_MAPPED_BITS)),
        .grouped = from->grouped,
        .looped = from->looped,
        .multicast = from->ipv6 && xs_ip6_is_multicast(from->prefix),
    };
}

static void add_length(struct xs_fib_table *t, uint8_t length) {
    if (t->nlengths && t->length[t->nlengths - 1] == length) return;
    t->length_mask[t->nlengths] = xs_addr_mask(length);
    t->length[t->nlengths++] = length;
}

/* The slots of one table from its routes, which `draft` has in order from `first` on. Returns how many those are, or
 * -ENOMEM, -E2BIG. */
static int64_t table_build(struct xs_fib *fib, uint32_t table, const struct draft *draft, uint32_t first,
                           uint32_t n) {
    struct xs_fib_table *t = &fib->table[table];
    uint32_t end = first;
    while (end < n && draft[end].from->table == table) end++;
    uint32_t slots = slots_for(end - first);
    t->slot = calloc(slots, sizeof *t->slot);
    t->mask = slots - 1;
    if (!t->slot) return -ENOMEM;
    for (uint32_t i = first; i < end;) {
        const struct xs_fib_route_values *head = draft[i].from;
        struct xs_fib_slot slot = {
            .prefix = xs_addr_and(head->prefix, xs_addr_mask(head->length)),
            .route = i,
            .length = head->length,
            .has_sources = head->source_length != 0,
        };
        for (; i < end && same_prefix(draft[i].from, head); i++) {
            if (slot.nroutes == UINT16_MAX) return -E2BIG;
            keep(&fib->route[i], draft[i].from);
            slot.nroutes++;
        }
        uint32_t at = xs_addr_hash(slot.prefix, slot.length);
        while (t->slot[at & t->mask].nroutes) at++;
        t->slot[at & t->mask] = slot;
        add_length(t, slot.length);
    }
    return end - first;
}

static int tables_build(struct xs_fib *fib, const struct xs_fib_values *v) {
    struct draft *draft = malloc((v->nroutes ? v->nroutes : 1) * sizeof *draft);
    if (!draft) return -ENOMEM;
    for (uint32_t i = 0; i < v->nroutes; i++) draft[i] = (struct draft){.from = &v->routes[i], .at = i};
    qsort(draft, v->nroutes, sizeof *draft, compare);
    uint32_t done = 0;
    int rc = 0;
    for (uint32_t table = 0; table < v->ntables; table++) {
        int64_t n = table_build(fib, table, draft, done, v->nroutes);
        if (n < 0) {
            rc = (int)n;
            break;
        }
        done += (uint32_t)n;
    }
    free(draft);
    return rc;
}

/* Rules that only name tables need not be looked at for each packet. */
static void find_plain(struct xs_fib_family *f, const struct xs_fib_table *tables) {
    f->plain = 0;
    f->nplain = 0;
    for (uint32_t i = 0; i < f->nrules; i++) {
        const struct xs_fib_rule *r = &f->rule[i];
        bool plain = r->flags == XS_RULE_ALL && r->action == XS_RULE_TABLE && r->suppress_length < 0 &&
                     r->suppress_group < 0;
        if (!plain) return;
        if (r->table == XS_FIB_NO_TABLE || !tables[r->table].nlengths) continue;
        if (f->nplain == sizeof f->plain_table / sizeof f->plain_table[0]) return;
        f->plain_table[f->nplain++] = r->table;
    }
    f->plain = 1;
}

/* Everything to this host prefix is local: the first table that is asked says so whatever the packet's TOS and device. An
 * address that means something on one link only, that is a group's, or that a device may refuse (127.0.0.0/8, 0.0.0.0/8),
 * is no such one. */
static bool all_is_local(const struct xs_fib *fib, const struct xs_fib_slot *s, bool ipv6) {
    if (!s->nroutes || s->length != 128 || s->has_sources) return false;
    uint32_t dst = xs_addr_to4(s->prefix);
    if (ipv6 ? xs_ip6_is_link_local(s->prefix) || xs_ip6_is_loopback(s->prefix) ||
                   xs_ip6_is_multicast(s->prefix)
             : xs_addr4_is_loopback(dst) || !(dst >> 24) || xs_addr4_is_multicast(dst))
        return false;
    const struct xs_fib_route *r = &fib->route[s->route];
    for (uint32_t i = 0; i < (ipv6 ? s->nroutes : 1u); i++)
        if (r[i].type != XS_ROUTE_LOCAL || r[i].tos || r[i].nhops != 1 ||
            fib->hop[r[i].hop].flags & XS_HOP_DOWN)
            return false;
    return true;
}

static int find_here(struct xs_fib *fib) {
    struct xs_fib_address *found = NULL;
    uint32_t n = 0;
    for (uint32_t round = 0; round < 2; round++) { /* counts, then collects */
        if (round && !(found = calloc(n ? n : 1, sizeof *found))) return -ENOMEM;
        n = 0;
        for (uint32_t f = 0; f < 2; f++) {
            if (!fib->family[f].plain || !fib->family[f].nplain) continue;
            const struct xs_fib_table *t = &fib->table[fib->family[f].plain_table[0]];
            for (uint32_t i = 0; i <= t->mask; i++) {
                if (!all_is_local(fib, &t->slot[i], f)) continue;
                if (found) found[n] = (struct xs_fib_address){t->slot[i].prefix, 1};
                n++;
            }
        }
    }
    int rc = set_build(&fib->here, found, n, false);
    free(found);
    return rc;
}

int xs_fib_create(const struct xs_fib_values *v, struct xs_fib **out) {
    if (!values_are_sound(v)) return -EINVAL;
    struct xs_fib *fib = calloc(1, sizeof *fib);
    if (!fib) return -ENOMEM;
    fib->ntables = v->ntables;
    fib->nroutes = v->nroutes;
    fib->nhops = v->nhops;
    fib->nnexthops = v->nnexthops;
    fib->nsources = v->nsources;
    fib->nlinks = v->nlinks;
    fib->generation = v->generation;
    fib->table = calloc(v->ntables ? v->ntables : 1, sizeof *fib->table);
    fib->route = calloc(v->nroutes ? v->nroutes : 1, sizeof *fib->route);
    fib->hop = copy(v->hops, v->nhops, sizeof *v->hops);
    fib->nexthop = copy(v->nexthops, v->nnexthops, sizeof *v->nexthops);
    fib->source = copy(v->sources, v->nsources, sizeof *v->sources);
    int rc = fib->table && fib->route && fib->hop && fib->nexthop && fib->source ? 0 : -ENOMEM;
    if (!rc) rc = tables_build(fib, v);
    for (uint32_t i = 0; i < 2 && !rc; i++) {
        fib->family[i] = v->family[i];
        fib->family[i].rule = copy(v->family[i].rule, v->family[i].nrules, sizeof *v->family[i].rule);
        if (!fib->family[i].rule)
            rc = -ENOMEM;
        else
            find_plain(&fib->family[i], fib->table);
    }
    if (!rc) rc = find_here(fib);
    if (!rc) rc = set_build(&fib->local, v->locals, v->nlocals, false);
    for (uint32_t i = 0; i < v->nlocals; i++) {
        uint32_t bit =
            xs_fib_bit4(xs_addr_to4(v->locals[i].address)); /* an IPv6 address has one too, for nothing */
        fib->local4[bit / 64] |= 1ull << bit % 64;
    }
    if (!rc) rc = set_build(&fib->groups, v->groups, v->ngroups, true);
    if (rc) {
        xs_fib_destroy(fib);
        return rc;
    }
    for (uint32_t i = 0; i < v->nlinks; i++) fib->link[i] = v->links[i];
    for (uint32_t i = 0; i < fib->nsources; i++) xs_fib_classify(&fib->source[i]);
    *out = fib;
    return 0;
}

void xs_fib_destroy(struct xs_fib *fib) {
    if (!fib || fib == &xs_fib_empty) return;
    for (uint32_t i = 0; fib->table && i < fib->ntables; i++) free(fib->table[i].slot);
    free(fib->table);
    free(fib->route);
    free(fib->hop);
    free(fib->nexthop);
    free(fib->source);
    free(fib->here.entry);
    free(fib->local.entry);
    free(fib->groups.entry);
    for (uint32_t i = 0; i < 2; i++) free(fib->family[i].rule);
    free(fib);
}
