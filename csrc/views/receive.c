/* Taking datagrams off a socket's receive queue: what udp.rx and udp_tick.c have put there, one at a time for recvfrom(), many
 * for recv_batch() (batch.c). */
#include "views/views.h"

#include <errno.h>
#include <string.h>

#include "wire/addr.h"

/* ---- the queue ---- */

/* The datagrams in `frames` were taken: they are lent. What they were charged goes back as
 * udp_rmem_release() gives it back (semantics.ReceiveQueue.take()): in lumps, when it is a quarter of the receive buffer, or when
 * all is read that was there when the reader last looked. Whenever it does, what has come since is taken over: it counts as
 * the reader's, as after skb_queue_splice_tail_init(). */
static void taken(struct xs_socket *s, struct xs_spsc *ring, const struct xs_mem *mem, const uint32_t *frames,
                  uint32_t n) {
    struct xs_pkt *pkts = mem->pkt;
    uint64_t lump = atomic_load_explicit(&s->rcvbuf, memory_order_relaxed) >> 2, deficit = s->deficit,
             released = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct xs_pkt *p = &pkts[frames[i]];
        deficit += p->truesize;
        p->owner = XS_LENT;
        for (uint32_t f = p->frag; unlikely(f != XS_NO_FRAME); f = pkts[f].frag) pkts[f].owner = XS_LENT;
        if (likely(deficit < lump)) continue;
        released += deficit;
        deficit = 0;
        ring->seen_prod = atomic_load_explicit(&ring->producer, memory_order_acquire);
    }
    if (deficit && !xs_spsc_seen(ring)) {
        released += deficit;
        deficit = 0;
        ring->seen_prod = atomic_load_explicit(&ring->producer, memory_order_acquire);
    }
    s->deficit = deficit;
    if (!released) return;
    released += atomic_load_explicit(&s->released, memory_order_relaxed);
    atomic_store_explicit(&s->released, released, memory_order_release);
}

/* RFS: who reads these flows, and how far he is. */
static void note_flows(struct xs_rfs *rfs, const struct xs_mem *mem, const uint32_t *frames, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        const struct xs_pkt *p = &mem->pkt[frames[i]];
        if (p->hash && !(p->flags & XS_PKT_SLOW)) xs_rfs_record(rfs, p->hash, mem->meta[frames[i]].steered);
    }
}

/* Up to `most` packets, oldest first; of several feeding workers, each in turn. */
uint32_t views_take(struct socket_view *v, uint32_t *frames, uint32_t most) {
    struct xs_socket *s = v->socket;
    uint32_t n = 0;
    for (uint32_t k = 0; k < s->nfeeds && n < most; k++) {
        struct xs_spsc *ring = xs_feed_ring(&s->feed[s->next_feed]);
        uint32_t got;
        do {
            uint32_t seen = xs_spsc_seen(ring), want = seen && seen < most - n ? seen : most - n;
            got = xs_spsc_pop(ring, frames + n, want);
            taken(s, ring, &v->stack->mem, frames + n, got);
            n += got;
        } while (got && n < most);
        if (++s->next_feed == s->nfeeds) s->next_feed = 0;
    }
    struct xs_rfs *rfs = atomic_load_explicit(&v->stack->rfs, memory_order_acquire);
    if (unlikely(rfs)) note_flows(rfs, &v->stack->mem, frames, n);
    return n;
}

static uint32_t take_one(struct socket_view *v) {
    uint32_t frame;
    return views_take(v, &frame, 1) ? frame : XS_NO_FRAME;
}

static void count_taken(struct xs_stack *stack, uint8_t worker, uint64_t frames) {
    struct xs_inbox *inbox = &stack->worker[worker]->inbox;
    uint64_t before = atomic_load_explicit(&inbox->frames_taken, memory_order_relaxed);
    atomic_store_explicit(&inbox->frames_taken, before + frames, memory_order_relaxed);
}

/* Packets go home, and the workers that queued them may queue others in their place. */
void views_give_back(struct xs_stack *stack, const uint32_t *frames, uint32_t n) {
    const struct xs_mem *mem = &stack->mem;
    struct xs_pool *any = &stack->worker[0]->pool;
    if (stack->nworkers == 1) {
        count_taken(stack, 0, xs_pool_return(any, mem, frames, n));
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (frames[i] == XS_NO_FRAME) continue;
        uint8_t worker = mem->pkt[frames[i]].owner_device;
        count_taken(stack, worker, xs_pool_return(any, mem, &frames[i], 1));
    }
}

/* The next datagram; XS_NO_FRAME with no exception when there is none, or with one: an ICMP error, closed, forked. */
uint32_t views_next(struct socket_view *v) {
    struct xs_socket *s = views_socket(v);
    if (!s) return XS_NO_FRAME;
    if (unlikely(atomic_load_explicit(&s->error, memory_order_relaxed))) {
        errno = xs_socket_take_error(s);
        if (errno) {
            PyErr_SetFromErrno(PyExc_OSError);
            return XS_NO_FRAME;
        }
    }
    uint32_t frame = take_one(v);
    if (frame == XS_NO_FRAME && atomic_load_explicit(&s->exported, memory_order_relaxed) && xs_socket_arm(s))
        frame = take_one(v);
    return frame;
}

/* ---- what a packet says ---- */

static void address_at(const struct xs_mem *mem, uint32_t frame, bool peer, uint8_t *to) {
    const struct xs_pkt *p = &mem->pkt[frame];
    if (p->flags & XS_PKT_SLOW) {
        memcpy(to, peer ? mem->meta[frame].src : mem->meta[frame].dst, 16);
        return;
    }
    const uint8_t *ip = xs_frame_data(mem, frame) + p->l3_off;
    if (p->flags & XS_PKT_IPV6)
        memcpy(to, ip + (peer ? 8 : 24), 16);
    else
        xs_addr_map(to, ip + (peer ? 12 : 16));
}

void views_peer_of(const struct xs_mem *mem, uint32_t frame, uint8_t address[16], uint16_t *port,
                   uint32_t *scope) {
    address_at(mem, frame, true, address);
    *port = mem->pkt[frame].sport;
    bool link_local = address[0] == 0xfe && (address[1] & 0xc0) == 0x80;
    *scope = link_local ? mem->meta[frame].scratch[0] : 0;
}

void views_our_address(const struct xs_mem *mem, uint32_t frame, uint8_t address[16]) {
    address_at(mem, frame, false, address);
}

void views_copy_payload(const struct xs_mem *mem, uint32_t frame, uint8_t *to, uint32_t bytes) {
    uint32_t off = mem->pkt[frame].payload_off;
    while (bytes) {
        const struct xs_pkt *p = &mem->pkt[frame];
        uint32_t here = (uint32_t)p->data_off + p->len - off;
        if (here > bytes) here = bytes;
        memcpy(to, xs_frame_data(mem, frame) + off, here);
        to += here;
        bytes -= here;
        frame = p->frag;
        if (bytes) off = mem->pkt[frame].data_off;
    }
}

/* ---- methods: None when there is nothing to read ---- */

static PyObject *nothing(void) {
    if (PyErr_Occurred()) return NULL;
    Py_INCREF(Py_None);
    return Py_None;
}

static PyObject *peer_object(struct socket_view *v, uint32_t frame) {
    uint8_t address[16];
    uint16_t port;
    uint32_t scope;
    views_peer_of(&v->stack->mem, frame, address, &port, &scope);
    return views_address(&v->from, v->socket->family, address, port, scope);
}

static PyObject *payload_bytes(const struct xs_mem *mem, uint32_t frame, Py_ssize_t most) {
    uint32_t n = mem->pkt[frame].payload_len;
    if (n > most) n = (uint32_t)most; /* the rest of the datagram is discarded, as recvfrom(2) does */
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, n);
    if (bytes) views_copy_payload(mem, frame, (uint8_t *)PyBytes_AsString(bytes), n);
    return bytes;
}

static int buffer_size(PyObject *const *args, Py_ssize_t n, Py_ssize_t *size) {
    *size = n > 0 ? PyLong_AsSsize_t(args[0]) : -1;
    if (n != 1) PyErr_SetString(PyExc_TypeError, "takes one argument: the size of the buffer");
    if (PyErr_Occurred()) return -1;
    if (*size >= 0) return 0;
    PyErr_SetString(PyExc_ValueError, "negative buffersize");
    return -1;
}

PyObject *views_recv(PyObject *self, PyObject *const *args, Py_ssize_t n) {
    struct socket_view *v = (struct socket_view *)self;
    Py_ssize_t size;
    if (buffer_size(args, n, &size)) return NULL;
    uint32_t frame = views_next(v);
    if (frame == XS_NO_FRAME) return nothing();
    PyObject *bytes = payload_bytes(&v->stack->mem, frame, size);
    views_give_back(v->stack, &frame, 1);
    return bytes;
}

PyObject *views_recvfrom(PyObject *self, PyObject *const *args, Py_ssize_t n) {
    struct socket_view *v = (struct socket_view *)self;
    Py_ssize_t size;
    if (buffer_size(args, n, &size)) return NULL;
    uint32_t frame = views_next(v);
    if (frame == XS_NO_FRAME) return nothing();
    PyObject *bytes = payload_bytes(&v->stack->mem, frame, size);
    PyObject *peer = bytes ? peer_object(v, frame) : NULL;
    views_give_back(v->stack, &frame, 1);
    PyObject *pair = peer ? PyTuple_New(2) : NULL;
    if (!pair) {
        Py_XDECREF(bytes);
        Py_XDECREF(peer);
        return NULL;
    }
    PyTuple_SetItem(pair, 0, bytes);
    PyTuple_SetItem(pair, 1, peer);
    return pair;
}

PyObject *views_recvfrom_into(PyObject *self, PyObject *const *args, Py_ssize_t n) {
    struct socket_view *v = (struct socket_view *)self;
    Py_ssize_t size = n > 1 ? PyLong_AsSsize_t(args[1]) : 0;
    if (PyErr_Occurred()) return NULL;
    Py_buffer room;
    if (n < 1 || n > 2) {
        PyErr_SetString(PyExc_TypeError, "takes a buffer and, if not all of it is for the datagram, a size");
        return NULL;
    }
    if (PyObject_GetBuffer(args[0], &room, PyBUF_WRITABLE)) return NULL;
    PyObject *result = NULL;
    if (size < 0 || size > room.len) {
        PyErr_SetString(PyExc_ValueError,
                        size < 0 ? "negative buffersize" : "nbytes is greater than the length of the buffer");
    } else {
        if (!size) size = room.len;
        uint32_t frame = views_next(v);
        if (frame == XS_NO_FRAME) {
            result = nothing();
        } else {
            const struct xs_mem *mem = &v->stack->mem;
            uint32_t bytes = mem->pkt[frame].payload_len;
            if (bytes > size) bytes = (uint32_t)size;
            views_copy_payload(mem, frame, room.buf, bytes);
            PyObject *peer = peer_object(v, frame);
            views_give_back(v->stack, &frame, 1);
            if (peer) result = Py_BuildValue("(nN)", (Py_ssize_t)bytes, peer);
        }
    }
    PyBuffer_Release(&room);
    return result;
}

/* Ends what is queued: how many datagrams nobody will read. For a socket that no worker feeds any more. */
PyObject *views_drain(PyObject *self, PyObject *unused) {
    struct socket_view *v = (struct socket_view *)self;
    unsigned long n = 0;
    if (!v->socket) return PyLong_FromUnsignedLong(0);
    for (uint32_t frame; (frame = take_one(v)) != XS_NO_FRAME; n++) views_give_back(v->stack, &frame, 1);
    return PyLong_FromUnsignedLong(n);
}
