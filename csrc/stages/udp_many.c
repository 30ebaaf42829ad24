/* Broadcast and multicast: every socket that takes the datagram gets one. Contract: xdpstack/udp/layer.py. */
#include "stages/udp_look.h"

/* Another socket wants the packet too: it gets a copy, as skb_clone() gives it one. The copy has all that the reader looks
 * at: the headers and the payload, over as many frames. */
int xs_udp_clone(struct xs_udp *self, struct xs_batch *b, uint32_t i) {
    int at = xs_emit(b, XS_KEPT);
    if (at < 0) {
        b->count[XS_UDP_RX_CLONES_LOST]++;
        return -1;
    }
    const struct xs_mem *mem = self->mem;
    uint32_t from = b->frame[i], to = b->frame[at];
    for (;;) {
        struct xs_pkt *p = &mem->pkt[to];
        *p = mem->pkt[from];
        p->frag = XS_NO_FRAME;
        memcpy(xs_frame_data(mem, to) + p->data_off, xs_frame_data(mem, from) + p->data_off, p->len);
        mem->meta[to] = mem->meta[from];
        from = mem->pkt[from].frag;
        if (from == XS_NO_FRAME) break;
        to = p->frag = xs_pool_get(self->pool, mem);
        if (to == XS_NO_FRAME) {
            xs_drop(b, (uint32_t)at, XS_REASON_NOMEM);
            b->count[XS_UDP_RX_CLONES_LOST]++;
            return -1;
        }
    }
    b->count[XS_UDP_RX_CLONES]++;
    return at;
}

static void clone_for(struct xs_udp *self, struct xs_batch *b, uint32_t i, struct xs_socket *s) {
    int at = xs_udp_clone(self, b, i);
    if (at >= 0) xs_udp_deliver(self, b, (uint32_t)at, s);
}

/* ip_mc_sf_allow(), inet6_mc_check(): a group that the socket has joined, or it takes those that it has not. */
static bool takes_group(const struct xs_socket_table *t, const struct xs_socket_entry *e,
                        const struct xs_socket_key *key, const struct look *k) {
    if (!k->ipv6 && k->ip[16] >> 4 != 0xe) return true; /* broadcast */
    for (uint32_t i = 0; i < e->ngroups; i++) {
        const struct xs_socket_group *group = &t->group[e->first_group + i];
        uint64_t high, low;
        xs_load_address(group->address, &high, &low);
        if (high == key->high && low == key->low &&
            (group->device == XS_ANY_DEVICE || group->device == key->device))
            return true;
    }
    return !(e->only_joined & (k->ipv6 ? XS_SOCKET_ONLY_JOINED_6 : XS_SOCKET_ONLY_JOINED_4));
}

/* __udp4_lib_mcast_deliver(), __udp6_lib_mcast_deliver(): the last of the takers gets the packet itself. */
void xs_udp_deliver_to_all(struct xs_udp *self, struct xs_batch *b, uint32_t i,
                           const struct xs_socket_table *t) {
    struct look k = look_again(b, i);
    struct xs_socket_key key = key_of(b, &k);
    struct xs_socket *previous = NULL;
    uint64_t any = xs_wildcard_low(key.family);
    const struct xs_socket_slot *slot[2] = {
        xs_socket_slot(t, xs_socket_hash(t, key.high, key.low, key.port), key.high, key.low, key.port),
        xs_socket_slot(t, xs_socket_hash(t, 0, any, key.port), 0, any, key.port),
    };
    for (uint32_t which = 0; which < 2; which++) {
        for (uint32_t j = 0; slot[which] && j < slot[which]->n; j++) {
            const struct xs_socket_entry *e = &t->entry[slot[which]->first + j];
            if (xs_socket_score(e, &key) < 0 || !takes_group(t, e, &key, &k) ||
                refuses(flags_of(e->socket), &k))
                continue;
            if (previous) clone_for(self, b, i, previous);
            previous = e->socket;
        }
    }
    if (previous)
        xs_udp_deliver(self, b, i, previous);
    else
        xs_drop(b, i, XS_REASON_NO_SOCKET);
}
