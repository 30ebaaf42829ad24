/* Batch: datagrams taken off a queue at once. Their frames are lent until release(), or until the last view of each dies. */
#include "views/views.h"

#include <stdlib.h>
#include <string.h>

#include "wire/partial.h"

#define MOST 1024u /* datagrams taken at once */

PyTypeObject *views_batch_type;

static struct batch *new_batch(struct socket_view *v, uint32_t n) {
    struct batch *b = PyObject_New(struct batch, views_batch_type);
    if (!b) return NULL;
    /* one block, widest first, so that every column is aligned */
    uint8_t *block = malloc((size_t)n * (2 * 8 + 16 + 16 + 8 * 4 + 2 + 1 + 1 + 1) + 1);
    b->stamp = (uint64_t *)block;
    b->device_stamp = b->stamp + n;
    b->source = block + 2 * 8 * (size_t)n;
    b->destination = b->source + 16 * (size_t)n;
    b->frame = (uint32_t *)(b->destination + 16 * (size_t)n);
    b->views = b->frame + n;
    b->length = b->views + n;
    b->scope = b->length + n;
    b->drops = b->scope + n;
    b->hash = b->drops + n;
    b->hash_type = b->hash + n;
    b->vlan = (int32_t *)(b->hash_type + n);
    b->port = (uint16_t *)(b->vlan + n);
    b->slow = (uint8_t *)(b->port + n);
    b->device = b->slow + n;
    b->partial = b->device + n;
    b->partial_known = 0;
    b->n = b->nviews = 0;
    b->released = b->all_home = b->described = b->viewed = 0;
    b->family = v->socket->family;
    b->marks = (uint8_t)(xs_socket_flags(v->socket) & v->marked);
    b->stack = v->stack;
    b->forks = v->forks;
    b->keep = v->keep;
    Py_INCREF(b->keep);
    if (block) return b;
    Py_DECREF(b);
    PyErr_NoMemory();
    return NULL;
}

/* What the device has said of a frame; one that came through a shadow socket has been by none of ours. */
static void describe_hints(struct batch *b, uint32_t i, const struct xs_pkt *p, const struct xs_meta *m) {
    uint32_t hints = b->stack->hints && !(p->flags & XS_PKT_SLOW) ? m->hints : 0;
    b->device_stamp[i] = hints & XS_HINT_TIMESTAMP ? m->device_ns : 0;
    b->hash[i] = hints & XS_HINT_HASH ? p->hash : 0;
    b->hash_type[i] = hints & XS_HINT_HASH ? m->hash_type : 0;
    b->vlan[i] = p->flags & XS_PKT_VLAN ? m->vlan_tci : -1;
}

void views_describe(struct batch *b) {
    const struct xs_mem *mem = &b->stack->mem;
    if (b->described) return;
    b->described = 1;
    for (uint32_t i = 0; i < b->n; i++) {
        uint32_t frame = b->frame[i];
        const struct xs_pkt *p = &mem->pkt[frame];
        b->length[i] = p->payload_len;
        b->slow[i] = (p->flags & XS_PKT_SLOW) != 0;
        b->stamp[i] = b->marks & XS_SOCKET_STAMP ? mem->meta[frame].stamp_ns : 0;
        b->drops[i] = b->marks & XS_SOCKET_RXQ_OVFL ? mem->meta[frame].scratch[1] : 0;
        b->device[i] = p->device;
        describe_hints(b, i, p, &mem->meta[frame]);
        if (b->family) {
            views_peer_of(mem, frame, b->source + 16 * i, &b->port[i], &b->scope[i]);
            views_our_address(mem, frame, b->destination + 16 * i);
        } else { /* whole frames */
            memset(b->source + 16 * i, 0, 16);
            memset(b->destination + 16 * i, 0, 16);
            b->port[i] = 0;
            b->scope[i] = 0;
        }
    }
}

PyObject *views_recv_batch(PyObject *self, PyObject *const *args, Py_ssize_t n) {
    struct socket_view *v = (struct socket_view *)self;
    long most = n == 1 ? PyLong_AsLong(args[0]) : 0;
    if (n != 1)
        PyErr_SetString(PyExc_TypeError, "takes one argument: how many datagrams at most");
    else if (!PyErr_Occurred() && (most < 1 || most > 65536))
        PyErr_SetString(PyExc_ValueError, "a batch has 1 to 65536 datagrams");
    if (PyErr_Occurred()) return NULL;
    uint32_t first = views_next(v);
    if (first == XS_NO_FRAME) {
        if (PyErr_Occurred()) return NULL;
        Py_INCREF(Py_None);
        return Py_None;
    }
    uint32_t frames[MOST], got = 1;
    if (most > (long)MOST) most = MOST;
    frames[0] = first;
    got += views_take(v, frames + 1, (uint32_t)most - 1);
    struct batch *b = new_batch(v, got);
    if (!b) {
        views_give_back(v->stack, frames, got);
        return NULL;
    }
    b->n = got;
    memcpy(b->frame, frames, got * sizeof *frames);
    return (PyObject *)b;
}

/* ---- lending ---- */

/* All frames go home but those of which a view is alive. */
static void return_unseen(struct batch *b) {
    if (b->all_home || b->forks != views_forks) return; /* in a child the frames are not ours */
    if (!b->nviews) {
        b->all_home = 1;
        views_give_back(b->stack, b->frame, b->n);
        return;
    }
    for (uint32_t i = 0; i < b->n; i++) {
        if (b->views[i]) continue;
        views_give_back(b->stack, &b->frame[i], 1);
        b->frame[i] = XS_NO_FRAME;
    }
}

static PyObject *batch_release(PyObject *self, PyObject *unused) {
    struct batch *b = (struct batch *)self;
    b->released = 1;
    return_unseen(b);
    Py_INCREF(Py_None);
    return Py_None;
}

static void batch_dealloc(PyObject *self) {
    struct batch *b = (struct batch *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (b->stamp) return_unseen(b);
    free(b->stamp);
    Py_XDECREF(b->keep);
    PyObject_Free(self);
    Py_DECREF(type);
}

bool views_usable(const struct batch *b) {
    if (b->released)
        PyErr_SetString(views_closed_error, "the batch was released");
    else if (b->forks != views_forks)
        views_refuse_child();
    else
        return true;
    return false;
}

/* ---- what is in it ---- */

static Py_ssize_t batch_length(PyObject *self) { return ((struct batch *)self)->n; }

static PyObject *bytes_of(const struct batch *b, uint32_t i) {
    const struct xs_mem *mem = &b->stack->mem;
    uint32_t length = mem->pkt[b->frame[i]].payload_len;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, length);
    if (bytes) views_copy_payload(mem, b->frame[i], (uint8_t *)PyBytes_AsString(bytes), length);
    return bytes;
}

/* The index that a method was called with, as a sequence has it: negative counts from the end. -1 with an exception. */
static Py_ssize_t index_of(const struct batch *b, PyObject *number) {
    if (!views_usable(b)) return -1;
    Py_ssize_t i = PyNumber_AsSsize_t(number, PyExc_IndexError);
    if (i == -1 && PyErr_Occurred()) return -1;
    if (i < 0) i += b->n;
    if (i >= 0 && i < (Py_ssize_t)b->n) return i;
    PyErr_SetString(PyExc_IndexError, "no such datagram in the batch");
    return -1;
}

static PyObject *batch_payload(PyObject *self, PyObject *number) {
    struct batch *b = (struct batch *)self;
    Py_ssize_t i = index_of(b, number);
    return i < 0 ? NULL : bytes_of(b, (uint32_t)i);
}

static PyObject *list_of(struct batch *b, PyObject *(*make)(struct batch *, uint32_t)) {
    if (!views_usable(b)) return NULL;
    PyObject *list = PyList_New(b->n);
    for (uint32_t i = 0; list && i < b->n; i++) {
        PyObject *item = make(b, i);
        if (item)
            PyList_SetItem(list, i, item);
        else
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *payload_at(struct batch *b, uint32_t i) { return bytes_of(b, i); }
static PyObject *batch_payloads(PyObject *self, PyObject *unused) {
    return list_of((struct batch *)self, payload_at);
}

static PyObject *batch_view(PyObject *self, PyObject *number) {
    Py_ssize_t i = index_of((struct batch *)self, number);
    return i < 0 ? NULL : views_view((struct batch *)self, (uint32_t)i);
}
static PyObject *batch_views(PyObject *self, PyObject *unused) {
    return list_of((struct batch *)self, views_view);
}

static PyObject *address_of(struct batch *b, uint32_t i, struct known_address *known) {
    views_describe(b);
    return views_address(known, b->family, b->source + 16 * i, b->port[i], b->scope[i]);
}

static PyObject *batch_address(PyObject *self, PyObject *number) {
    struct known_address known = {0};
    Py_ssize_t i = index_of((struct batch *)self, number);
    PyObject *address = i < 0 ? NULL : address_of((struct batch *)self, (uint32_t)i, &known);
    views_forget(&known);
    return address;
}

static PyObject *batch_addresses(PyObject *self, PyObject *unused) {
    struct batch *b = (struct batch *)self;
    if (!views_usable(b)) return NULL;
    struct known_address known = {0};
    PyObject *list = PyList_New(b->n);
    for (uint32_t i = 0; list && i < b->n; i++) {
        PyObject *address = address_of(b, i, &known);
        if (address)
            PyList_SetItem(list, i, address);
        else
            Py_CLEAR(list);
    }
    views_forget(&known);
    return list;
}

static PyObject *batch_released(PyObject *self, void *unused) {
    return PyBool_FromLong(((struct batch *)self)->released);
}

/* A column that was asked for stays readable after release(): it is memory of the batch, not of the frames. */
#define COLUMN(name, format, size, width)                          \
    static PyObject *column_##name(PyObject *self, void *unused) { \
        struct batch *b = (struct batch *)self;                    \
        if (!views_usable(b)) return NULL;                         \
        views_describe(b);                                         \
        return views_column(b, b->name, format, size, width);      \
    }
COLUMN(source, "B", 1, 16)
COLUMN(destination, "B", 1, 16)
COLUMN(port, "H", 2, 1)
COLUMN(scope, "I", 4, 1)
COLUMN(length, "I", 4, 1)
COLUMN(drops, "I", 4, 1)
COLUMN(stamp, "Q", 8, 1)
COLUMN(device_stamp, "Q", 8, 1)
COLUMN(hash, "I", 4, 1)
COLUMN(hash_type, "I", 4, 1)
COLUMN(vlan, "i", 4, 1)
COLUMN(slow, "?", 1, 1)
COLUMN(device, "B", 1, 1)

/* TP_STATUS_CSUMNOTREADY, as an AF_PACKET socket is told. */
static PyObject *column_partial(PyObject *self, void *unused) {
    struct batch *b = (struct batch *)self;
    if (!views_usable(b)) return NULL;
    for (uint32_t i = 0; !b->partial_known && i < b->n; i++)
        b->partial[i] = b->family == 0 && xs_partial(&b->stack->mem, b->frame[i]);
    b->partial_known = 1;
    return views_column(b, b->partial, "?", 1, 1);
}

static PyMethodDef methods[] = {
    {"release", batch_release, METH_NOARGS, NULL},     {"payload", batch_payload, METH_O, NULL},
    {"payloads", batch_payloads, METH_NOARGS, NULL},   {"view", batch_view, METH_O, NULL},
    {"views", batch_views, METH_NOARGS, NULL},         {"address", batch_address, METH_O, NULL},
    {"addresses", batch_addresses, METH_NOARGS, NULL}, {0},
};

static PyGetSetDef properties[] = {
    {"sources", column_source, NULL, NULL, NULL},
    {"destinations", column_destination, NULL, NULL, NULL},
    {"source_ports", column_port, NULL, NULL, NULL},
    {"source_scopes", column_scope, NULL, NULL, NULL},
    {"lengths", column_length, NULL, NULL, NULL},
    {"stamps_ns", column_stamp, NULL, NULL, NULL},
    {"drops", column_drops, NULL, NULL, NULL},
    {"slow", column_slow, NULL, NULL, NULL},
    {"devices", column_device, NULL, NULL, NULL},
    {"device_stamps_ns", column_device_stamp, NULL, NULL, NULL},
    {"hashes", column_hash, NULL, NULL, NULL},
    {"hash_types", column_hash_type, NULL, NULL, NULL},
    {"vlan_tcis", column_vlan, NULL, NULL, NULL},
    {"partial_checksums", column_partial, NULL, NULL, NULL},
    {"released", batch_released, NULL, NULL, NULL},
    {0},
};

static PyType_Slot slots[] = {
    {Py_tp_dealloc, batch_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {Py_sq_length, batch_length},
    {0},
};

static PyType_Spec spec = {
    .name = "xdpstack.native._views.Batch",
    .basicsize = sizeof(struct batch),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

int views_make_batch_type(PyObject *module) {
    views_batch_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    if (!views_batch_type) return -1;
    return PyModule_AddObjectRef(module, "Batch", (PyObject *)views_batch_type);
}
