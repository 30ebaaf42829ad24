/* Column and Payload: memory of a batch, and of a lent frame, through the buffer protocol; no copy. Both keep the batch. */
#include "views/views.h"

#include <string.h>

PyTypeObject *views_column_type, *views_payload_type;

struct column {
    PyObject_HEAD struct batch *batch;
    void *data;
    const char *format;
    Py_ssize_t itemsize;
    Py_ssize_t shape[2], strides[2];
    int ndim;
};

struct payload {
    PyObject_HEAD struct batch *batch;
    uint32_t index;
    const uint8_t *data;
    Py_ssize_t bytes;
};

/* ---- Column ---- */

/* A memoryview on a column of `width` items a row; the view keeps the Column, the Column the batch. */
PyObject *views_column(struct batch *b, void *data, const char *format, Py_ssize_t itemsize,
                       Py_ssize_t width) {
    struct column *c = PyObject_New(struct column, views_column_type);
    if (!c) return NULL;
    Py_INCREF((PyObject *)b);
    c->batch = b;
    c->data = data;
    c->format = format;
    c->itemsize = itemsize;
    c->ndim = width > 1 ? 2 : 1;
    c->shape[0] = b->n;
    c->shape[1] = width;
    c->strides[0] = itemsize * width;
    c->strides[1] = itemsize;
    PyObject *view = PyMemoryView_FromObject((PyObject *)c);
    Py_DECREF(c);
    return view;
}

static int column_buffer(PyObject *self, Py_buffer *view, int flags) {
    struct column *c = (struct column *)self;
    if (flags & PyBUF_WRITABLE) {
        PyErr_SetString(PyExc_BufferError, "columns are read-only");
        return -1;
    }
    *view = (Py_buffer){
        .buf = c->data,
        .len = c->shape[0] * c->strides[0],
        .itemsize = c->itemsize,
        .readonly = 1,
        .ndim = c->ndim,
        .format = flags & PyBUF_FORMAT ? (char *)c->format : NULL,
        .shape = flags & PyBUF_ND ? c->shape : NULL,
        .strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? c->strides : NULL,
    };
    Py_INCREF(self);
    view->obj = self;
    return 0;
}

static void column_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    Py_DECREF(((struct column *)self)->batch);
    PyObject_Free(self);
    Py_DECREF(type);
}

/* ---- Payload ---- */

/* A memoryview on the payload where it lies. One that lies in several frames is copied: what is viewed then is bytes. */
PyObject *views_view(struct batch *b, uint32_t i) {
    const struct xs_mem *mem = &b->stack->mem;
    uint32_t frame = b->frame[i], length = mem->pkt[frame].payload_len;
    PyObject *under;
    if (mem->pkt[frame].frag != XS_NO_FRAME) {
        under = PyBytes_FromStringAndSize(NULL, length);
        if (under) views_copy_payload(mem, frame, (uint8_t *)PyBytes_AsString(under), length);
    } else {
        struct payload *p = PyObject_New(struct payload, views_payload_type);
        if (p) {
            Py_INCREF((PyObject *)b);
            p->batch = b;
            p->index = i;
            p->data = xs_frame_data(mem, frame) + mem->pkt[frame].payload_off;
            p->bytes = length;
            if (!b->viewed) memset(b->views, 0, b->n * sizeof *b->views);
            b->viewed = 1;
            b->views[i]++;
            b->nviews++;
        }
        under = (PyObject *)p;
    }
    PyObject *view = under ? PyMemoryView_FromObject(under) : NULL;
    Py_XDECREF(under);
    return view;
}

static int payload_buffer(PyObject *self, Py_buffer *view, int flags) {
    struct payload *p = (struct payload *)self;
    if (p->batch->forks != views_forks) {
        views_refuse_child();
        return -1;
    }
    return PyBuffer_FillInfo(view, self, (void *)p->data, p->bytes, 1, flags);
}

static void payload_dealloc(PyObject *self) {
    struct payload *p = (struct payload *)self;
    PyTypeObject *type = Py_TYPE(self);
    struct batch *b = p->batch;
    b->nviews--;
    if (--b->views[p->index] == 0 && b->released && b->forks == views_forks) {
        views_give_back(b->stack, &b->frame[p->index], 1);
        b->frame[p->index] = XS_NO_FRAME;
    }
    Py_DECREF(b);
    PyObject_Free(self);
    Py_DECREF(type);
}

/* ---- types ---- */

static PyType_Slot column_slots[] = {{Py_tp_dealloc, column_dealloc}, {Py_bf_getbuffer, column_buffer}, {0}};
static PyType_Spec column_spec = {
    .name = "xdpstack.native._views.Column",
    .basicsize = sizeof(struct column),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = column_slots,
};

static PyType_Slot payload_slots[] = {
    {Py_tp_dealloc, payload_dealloc}, {Py_bf_getbuffer, payload_buffer}, {0}};
static PyType_Spec payload_spec = {
    .name = "xdpstack.native._views.Payload",
    .basicsize = sizeof(struct payload),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = payload_slots,
};

int views_make_column_types(PyObject *module) {
    views_column_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &column_spec, NULL);
    views_payload_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &payload_spec, NULL);
    return views_column_type && views_payload_type ? 0 : -1;
}
