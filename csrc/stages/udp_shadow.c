/* Shadow sockets: the kernel sockets behind ours, read by the worker. Contract: xdpstack/udp/layer.py.
 *
 * A shadow reserves the port, and receives what the XDP program leaves to the kernel: fragmented datagrams (joined), clients on
 * the same host, other devices, everything while the dead-man switch is open. What it receives goes onto the same receive
 * queue as what was lifted, counted as slow; its error queue has the ICMP errors.
 *
 * What it reads is the kernel's, so each datagram costs a system call; besides the data plane does them only to have rings
 * served (napi_rx.c, napi_tx.c), to sleep, and to look once in a while whether a device is there (worker.c). It runs in the
 * tick, after the batches: at once when the poll was idle, at least every millisecond when it was not.
 */
#include "stages/udp.h"

#include "base/clock.h"
#include "tables/path_mtu.h"
#include "wire/addr.h"
#include "wire/udp.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOOK_NS 1000000ull /* how long steady traffic may keep the shadows waiting */
#define READ_MAX 64u       /* datagrams per tick */
#define READ_EACH 16u      /* of one socket, so that none waits for another */
#define READY_MAX 32
#define PAYLOAD_MAX (XS_UDP_MAX_BYTES + 20u)       /* over IPv6, whose header does not count */
#define FRAMES_MAX ((PAYLOAD_MAX + 2047u) / 2048u) /* no frame is smaller than 2,048 bytes */

int xs_udp_shadow_add(struct xs_udp *self, struct xs_socket *s) {
    if (self->shadow_epoll < 0) {
        self->shadow_epoll = epoll_create1(EPOLL_CLOEXEC);
        struct epoll_event all = {.events = EPOLLIN, .data.fd = self->shadow_epoll};
        if (self->shadow_epoll < 0 || epoll_ctl(self->worker_epoll, EPOLL_CTL_ADD, self->shadow_epoll, &all))
            return -errno;
    }
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = s};
    return epoll_ctl(self->shadow_epoll, EPOLL_CTL_ADD, s->shadow_fd, &e) ? -errno : 0;
}

void xs_udp_shadow_remove(struct xs_udp *self, struct xs_socket *s) {
    epoll_ctl(self->shadow_epoll, EPOLL_CTL_DEL, s->shadow_fd, NULL);
}

/* ---- addresses and control messages ---- */

/* An address of either family as 16 bytes; returns the port, and sets the scope. */
static uint16_t address_of(const struct sockaddr_storage *a, uint8_t *to, uint32_t *scope) {
    *scope = 0;
    if (a->ss_family == AF_INET6) {
        const struct sockaddr_in6 *a6 = (const void *)a;
        memcpy(to, &a6->sin6_addr, 16);
        *scope = a6->sin6_scope_id;
        return ntohs(a6->sin6_port);
    }
    const struct sockaddr_in *a4 = (const void *)a;
    xs_addr_map(to, (const void *)&a4->sin_addr);
    return ntohs(a4->sin_port);
}

/* What the kernel tells beside the payload: where it was sent to, when it came, and how many it had refused before. */
static void take_control(struct msghdr *h, struct xs_meta *m, struct xs_socket *s) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            xs_addr_map(m->dst, (const void *)&((struct in_pktinfo *)CMSG_DATA(c))->ipi_addr);
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            memcpy(m->dst, &((struct in6_pktinfo *)CMSG_DATA(c))->ipi6_addr, 16);
        } else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec t;
            memcpy(&t, CMSG_DATA(c), sizeof t);
            m->stamp_ns = xs_timespec_ns(t);
        } else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL) {
            uint32_t drops;
            memcpy(&drops, CMSG_DATA(c), sizeof drops);
            atomic_store_explicit(&s->drops_kernel, drops, memory_order_relaxed);
        }
    }
}

/* ---- datagrams ---- */

/* As many frames of the pool as the largest datagram needs, or if there are not so many, the next one; 0 when too few. */
static uint32_t take_frames(struct xs_udp *self, int fd, uint32_t *frame, struct iovec *iov) {
    const struct xs_mem *mem = self->mem;
    uint32_t size = 1u << mem->frame_shift, n = (PAYLOAD_MAX + size - 1) / size;
    if (self->pool->n < n) {
        int bytes = 0;
        if (ioctl(fd, FIONREAD, &bytes)) return 0;
        n = bytes ? ((uint32_t)bytes + size - 1) / size : 1;
        if (self->pool->n < n) return 0;
    }
    for (uint32_t i = 0; i < n; i++) {
        frame[i] = xs_pool_get(self->pool, mem);
        iov[i] = (struct iovec){.iov_base = xs_frame_data(mem, frame[i]), .iov_len = size};
    }
    return n;
}

/* Links the frames that `bytes` of payload are in, the first of them the packet's; gives the others back. */
static void link_frames(struct xs_udp *self, const uint32_t *frame, uint32_t n, uint32_t bytes) {
    struct xs_pkt *pkt = self->mem->pkt;
    uint32_t size = 1u << self->mem->frame_shift, used = bytes ? (bytes + size - 1) / size : 1;
    for (uint32_t i = n; i-- > used;) xs_pool_put(self->pool, self->mem, frame[i]);
    for (uint32_t i = 0; i < used; i++) {
        uint32_t left = bytes - i * size;
        pkt[frame[i]].len = (uint16_t)(left < size ? left : size);
        pkt[frame[i]].flags = i ? XS_PKT_TAIL : XS_PKT_SLOW;
        if (i + 1 < used) pkt[frame[i]].frag = frame[i + 1];
    }
    if (used > 1) pkt[frame[0]].flags |= XS_PKT_MULTI;
    pkt[frame[0]].pkt_len = bytes;
    pkt[frame[0]].payload_len = (uint16_t)bytes;
}

static void queue_slow(struct xs_udp *self, struct xs_batch *b, struct xs_socket *s, uint32_t frame) {
    const struct xs_pkt *p = &self->mem->pkt[frame];
    uint32_t cost = xs_truesize_slow(p->payload_len + XS_UDP_BYTES, p->flags & XS_PKT_IPV6);
    uint16_t why = xs_inbox_put(self->inbox, s, frame, cost);
    b->ledger->created++;
    b->count[XS_UDP_RX_SLOW]++;
    if (!why) {
        b->ledger->delivered++;
        b->count[XS_UDP_RX_BYTES] += p->payload_len;
        return;
    }
    int i = xs_release(b, frame, XS_DROP); /* there is room: READ_MAX is below the batch's capacity */
    b->reason[i] = why;
}

/* One datagram. False when there is none, or no frames to put it into: it waits in the kernel. */
static bool read_one(struct xs_udp *self, struct xs_batch *b, struct xs_socket *s) {
    uint32_t frame[FRAMES_MAX];
    struct iovec iov[FRAMES_MAX];
    struct sockaddr_storage from;
    union {
        struct cmsghdr align;
        uint8_t bytes[256];
    } control;
    uint32_t n = take_frames(self, s->shadow_fd, frame, iov);
    if (!n) {
        b->count[XS_UDP_RX_SLOW_POSTPONED]++;
        return false;
    }
    struct msghdr h = {.msg_name = &from,
                       .msg_namelen = sizeof from,
                       .msg_iov = iov,
                       .msg_iovlen = n,
                       .msg_control = &control,
                       .msg_controllen = sizeof control};
    ssize_t got = recvmsg(s->shadow_fd, &h, MSG_DONTWAIT);
    if (got < 0) {
        int error = errno;
        for (uint32_t i = n; i-- > 0;) xs_pool_put(self->pool, self->mem, frame[i]);
        return error != EAGAIN; /* a pending ICMP error: it is on the error queue as well */
    }
    link_frames(self, frame, n, (uint32_t)got);
    struct xs_pkt *p = &self->mem->pkt[frame[0]];
    struct xs_meta *m = &self->mem->meta[frame[0]];
    memset(m, 0, sizeof *m);
    memcpy(m->dst, s->address, 16);
    p->sport = address_of(&from, m->src, &m->scratch[0]);
    p->dport = s->port;
    p->device = XS_NO_DEVICE;
    if (!xs_addr_is_mapped(m->src)) p->flags |= XS_PKT_IPV6;
    take_control(&h, m, s);
    m->scratch[1] = xs_socket_drops(s);
    queue_slow(self, b, s, frame[0]);
    return true;
}

/* ---- errors ---- */

/* Does Linux tell a connected sender of it without IP_RECVERR? icmp_err_convert[].fatal, icmpv6_err_convert(). */
static bool is_hard(const struct sock_extended_err *e) {
    if (e->ee_origin == SO_EE_ORIGIN_ICMP6) {
        if (e->ee_type == ICMP6_DST_UNREACH) return e->ee_code != 0 && e->ee_code != 2 && e->ee_code != 3;
        return e->ee_type == ICMP6_PACKET_TOO_BIG || e->ee_type == ICMP6_PARAM_PROB;
    }
    if (e->ee_origin != SO_EE_ORIGIN_ICMP) return false;
    if (e->ee_type != ICMP_DEST_UNREACH) return e->ee_type == ICMP_PARAMETERPROB;
    /* net and host unreachable (also for the type of service) and source route failed pass */
    return e->ee_code <= NR_ICMP_UNREACH &&
           !((1u << e->ee_code) & (1u << 0 | 1u << 1 | 1u << 5 | 1u << 11 | 1u << 12));
}

static void note_error(struct xs_udp *self, uint64_t now_ns, struct xs_socket *s,
                       const struct sock_extended_err *e, const struct sockaddr_storage *to) {
    struct xs_socket_error_ring *r = &s->errors;
    uint8_t dst[16];
    uint32_t scope;
    uint16_t port = address_of(to, dst, &scope);
    if (e->ee_errno == EMSGSIZE && e->ee_info && e->ee_origin != SO_EE_ORIGIN_LOCAL)
        xs_path_mtu_learn(self->paths, xs_addr_load(dst), e->ee_info, now_ns);
    uint32_t at = atomic_load_explicit(&r->producer, memory_order_relaxed);
    if (at - atomic_load_explicit(&r->consumer, memory_order_acquire) == XS_SOCKET_ERRORS) {
        atomic_fetch_add_explicit(&r->lost, 1, memory_order_relaxed);
    } else {
        struct xs_socket_error *out = &r->slot[at % XS_SOCKET_ERRORS];
        const struct sockaddr_storage *offender = (const void *)SO_EE_OFFENDER(e);
        *out = (struct xs_socket_error){.error = (int)e->ee_errno,
                                        .origin = e->ee_origin,
                                        .type = e->ee_type,
                                        .code = e->ee_code,
                                        .info = e->ee_info,
                                        .port = port};
        memcpy(out->destination, dst, sizeof dst);
        if (offender->ss_family == AF_INET || offender->ss_family == AF_INET6) {
            out->family = offender->ss_family == AF_INET ? 4 : 6;
            address_of(offender, out->offender, &scope);
        }
        atomic_store_explicit(&r->producer, at + 1, memory_order_release);
    }
    uint32_t flags = atomic_load_explicit(&s->flags, memory_order_relaxed);
    uint32_t asked = xs_addr_is_mapped(dst) ? XS_SOCKET_RECVERR : XS_SOCKET_RECVERR_6;
    if (e->ee_origin == SO_EE_ORIGIN_LOCAL) return; /* the call that sent it has said so: ip_local_error() */
    if (!(flags & asked) && !(flags & XS_SOCKET_CONNECTED && is_hard(e))) return;
    atomic_store_explicit(&s->error, (int)e->ee_errno, memory_order_release);
    xs_socket_wake(s);
}

static void read_errors(struct xs_udp *self, struct xs_batch *b, struct xs_socket *s) {
    for (uint32_t i = 0; i < XS_SOCKET_ERRORS; i++) {
        uint8_t ignored[8];
        struct sockaddr_storage to;
        union {
            struct cmsghdr align;
            uint8_t bytes[512];
        } control;
        struct iovec iov = {.iov_base = ignored, .iov_len = sizeof ignored};
        struct msghdr h = {.msg_name = &to,
                           .msg_namelen = sizeof to,
                           .msg_iov = &iov,
                           .msg_iovlen = 1,
                           .msg_control = &control,
                           .msg_controllen = sizeof control};
        if (recvmsg(s->shadow_fd, &h, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) break;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&h); c; c = CMSG_NXTHDR(&h, c)) {
            if ((c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR) ||
                (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR)) {
                note_error(self, b->now_ns, s, (const void *)CMSG_DATA(c), &to);
                b->count[XS_UDP_RX_ICMP_ERRORS]++;
            }
        }
    }
    int pending;
    socklen_t size = sizeof pending;
    getsockopt(s->shadow_fd, SOL_SOCKET, SO_ERROR, &pending,
               &size); /* told by its entry on the queue; forget it */
}

/* ---- the tick ---- */

static uint32_t read_some(struct xs_udp *self, struct xs_batch *b, struct xs_socket *s, uint32_t most) {
    uint32_t n = 0;
    while (n < most && read_one(self, b, s)) n++;
    return n;
}

void xs_udp_shadow_tick(struct xs_udp *self, struct xs_batch *b) {
    bool idle = !self->busy;
    self->busy = false;
    if (self->shadow_epoll < 0 || (!idle && b->now_ns - self->looked_ns < LOOK_NS)) return;
    self->looked_ns = b->now_ns;
    struct epoll_event ready[READY_MAX];
    int n = epoll_wait(self->shadow_epoll, ready, READY_MAX, 0);
    uint32_t total = 0;
    for (int i = 0; i < n; i++) {
        struct xs_socket *s = ready[i].data.ptr;
        if (ready[i].events & EPOLLERR) read_errors(self, b, s);
        uint32_t most = READ_MAX - total < READ_EACH ? READ_MAX - total : READ_EACH;
        if (ready[i].events & EPOLLIN) total += read_some(self, b, s, most);
    }
}

void xs_udp_shadow_close(struct xs_udp *self) {
    if (self->shadow_epoll >= 0) close(self->shadow_epoll);
    self->shadow_epoll = -1;
}
