/* Sockets: making and settling them, the lookup table, its one question. See tables/sockets.h. */
#include "tables/sockets.h"

#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

uint32_t xs_feed_slots(uint32_t rcvbuf, uint32_t frames) {
    /* one more than fit: an empty queue takes a datagram of any size */
    uint32_t most = rcvbuf / xs_truesize(8, false) + 2;
    if (most > frames) most = frames;
    uint32_t slots = 2;
    while (slots < most) slots <<= 1;
    return slots;
}

/* ---- the table ---- */

const struct xs_socket_table xs_no_sockets = {.mask = 1, .shift = 63, .slot = {[1] = {0}}};

static bool takes_from_anyone(const struct xs_socket_binding *b) {
    static const uint8_t zero[16];
    return !b->vlan && !b->peer_port && b->device == XS_ANY_DEVICE && !memcmp(b->peer, zero, 16);
}

static struct xs_socket_entry entry_of(const struct xs_socket_binding *b) {
    struct xs_socket_entry e = {.socket = b->socket,
                                .peer_port = b->peer_port,
                                .vlan = b->vlan,
                                .device = b->device,
                                .family = b->family,
                                .only_joined = b->only_joined,
                                .reconnected = b->reconnected,
                                .ngroups = b->ngroups};
    xs_load_address(b->peer, &e.peer_high, &e.peer_low);
    return e;
}

/* The slot that holds a key, or the empty one where it belongs. */
static struct xs_socket_slot *find(struct xs_socket_table *t, const struct xs_socket_binding *b) {
    uint64_t high, low;
    xs_load_address(b->address, &high, &low);
    uint32_t i = xs_socket_hash(t, high, low, b->port);
    while (t->slot[i].n && (t->slot[i].low != low || t->slot[i].high != high || t->slot[i].port != b->port))
        i = (i + 1) & t->mask;
    struct xs_socket_slot *s = &t->slot[i];
    if (!s->n) *s = (struct xs_socket_slot){.high = high, .low = low, .port = b->port};
    return s;
}

/* Copies the groups behind each other, in the order of the bindings. False when there is no memory. */
static bool copy_groups(struct xs_socket_table *t, const struct xs_socket_binding *bindings, uint32_t n) {
    uint32_t all = 0;
    for (uint32_t i = 0; i < n; i++) all += bindings[i].ngroups;
    if (!all) return true;
    t->group = malloc(all * sizeof *t->group);
    if (!t->group) return false;
    struct xs_socket_group *to = t->group;
    for (uint32_t i = 0; i < n; to += bindings[i++].ngroups)
        if (bindings[i].ngroups) memcpy(to, bindings[i].groups, bindings[i].ngroups * sizeof *to);
    return true;
}

struct xs_socket_table *xs_socket_table_create(const struct xs_socket_binding *bindings, uint32_t n) {
    uint32_t size = 4;
    while (size < 2 * n)
        size <<= 1; /* at most half full: there is always an empty slot, and probes are short */
    struct xs_socket_table *t = calloc(1, sizeof *t + size * sizeof t->slot[0]);
    if (!t || !(t->entry = calloc(n ? n : 1, sizeof *t->entry)) || !copy_groups(t, bindings, n)) {
        xs_socket_table_destroy(t);
        return NULL;
    }
    t->mask = size - 1;
    t->shift = 64 - (uint32_t)__builtin_ctz(size);
    t->nentries = n;
    if (getrandom(&t->seed, sizeof t->seed, GRND_NONBLOCK) < 0) t->seed = (uintptr_t)t;
    /* count what each key has, lay the keys' runs of entries out, then fill them in the given order */
    for (uint32_t i = 0; i < n; i++) find(t, &bindings[i])->n++;
    uint32_t at = 0;
    for (uint32_t i = 0; i < size; i++) {
        t->slot[i].first = at;
        at += t->slot[i].n;
    }
    uint32_t groups = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct xs_socket_slot *s = find(t, &bindings[i]);
        uint32_t k = s->first;
        while (t->entry[k].socket) k++;
        t->entry[k] = entry_of(&bindings[i]);
        t->entry[k].first_group = groups;
        groups += bindings[i].ngroups;
        s->only = s->n == 1 && takes_from_anyone(&bindings[i]) ? bindings[i].socket : NULL;
    }
    return t;
}

void xs_socket_table_destroy(struct xs_socket_table *t) {
    if (!t) return;
    free(t->entry);
    free(t->group);
    free(t);
}

const struct xs_socket_slot *xs_socket_slot_beyond(const struct xs_socket_table *t, uint32_t hash,
                                                   uint64_t high, uint64_t low, uint16_t port) {
    for (uint32_t i = hash; t->slot[i].n; i = (i + 1) & t->mask)
        if (xs_socket_slot_is(&t->slot[i], high, low, port)) return &t->slot[i];
    return NULL;
}

static struct xs_socket *best(const struct xs_socket_table *t, const struct xs_socket_slot *s,
                              const struct xs_socket_key *k) {
    struct xs_socket *found = NULL;
    int most = -1;
    for (uint32_t i = s->first; i < s->first + s->n; i++) {
        int score = xs_socket_score(&t->entry[i], k);
        if (score > most) {
            most = score;
            found = t->entry[i].socket;
        }
    }
    return found;
}

struct xs_socket *xs_socket_lookup(const struct xs_socket_table *t, uint32_t hash,
                                   const struct xs_socket_key *k) {
    const struct xs_socket_slot *s = xs_socket_slot(t, hash, k->high, k->low, k->port);
    if (s) {
        struct xs_socket *found = s->only && !k->vlan ? s->only : best(t, s, k);
        if (found) return found;
    }
    uint64_t any = xs_wildcard_low(k->family);
    s = xs_socket_slot(t, xs_socket_hash(t, 0, any, k->port), 0, any, k->port);
    if (!s) return NULL;
    return s->only && !k->vlan ? s->only : best(t, s, k);
}

/* ---- one socket ---- */

void xs_socket_set_flags(struct xs_socket *s, uint32_t set, uint32_t clear) {
    uint32_t flags = atomic_load_explicit(&s->flags, memory_order_relaxed);
    atomic_store_explicit(&s->flags, (flags & ~clear) | set, memory_order_release);
}

uint32_t xs_socket_flags(struct xs_socket *s) {
    return atomic_load_explicit(&s->flags, memory_order_acquire);
}

struct xs_socket_sending *xs_socket_sending(struct xs_socket *s) {
    return &s->sending;
}

uint64_t xs_socket_rmem(const struct xs_socket *s) {
    uint64_t released = atomic_load_explicit(&s->released, memory_order_acquire), charged = 0;
    for (uint32_t i = 0; i < s->nfeeds; i++)
        charged += atomic_load_explicit(&s->feed[i].charged_seen, memory_order_acquire);
    return charged > released ? charged - released : 0;
}

bool xs_socket_queued(const struct xs_socket *s) {
    for (uint32_t i = 0; i < s->nfeeds; i++)
        if (xs_spsc_len(xs_feed_ring(&s->feed[i]))) return true;
    return false;
}

bool xs_socket_has_something(const struct xs_socket *s) {
    return xs_socket_queued(s) || atomic_load_explicit(&s->error, memory_order_relaxed) ||
           atomic_load_explicit(&s->flags, memory_order_relaxed) & XS_SOCKET_CLOSED;
}

bool xs_socket_arm(struct xs_socket *s) {
    bool exported = atomic_load_explicit(&s->exported, memory_order_relaxed);
    uint64_t count = 1;
    if (exported && read(s->event_fd, &count, sizeof count) < 0)
        count = 1; /* it was not readable: as it should be */
    atomic_store_explicit(&s->armed, 1, memory_order_relaxed);
    atomic_thread_fence(
        memory_order_seq_cst); /* arm, then look: xs_inbox_flush() publishes, then looks whether we armed */
    if (!xs_socket_has_something(s)) return false;
    count = 1;
    if (exported && write(s->event_fd, &count, sizeof count) < 0) return true; /* full: it is readable */
    return true;
}

void xs_socket_wake(struct xs_socket *s) {
    atomic_thread_fence(memory_order_seq_cst);
    if (!atomic_load_explicit(&s->armed, memory_order_relaxed)) return;
    uint64_t one = 1;
    atomic_store_explicit(&s->armed, 0, memory_order_relaxed);
    if (write(s->event_fd, &one, sizeof one) < 0) return; /* full: it is readable */
}

void xs_socket_stats(struct xs_socket *s, struct xs_socket_stats *out) {
    *out = (struct xs_socket_stats){
        .rmem = xs_socket_rmem(s),
        .rcvbuf = atomic_load_explicit(&s->rcvbuf, memory_order_relaxed),
        .errors_lost = atomic_load_explicit(&s->errors.lost, memory_order_relaxed),
    };
    for (uint32_t i = 0; i < s->nfeeds; i++) {
        out->datagrams += s->feed[i].datagrams;
        out->drops_rcvbuf += s->feed[i].drops_rcvbuf;
        out->drops_memory += s->feed[i].drops_memory;
        out->drops_filter += s->feed[i].drops_filter;
        out->queued += xs_spsc_len(xs_feed_ring(&s->feed[i]));
    }
    out->drops_kernel = atomic_load_explicit(&s->drops_kernel, memory_order_relaxed);
    out->drops = out->drops_rcvbuf + out->drops_memory + out->drops_filter + out->drops_kernel;
}

uint32_t xs_socket_drops(const struct xs_socket *s) {
    uint64_t sum = atomic_load_explicit(&s->drops_kernel, memory_order_relaxed);
    for (uint32_t i = 0; i < s->nfeeds; i++)
        sum += s->feed[i].drops_rcvbuf + s->feed[i].drops_memory + s->feed[i].drops_filter;
    return (uint32_t)sum;
}

int xs_socket_take_error(struct xs_socket *s) {
    if (!atomic_load_explicit(&s->error, memory_order_relaxed)) return 0;
    return atomic_exchange_explicit(&s->error, 0, memory_order_acquire);
}

int xs_socket_take_errors(struct xs_socket *s, struct xs_socket_error *out, uint32_t most) {
    struct xs_socket_error_ring *r = &s->errors;
    uint32_t at = atomic_load_explicit(&r->consumer, memory_order_relaxed);
    uint32_t have = atomic_load_explicit(&r->producer, memory_order_acquire) - at;
    if (have > most) have = most;
    for (uint32_t i = 0; i < have; i++) out[i] = r->slot[(at + i) % XS_SOCKET_ERRORS];
    atomic_store_explicit(&r->consumer, at + have, memory_order_release);
    return (int)have;
}

uint32_t xs_udp_truesize(uint32_t bytes, int ipv6, int slow) {
    return slow ? xs_truesize_slow(bytes, ipv6) : xs_truesize(bytes, ipv6);
}
