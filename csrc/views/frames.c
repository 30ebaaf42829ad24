/* Sending whole frames: they walk from where tc's egress is to the ring, untouched. See views.h. */
#include "views/views.h"

#include <errno.h>
#include <string.h>

#define HEADROOM 128u /* a stage on the way may put a tag before the frame */
#define ETH_BYTES 14

/* One frame of the user's into frames of ours: the first, and as many further ones as it takes. */
static uint32_t make(struct xs_worker *w, const Py_buffer *data, uint8_t device) {
    const struct xs_mem *mem = w->walk.mem;
    uint32_t size = 1u << mem->frame_shift, head = XS_NO_FRAME, tail = XS_NO_FRAME;
    for (Py_ssize_t at = 0; at < data->len;) {
        uint32_t frame = xs_pool_get(&w->pool, mem);
        if (frame == XS_NO_FRAME) {
            xs_pool_put_packet(&w->pool, mem, head);
            return frame;
        }
        struct xs_pkt *p = &mem->pkt[frame];
        uint32_t room = size - HEADROOM, bytes = data->len - at < room ? (uint32_t)(data->len - at) : room;
        p->data_off = HEADROOM;
        p->len = (uint16_t)bytes;
        p->device = device;
        memcpy(xs_frame_data(mem, frame) + HEADROOM, (const char *)data->buf + at, bytes);
        at += bytes;
        if (head == XS_NO_FRAME) {
            head = frame;
            p->pkt_len = (uint32_t)data->len;
            p->l3_off = HEADROOM + ETH_BYTES;
            p->pkt_type = XS_PACKET_OUTGOING;
            memset(&mem->meta[frame], 0, sizeof mem->meta[frame]);
        } else {
            p->flags |= XS_PKT_TAIL;
            mem->pkt[tail].frag = frame;
            mem->pkt[head].flags |= XS_PKT_MULTI;
        }
        tail = frame;
    }
    return head;
}

/* The worker's queue of a device, or NULL. */
static struct xs_xsk *queue_of(const struct xs_worker *w, long device) {
    for (uint32_t port = 0; port < w->napi.nports; port++) {
        struct xs_xsk *x = w->napi.port[port].xsk;
        if (x && !x->dead && x->device == device) return x;
    }
    return NULL;
}

/* Walks up to XS_WEIGHT frames; how many were taken, 0 when there are no frames or no room. -1 with an exception. */
static int transmit(struct socket_view *v, struct xs_worker *w, const Py_buffer *data, uint32_t n,
                    uint8_t device) {
    if (!views_enter(v, w)) return -1;
    if (w->frames_tx_entry == XS_EDGE_NONE) {
        xs_worker_leave(w);
        errno = ENETDOWN;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    xs_pool_drain(&w->pool);
    for (uint32_t port = 0; port < w->napi.nports; port++)
        if (w->napi.port[port].xsk) xs_napi_complete(&w->napi, port);
    uint32_t room = xs_napi_tx_room(&w->napi, device), taken = 0;
    struct xs_batch *b = xs_walk_begin(&w->walk, xs_stack_now_ns(v->stack));
    for (; taken < n && taken < room; taken++) {
        uint32_t frame = make(w, &data[taken], device);
        if (frame == XS_NO_FRAME) break;
        b->frame[b->n++] = frame;
    }
    b->ledger->created += taken;
    if (taken) xs_walk_run(&w->walk, w->frames_tx_entry);
    xs_worker_finish(w);
    xs_worker_leave(w);
    return (int)taken;
}

static bool sound(const Py_buffer *data, uint32_t frame_bytes, bool multi) {
    if (data->len < ETH_BYTES) {
        PyErr_Format(PyExc_ValueError, "a frame of %zd bytes has no Ethernet header", data->len);
        return false;
    }
    uint32_t most = multi ? XS_FRAGS_MAX * (frame_bytes - HEADROOM) : frame_bytes - HEADROOM;
    if (data->len <= (Py_ssize_t)most) return true;
    errno = EMSGSIZE;
    PyErr_SetFromErrno(PyExc_OSError);
    return false;
}

/* send_frames(frames: list, start, device): frames from index `start` on, one walk's worth. How many were taken; 0 = it would
 * block. Frames go by the worker that has a queue of the device. */
PyObject *views_send_frames(PyObject *self, PyObject *const *args, Py_ssize_t n) {
    struct socket_view *v = (struct socket_view *)self;
    if (!views_socket(v)) return NULL;
    if (n != 3 || !PyList_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "takes a list of frames, the index to start at, and a device");
        return NULL;
    }
    Py_ssize_t start = PyLong_AsSsize_t(args[1]);
    long device = PyLong_AsLong(args[2]);
    if (PyErr_Occurred()) return NULL;
    struct xs_worker *w = NULL;
    struct xs_xsk *x = NULL;
    for (uint32_t i = 0; i < v->stack->nworkers && !x; i++) {
        w = v->stack->worker[i];
        x = queue_of(w, device);
    }
    if (!x) {
        errno = ENETDOWN;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_ssize_t left = PyList_Size(args[0]) - start;
    uint32_t want = left < 0 ? 0 : left > (Py_ssize_t)XS_WEIGHT ? XS_WEIGHT : (uint32_t)left, held = 0;
    Py_buffer data[XS_WEIGHT];
    bool good = true;
    for (; good && held < want; held += good) {
        good = !PyObject_GetBuffer(PyList_GetItem(args[0], start + held), &data[held], PyBUF_SIMPLE);
        if (good && !sound(&data[held], 1u << v->stack->mem.frame_shift, x->multi)) {
            PyBuffer_Release(&data[held]);
            good = false;
        }
    }
    int taken = good ? transmit(v, w, data, want, (uint8_t)device) : -1;
    for (uint32_t i = 0; i < held; i++) PyBuffer_Release(&data[i]);
    return taken < 0 ? NULL : PyLong_FromLong(taken);
}
