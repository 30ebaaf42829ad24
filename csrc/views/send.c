/* Sending: datagrams become frames, walk from routing.tx to the ring, and what became of each is known when the walk returns.
 *
 * What the walk does not send itself (TX_FRAGMENT: larger than the MTU; TX_SLOW: another device, this host) the shadow socket
 * does, at once and without blocking; so it does what is not ours to begin with (kernel_sends()). Errors are the kernel's: an
 * errno per drop reason (reasons.def). */
#include "include/xdpstack_vlan.h"
#include "views/send.h"
#include "wire/eth.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "ffi/10_core.cdef.h"

#define HEADROOM 128u /* for the headers that the stages put before the payload */

/* ---- the kernel's way ---- */

static int slow_once(int fd, const struct outgoing *o, uint8_t family) {
    struct sockaddr_in6 a6 = {
        .sin6_family = AF_INET6, .sin6_port = htons(o->port), .sin6_scope_id = o->scope};
    struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_port = htons(o->port)};
    memcpy(&a6.sin6_addr, o->address, 16);
    memcpy(&a4.sin_addr, o->address + 12, 4);
    const struct sockaddr *to = family == 6 ? (void *)&a6 : (void *)&a4;
    socklen_t size = family == 6 ? sizeof a6 : sizeof a4;
    if (!o->port) { /* it is connected to it, too, and there is no other way to port 0 */
        to = NULL;
        size = 0;
    }
    ssize_t sent = sendto(fd, o->data, (size_t)o->bytes, MSG_DONTWAIT | MSG_NOSIGNAL, to, size);
    return sent < 0 ? errno : 0;
}

static int send_slow(struct socket_view *v, const struct outgoing *o) {
    struct xs_socket *s = v->socket;
    if (!s) return EBADF; /* closed while we waited for the worker: the descriptor is no longer ours */
    if (s->shadow_fd < 0) return xs_reason_error(o->reason);
    int error = slow_once(s->shadow_fd, o, s->family);
    /* a pending ICMP error of an earlier datagram comes first; it is also on the error queue, where it is reported from */
    if (error && error != EAGAIN) error = slow_once(s->shadow_fd, o, s->family);
    v->slow += !error;
    return error;
}

/* ---- our way ---- */

/* __ipv6_addr_needs_scope_id(): with other addresses a scope means nothing. */
static inline bool is_scoped(const uint8_t *a) {
    return (a[0] == 0xfe && (a[1] & 0xc0) == 0x80) ||
           (a[0] == 0xff && ((a[1] & 0xf) == 1 || (a[1] & 0xf) == 2));
}

static inline bool is_any(const uint8_t *a) {
    static const uint8_t zero[16];
    return !memcmp(a, zero, 16);
}

/* The device that a datagram must leave by, or XS_ANY_DEVICE. False when that is none of this stack's. */
static bool device_for(const struct xs_worker *w, const struct xs_socket_sending *how,
                       const struct outgoing *o, uint8_t *device) {
    *device = how->device;
    if (*device == XS_OTHER_DEVICE) return false;
    if (!o->scope || !is_scoped(o->address)) return true;
    const struct xs_config *config = xs_table(&w->stack->tables, config);
    for (uint32_t i = 0; i < config->ndevices; i++) {
        if (config->device[i].ifindex != o->scope) continue;
        *device = (uint8_t)i;
        return true;
    }
    return false;
}

static inline bool is_multicast(const uint8_t *address, bool ipv4) {
    return ipv4 ? address[12] >> 4 == 0xe : address[0] == 0xff;
}

/* The TTL or hop limit that the socket wants: -1 = the route's or the device's. */
static inline int hops_for(const struct xs_socket_sending *how, const uint8_t *address, bool ipv4) {
    if (is_multicast(address, ipv4)) return ipv4 ? how->multicast_ttl : how->multicast_hops;
    return ipv4 ? how->ttl : how->hops;
}

/* Bytes of a payload that a frame holds. */
static inline uint32_t frame_room(const struct xs_mem *mem) { return (1u << mem->frame_shift) - HEADROOM; }

/* Whether a datagram may go out whole: in a frame, or in several if there is a device for such. Exactly what its way takes
 * ip.tx finds out. */
static inline bool fits_device(const struct xs_worker *w, const struct outgoing *o) {
    Py_ssize_t room = frame_room(w->walk.mem);
    if (likely(o->bytes <= room)) return true;
    const struct xs_config *config = xs_table(&w->stack->tables, config);
    uint32_t largest = 0;
    for (uint32_t i = 0; i < config->ndevices; i++)
        if (config->device[i].mtu > largest) largest = config->device[i].mtu;
    return o->bytes <= (Py_ssize_t)largest && o->bytes <= room * XS_FRAGS_MAX;
}

/* What the walk cannot express, or no device takes whole: a device that is not ours; multicast by IP_MULTICAST_IF; hop limit 0; an
 * address of one family that sends to the other's, which is an error of its own each way. */
static bool kernel_sends(const struct xs_worker *w, const struct xs_socket *s,
                         const struct xs_socket_sending *how, const struct outgoing *o, uint8_t *device) {
    bool ipv4 = views_is_mapped(o->address);
    if (!fits_device(w, o)) return true;
    if (!device_for(w, how, o, device)) return true;
    if (how->kernel_multicast && is_multicast(o->address, ipv4)) return true;
    if (!hops_for(how, o->address, ipv4)) return true;
    const uint8_t *own = is_any(s->address) ? how->source : s->address; /* bound, or connected */
    return s->family == 6 && views_is_mapped(own) != ipv4 && !is_any(own);
}

/* ip_dont_fragment(), ip_sk_ignore_df() */
static inline uint16_t fragments(uint8_t discover) {
    switch (discover) {
    case IP_PMTUDISC_DO:
    case IP_PMTUDISC_PROBE: return XS_PKT_DF;
    case IP_PMTUDISC_WANT: return 0;
    default: return XS_PKT_NO_DF;
    }
}

/* What the first frame of a packet has no room for goes into further ones. False when there are not enough of them: then
 * the packet is home again. */
static __attribute__((noinline)) bool append(struct xs_worker *w, uint32_t head, const uint8_t *data,
                                             uint32_t left) {
    const struct xs_mem *mem = w->walk.mem;
    const uint32_t room = frame_room(mem);
    mem->pkt[head].flags |= XS_PKT_MULTI;
    for (uint32_t tail = head; left;) {
        uint32_t frame = xs_pool_get(&w->pool, mem), here = left < room ? left : room;
        if (frame == XS_NO_FRAME) {
            xs_pool_put_packet(&w->pool, mem, head);
            return false;
        }
        struct xs_pkt *p = &mem->pkt[frame];
        p->flags = XS_PKT_TAIL;
        p->data_off = HEADROOM;
        p->len = (uint16_t)here;
        memcpy(xs_frame_data(mem, frame) + HEADROOM, data, here);
        data += here;
        left -= here;
        mem->pkt[tail].frag = frame;
        tail = frame;
    }
    return true;
}

static uint32_t make_frame(struct xs_worker *w, const struct xs_socket *s,
                           const struct xs_socket_sending *how, const struct outgoing *o, uint8_t device) {
    const struct xs_mem *mem = w->walk.mem;
    uint32_t frame = xs_pool_get(&w->pool, mem);
    if (frame == XS_NO_FRAME) return frame;
    struct xs_pkt *p = &mem->pkt[frame];
    struct xs_meta *m = &mem->meta[frame];
    p->data_off = p->payload_off = HEADROOM;
    uint32_t room = frame_room(mem), bytes = (uint32_t)o->bytes, here = bytes < room ? bytes : room;
    p->len = (uint16_t)here;
    p->payload_len = (uint16_t)bytes;
    p->pkt_len = bytes;
    bool ipv4 = views_is_mapped(o->address);
    p->flags = ipv4 ? fragments(how->discover) : XS_PKT_IPV6;
    p->device = device;
    p->mark = how->mark;
    p->priority = how->priority;
    p->tos = ipv4 ? how->tos : how->tclass;
    p->sport = s->port;
    p->dport = o->port;
    p->socket = s->index;
    memset(m, 0, sizeof *m);
    memcpy(m->src, how->source, 16);
    memcpy(m->dst, o->address, 16);
    if (unlikely(how->vlan)) xs_vlan_ask(p, m, how->vlan);
    int hops = hops_for(how, o->address, ipv4);
    m->ttl = hops < 0 ? 0 : (uint8_t)hops;
    memcpy(xs_frame_data(mem, frame) + HEADROOM, o->data, here);
    if (unlikely(here < bytes) && !append(w, frame, o->data + here, bytes - here)) return XS_NO_FRAME;
    return frame;
}

/* How many packets may be made now: frames for them, and room on the device that the last one left by. */
static uint32_t room_for(struct socket_view *v, struct xs_worker *w, uint32_t n) {
    if (w->pool.n < n) {
        xs_pool_drain(&w->pool);
        for (uint32_t port = 0; port < w->napi.nports; port++)
            if (w->napi.port[port].xsk) xs_napi_complete(&w->napi, port);
    }
    if (w->pool.n < n) n = w->pool.n;
    if (v->tx_device < XS_DEVICES_MAX) {
        uint32_t room = xs_napi_tx_room(&w->napi, v->tx_device);
        if (room < n) n = room;
    }
    return n;
}

/* Python has packets: which of ours are among them? What becomes of those is said later (views_settle()). */
static void note_parked(struct socket_view *v, const struct xs_walk *walk, const struct outgoing *out,
                        uint32_t n) {
    v->nsent = n;
    for (uint32_t i = 0; i < n; i++) {
        bool waits = out[i].frame != XS_NO_FRAME && !out[i].error && xs_walk_is_parked(walk, out[i].frame);
        v->under_way[i] = waits ? out[i].frame : XS_NO_FRAME;
    }
}

/* Not refused: the shadow socket sends it. */
static inline bool is_the_kernels(uint16_t reason) {
    return reason == XS_REASON_TX_SLOW || reason == XS_REASON_TX_FRAGMENT;
}

void views_settle(struct socket_view *v, struct outgoing *out, uint32_t n, const uint16_t *reason) {
    for (uint32_t i = 0; i < n; i++) {
        if (out[i].error) continue;
        out[i].reason = reason[i];
        out[i].error = is_the_kernels(reason[i]) ? send_slow(v, &out[i]) : xs_reason_error(reason[i]);
    }
}

/* Makes frames and walks them; as the one who drives the worker, with the GIL or without. One function, so that what it calls
 * is in line with it. */
static __attribute__((noinline)) void walk_out(struct socket_view *v, struct xs_socket *s,
                                               const struct xs_socket_sending *how, struct xs_worker *w,
                                               struct outgoing *out, uint32_t n) {
    const struct xs_mem *mem = w->walk.mem;
    if (w->tx_entry == XS_EDGE_NONE) {
        for (uint32_t i = 0; i < n; i++)
            if (!out[i].error) out[i].error = ENETDOWN;
        return;
    }
    uint32_t room = room_for(v, w, n), walked = 0;
    struct xs_batch *b = xs_walk_begin(&w->walk, xs_stack_now_ns(v->stack));
    for (uint32_t i = 0; i < n; i++) {
        out[i].frame = XS_NO_FRAME;
        if (out[i].error) continue; /* it is refused already */
        uint8_t device;
        if (kernel_sends(w, s, how, &out[i], &device)) { /* behind the walk */
            out[i].reason = fits_device(w, &out[i]) ? XS_REASON_TX_SLOW : XS_REASON_TX_FRAGMENT;
            continue;
        }
        if (walked < room) out[i].frame = make_frame(w, s, how, &out[i], device);
        if (out[i].frame == XS_NO_FRAME) {
            out[i].error = EAGAIN;
            continue;
        }
        b->frame[walked++] = out[i].frame;
    }
    b->n = walked;
    b->ledger->created += walked;
    if (walked) xs_walk_run(&w->walk, w->tx_entry);
    for (uint32_t i = 0; i < n; i++) {
        if (out[i].frame == XS_NO_FRAME) continue;
        uint16_t reason = out[i].reason = mem->meta[out[i].frame].reason;
        if (is_the_kernels(reason)) {
            out[i].frame = XS_NO_FRAME;
            continue;
        }
        out[i].error = xs_reason_error(reason);
        if (!reason || reason == XS_REASON_QDISC_DROP) v->tx_device = mem->pkt[out[i].frame].device;
    }
    v->parked = xs_walk_parked(&w->walk);
    if (v->parked) note_parked(v, &w->walk, out, n);
    xs_worker_finish(w);
}

/* A call's datagrams, while another thread has the worker. */
struct waiting {
    struct socket_view *view;
    struct xs_socket *socket;
    struct xs_worker *worker;
    struct xs_socket_sending how; /* as it was then: it changes under the GIL */
    struct outgoing *out;
    uint32_t n;
};

static void walk_out_later(void *argument) {
    struct waiting *a = argument;
    walk_out(a->view, a->socket, &a->how, a->worker, a->out, a->n);
}

static __attribute__((noinline)) bool wait_and_walk_out(struct socket_view *v, struct xs_socket *s,
                                                        struct xs_worker *w, struct outgoing *out,
                                                        uint32_t n) {
    struct waiting a = {.view = v, .socket = s, .worker = w, .how = s->sending, .out = out, .n = n};
    return views_wait_and_do(v, w, walk_out_later, &a);
}

bool views_transmit(struct socket_view *v, struct outgoing *out, uint32_t n) {
    struct xs_socket *s = views_socket(v);
    if (unlikely(!s)) return false;
    struct xs_worker *w = v->stack->worker[s->index % v->stack->nworkers];
    if (likely(xs_worker_enter(w))) {
        walk_out(v, s, &s->sending, w, out, n);
        xs_worker_leave(w);
    } else if (!wait_and_walk_out(v, s, w, out, n)) {
        return false;
    }
    for (uint32_t i = 0; i < n; i++)
        if (out[i].frame == XS_NO_FRAME && !out[i].error) out[i].error = send_slow(v, &out[i]);
    return true;
}
