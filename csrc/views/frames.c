/* Sending whole frames: they walk from where tc's egress is to the ring, untouched. See views.h. */
#include "views/views.h"

#include <errno.h>

#include "worker_send.h"

struct sending {
    struct xs_worker *worker;
    const Py_buffer *data;
    uint32_t n, taken;
    uint8_t device;
    bool down;
    uint64_t stamp_id;
};

/* As the one who drives the worker, with the GIL or without. */
static void walk_out(void *argument) {
    struct sending *a = argument;
    struct xs_worker *w = a->worker;
    a->down = w->frames_tx_entry == XS_EDGE_NONE;
    if (a->down) return;
    uint32_t room = xs_make_room(w, a->device), taken = 0;
    struct xs_batch *b = xs_walk_begin(&w->walk, xs_stack_now_ns(w->stack));
    for (; taken < a->n && taken < room; taken++) {
        const Py_buffer *data = &a->data[taken];
        uint32_t frame = xs_make_packet(w, data->buf, (uint32_t)data->len, a->device);
        if (frame == XS_NO_FRAME) break;
        if (a->stamp_id) w->stack->mem.meta[frame].stamp_ns = a->stamp_id + taken;
        b->frame[b->n++] = frame;
    }
    b->ledger->created += taken;
    if (taken) xs_walk_run(&w->walk, w->frames_tx_entry);
    xs_worker_finish(w);
    a->taken = taken;
}

/* Walks up to XS_WEIGHT frames; how many were taken, 0 when there are no frames or no room. -1 with an exception. */
static int transmit(struct socket_view *v, struct xs_worker *w, const Py_buffer *data, uint32_t n,
                    uint8_t device, uint64_t stamp_id) {
    struct sending a = {.worker = w, .data = data, .n = n, .device = device, .stamp_id = stamp_id};
    if (likely(xs_worker_enter(w))) {
        walk_out(&a);
        xs_worker_leave(w);
    } else if (!views_wait_and_do(v, w, walk_out, &a)) {
        return -1;
    }
    if (!a.down) return (int)a.taken;
    errno = ENETDOWN;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

static bool sound(const struct xs_mem *mem, const struct xs_xsk *x, const Py_buffer *data) {
    int rc = xs_sendable(mem, x->frags_max, (uint64_t)data->len);
    if (rc == -EINVAL)
        PyErr_Format(PyExc_ValueError, "a frame of %zd bytes has no Ethernet header", data->len);
    else if (rc) {
        errno = -rc;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return !rc;
}

/* send_frames(frames: list, start, device[, stamp id]): frames from index `start` on, one walk's worth. How many were taken; 0 = it would
 * block. Frames go by the worker that has a queue of the device. */
PyObject *views_send_frames(PyObject *self, PyObject *const *args, Py_ssize_t n) {
    struct socket_view *v = (struct socket_view *)self;
    if (!views_socket(v)) return NULL;
    if ((n != 3 && n != 4) || !PyList_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "takes a list of frames, the index to start at, and a device");
        return NULL;
    }
    Py_ssize_t start = PyLong_AsSsize_t(args[1]);
    long device = PyLong_AsLong(args[2]);
    uint64_t stamp_id = n == 4 ? PyLong_AsUnsignedLongLong(args[3]) : 0;
    if (PyErr_Occurred()) return NULL;
    struct xs_worker *w = NULL;
    struct xs_xsk *x = NULL;
    for (uint32_t i = 0; i < v->stack->nworkers && !x; i++) {
        w = v->stack->worker[i];
        x = xs_queue_of(w, (uint32_t)device);
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
        if (good && !sound(&v->stack->mem, x, &data[held])) {
            PyBuffer_Release(&data[held]);
            good = false;
        }
    }
    int taken = good ? transmit(v, w, data, want, (uint8_t)device, stamp_id) : -1;
    for (uint32_t i = 0; i < held; i++) PyBuffer_Release(&data[i]);
    return taken < 0 ? NULL : PyLong_FromLong(taken);
}
