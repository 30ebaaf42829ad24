/* Socket: the view of one socket. Its methods keep the GIL and do not block, but for senders that have to wait for the worker. */
#include "views/views.h"

#include <sched.h>
#include <string.h>

#include "ffi/10_core.cdef.h"

#define TRIES 64u /* to become the one who drives, before other Python threads get a turn */

PyTypeObject *views_socket_type;

/* Socket(socket, stack, keep): addresses of the two C structures as integers, and what keeps their memory mapped. */
static PyObject *socket_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    unsigned long long socket, stack;
    PyObject *keep;
    if (!PyArg_ParseTuple(args, "KKO", &socket, &stack, &keep)) return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct socket_view *v = (struct socket_view *)allocate(type, 0);
    if (!v) return NULL;
    v->socket = (struct xs_socket *)(uintptr_t)socket;
    v->stack = (struct xs_stack *)(uintptr_t)stack;
    v->forks = views_forks;
    v->tx_device = XS_NO_DEVICE;
    Py_INCREF(keep);
    v->keep = keep;
    return (PyObject *)v;
}

static void socket_dealloc(PyObject *self) {
    struct socket_view *v = (struct socket_view *)self;
    PyTypeObject *type = Py_TYPE(self);
    views_forget(&v->from);
    views_forget(&v->to);
    Py_XDECREF(v->keep);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

/* Every later call raises. The C socket is the caller's to free, once nothing feeds it. */
static PyObject *socket_close(PyObject *self, PyObject *unused) {
    ((struct socket_view *)self)->socket = NULL;
    Py_RETURN_NONE;
}

bool views_enter(struct socket_view *v, struct xs_worker *w) {
    if (xs_worker_enter(w)) return true;
    while (views_socket(v)) {
        bool ours = false;
        xs_worker_want(w); /* not while we wait for the GIL: its thread would wait for it too */
        for (uint32_t i = 0; i < TRIES && !(ours = xs_worker_enter(w)); i++) sched_yield();
        xs_worker_unwant(w);
        if (ours) return true;
        Py_BEGIN_ALLOW_THREADS;
        sched_yield();
        Py_END_ALLOW_THREADS;
    }
    return false;
}

bool views_wait_and_do(struct socket_view *v, struct xs_worker *w, void (*work)(void *), void *argument) {
    bool open;
    Py_BEGIN_ALLOW_THREADS;
    xs_worker_hold(w);
    open = __atomic_load_n(&v->socket, __ATOMIC_RELAXED); /* its memory stays for as long as the view */
    if (open) work(argument);
    xs_worker_unhold(w);
    Py_END_ALLOW_THREADS;
    return open || views_socket(v);
}

/* Queues for another receive buffer. A feed's worker is ours while it is changed, and having the GIL we are its reader. */
static PyObject *socket_set_rcvbuf(PyObject *self, PyObject *number) {
    struct socket_view *v = (struct socket_view *)self;
    struct xs_socket *s = views_socket(v);
    unsigned long bytes = s ? PyLong_AsUnsignedLong(number) : 0;
    if (PyErr_Occurred()) return NULL;
    if (bytes > INT32_MAX) bytes = INT32_MAX;
    for (uint32_t i = 0; i < s->nfeeds; i++) {
        struct xs_worker *w = v->stack->worker[i];
        if (!views_enter(v, w)) return NULL;
        int rc = xs_feed_resize(&s->feed[i], (uint32_t)bytes, v->stack->frames_per_worker);
        xs_worker_leave(w);
        if (rc) return PyErr_NoMemory();
    }
    Py_RETURN_NONE;
}

/* From now on each datagram that is queued gets the marks that these flags ask for (XS_SOCKET_MARKS). What is on the queue has
 * none of them: its frames may still say what they were used for before. So nobody reads marks until all is marked. */
static PyObject *socket_mark(PyObject *self, PyObject *number) {
    struct socket_view *v = (struct socket_view *)self;
    struct xs_socket *s = views_socket(v);
    unsigned long flags = s ? PyLong_AsUnsignedLong(number) : 0;
    if (PyErr_Occurred()) return NULL;
    v->marked &= ~(uint32_t)flags;
    for (uint32_t i = 0; i < s->nfeeds; i++) {
        struct xs_worker *w = v->stack->worker[i];
        if (!views_enter(v, w)) return NULL;
        xs_socket_set_flags(s, (uint32_t)flags & XS_SOCKET_MARKS, 0);
        struct xs_spsc *ring = xs_feed_ring(&s->feed[i]);
        uint32_t at = atomic_load_explicit(&ring->consumer, memory_order_relaxed);
        for (; at != ring->prod; at++) {
            struct xs_meta *m = &v->stack->mem.meta[ring->slot[at & ring->mask]];
            if (flags & XS_SOCKET_STAMP) m->stamp_ns = 0;
            if (flags & XS_SOCKET_RXQ_OVFL) m->scratch[1] = 0;
        }
        xs_worker_leave(w);
    }
    v->marked |= (uint32_t)flags & XS_SOCKET_MARKS;
    Py_RETURN_NONE;
}

static PyObject *socket_slow_sent(PyObject *self, void *unused) {
    return PyLong_FromUnsignedLongLong(((struct socket_view *)self)->slow);
}

static PyObject *socket_parked(PyObject *self, void *unused) {
    return PyBool_FromLong(((struct socket_view *)self)->parked);
}

/* After a call that sent and left packets with Python: the frame of each datagram that is among them, else None. */
static PyObject *socket_under_way(PyObject *self, void *unused) {
    const struct socket_view *v = (const struct socket_view *)self;
    const uint32_t n =
        *(const volatile uint32_t *)&v->nsent; /* who waits without the GIL may be sending just now */
    PyObject *list = PyList_New(n);
    for (uint32_t i = 0; list && i < n; i++) {
        PyObject *frame =
            v->under_way[i] == XS_NO_FRAME ? Py_NewRef(Py_None) : PyLong_FromUnsignedLong(v->under_way[i]);
        if (frame && !PyList_SetItem(list, i, frame)) continue;
        Py_CLEAR(list);
    }
    return list;
}

/* By which device the last packet left, once Python has found that out. */
static int socket_set_tx_device(PyObject *self, PyObject *number, void *unused) {
    unsigned long device = number ? PyLong_AsUnsignedLong(number) : XS_NO_DEVICE;
    if (PyErr_Occurred()) return -1;
    ((struct socket_view *)self)->tx_device = (uint32_t)device;
    return 0;
}

static PyObject *socket_tx_device(PyObject *self, void *unused) {
    return PyLong_FromUnsignedLong(((struct socket_view *)self)->tx_device);
}

#define FAST(name, function) \
    { name, (PyCFunction)(void (*)(void))function, METH_FASTCALL, NULL }
static PyMethodDef methods[] = {
    FAST("recv", views_recv),
    FAST("recvfrom", views_recvfrom),
    FAST("recvfrom_into", views_recvfrom_into),
    FAST("recv_batch", views_recv_batch),
    FAST("sendto", views_sendto),
    FAST("send_batch", views_send_batch),
    FAST("send_frames", views_send_frames),
    {"drain", views_drain, METH_NOARGS, NULL},
    {"close", socket_close, METH_NOARGS, NULL},
    {"set_rcvbuf", socket_set_rcvbuf, METH_O, NULL},
    {"mark", socket_mark, METH_O, NULL},
    {0},
};

static PyGetSetDef properties[] = {{"slow_sent", socket_slow_sent, NULL, NULL, NULL},
                                   {"parked", socket_parked, NULL, NULL, NULL},
                                   {"under_way", socket_under_way, NULL, NULL, NULL},
                                   {"tx_device", socket_tx_device, socket_set_tx_device, NULL, NULL},
                                   {0}};

static PyType_Slot slots[] = {
    {Py_tp_new, socket_new},
    {Py_tp_dealloc, socket_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {0},
};

static PyType_Spec spec = {
    .name = "xdpstack.native._views.Socket",
    .basicsize = sizeof(struct socket_view),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

int views_make_socket_type(PyObject *module) {
    views_socket_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    if (!views_socket_type) return -1;
    return PyModule_AddObjectRef(module, "Socket", (PyObject *)views_socket_type);
}
