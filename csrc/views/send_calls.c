/* The calls that send: Python's arguments in, errors as exceptions out. See views/send.c. */
#include "views/send.h"

#include <errno.h>
#include <string.h>

static PyObject *fail(int error, const char *text) {
    errno = error;
    if (!text) return PyErr_SetFromErrno(PyExc_OSError);
    PyObject *e = PyObject_CallFunction(PyExc_OSError, "is", error, text);
    if (e) PyErr_SetObject((PyObject *)Py_TYPE(e), e);
    Py_XDECREF(e);
    return NULL;
}

static PyObject *fail_sending(const struct socket_view *v, int error) {
    if (!v->socket) return fail(error, NULL); /* closed while it was being sent */
    if (v->socket->shadow_fd < 0 && error == EMSGSIZE)
        return fail(
            error,
            "Message too long: it needs fragments, which the kernel makes, and the socket was opened with "
            "reserve=False, or in a VLAN, and has no kernel socket behind it");
    if (v->socket->shadow_fd < 0 && error == ENETUNREACH)
        return fail(
            error,
            "Network is unreachable: not through a device of this stack, and the socket was opened with "
            "reserve=False, or in a VLAN, and has no kernel socket behind it");
    return fail(error, NULL);
}

static void set_address(struct outgoing *o, const uint8_t *address, uint16_t port, uint32_t scope) {
    memcpy(o->address, address, sizeof o->address);
    o->port = port;
    o->scope = scope;
}

/* Arguments are read by calls that may run Python, __index__ and __buffer__, which may close the socket: what reads them is given
 * the socket, whose memory stays, and views_transmit() looks whether it is still open. */

/* Where a datagram goes that is sent without an address; -1 with ENOTCONN or EDESTADDRREQ. */
static int peer_address(struct xs_socket *s, struct outgoing *o) {
    if (!(xs_socket_flags(s) & XS_SOCKET_CONNECTED)) {
        fail(EDESTADDRREQ, NULL);
        return -1;
    }
    set_address(o, s->sending.peer, s->sending.peer_port, s->sending.peer_scope);
    o->to_peer = true;
    return 0;
}

/* ipv6_only_sock(): it says so, or is bound to an address of IPv6 (__inet6_bind). */
static bool is_v6only(struct xs_socket *s) {
    static const uint8_t any[16];
    bool bound = !views_is_mapped(s->address) && memcmp(s->address, any, sizeof any);
    return bound || xs_socket_flags(s) & XS_SOCKET_V6ONLY;
}

/* The errno of a datagram that need not walk to be refused, or 0. */
static int refused(struct xs_socket *s, const struct outgoing *o) {
    bool ipv4 = views_is_mapped(o->address);
    if (s->family == 6 && ipv4 && is_v6only(s)) return ENETUNREACH;
    if (ipv4 && o->bytes > 0xffff) return EMSGSIZE; /* over IPv6 it is said last: by the kernel socket */
    /* connect() takes port 0, and what is sent to the peer goes there; but not over IPv4 from an IPv6 socket */
    bool peer_takes_any = o->to_peer && (s->family == 4 || !ipv4);
    return o->port || peer_takes_any ? 0 : EINVAL;
}

/* Where a datagram goes that is sent to `tuple`; -1 with an exception. */
static int given_address(struct socket_view *v, const struct xs_socket *s, PyObject *tuple,
                         struct outgoing *o) {
    if (views_parse_address(&v->to, s->family, tuple)) return -1;
    set_address(o, v->to.address, v->to.port, v->to.scope);
    return 0;
}

static int reason_of(PyObject *number, uint16_t *reason) {
    unsigned long value = PyLong_AsUnsignedLong(number);
    if (PyErr_Occurred()) return -1;
    *reason = (uint16_t)value;
    return 0;
}

/* sendto(data, address or None[, reason]): bytes sent, or None when it would block. With a reason it is the end of a
 * datagram that was under way when the call without it returned. */
PyObject *views_sendto(PyObject *self, PyObject *const *args, Py_ssize_t n) {
    struct socket_view *v = (struct socket_view *)self;
    struct xs_socket *s = views_socket(v);
    if (!s) return NULL;
    if (n != 2 && n != 3) {
        PyErr_SetString(PyExc_TypeError, "takes the data, an address or None, and the reason of an end");
        return NULL;
    }
    uint16_t reason = 0;
    if (n == 3 && reason_of(args[2], &reason)) return NULL;
    int pending = n == 2 ? xs_socket_take_error(s) : 0;
    if (pending) return fail(pending, NULL);
    struct outgoing o = {0};
    if (Py_IsNone(args[1]) ? peer_address(s, &o) : given_address(v, s, args[1], &o)) return NULL;
    Py_buffer data;
    if (PyObject_GetBuffer(args[0], &data, PyBUF_SIMPLE)) return NULL;
    o.data = data.buf;
    o.bytes = data.len;
    bool done = true;
    o.error = refused(s, &o);
    if (n == 3)
        views_settle(v, &o, 1, &reason);
    else if (!o.error)
        done = views_transmit(v, &o, 1);
    PyBuffer_Release(&data);
    if (!done) return NULL;
    if (o.error == EAGAIN) Py_RETURN_NONE;
    return o.error ? fail_sending(v, o.error) : PyLong_FromSsize_t(o.bytes);
}

/* One datagram's address out of what send_batch() was given: None, one tuple, a list of tuples, or a Batch to answer. */
static int address_for(struct socket_view *v, struct xs_socket *s, PyObject *addresses, Py_ssize_t i,
                       struct outgoing *o) {
    if (Py_IsNone(addresses)) return peer_address(s, o);
    if (Py_IS_TYPE(addresses, views_batch_type)) {
        struct batch *b = (struct batch *)addresses;
        if (i >= (Py_ssize_t)b->n || b->family != s->family) {
            PyErr_SetString(PyExc_ValueError,
                            "the batch that is answered has fewer datagrams, or is of another family");
            return -1;
        }
        if (!views_usable(b)) return -1;
        views_describe(b);
        set_address(o, b->source + 16 * i, b->port[i], b->scope[i]);
        return 0;
    }
    PyObject *tuple = PyList_Check(addresses) ? PyList_GetItem(addresses, i) : addresses;
    return tuple ? given_address(v, s, tuple, o) : -1;
}

/* send_batch(payloads: list, addresses, start, errors: dict[, reasons: list]): from index `start` on, one walk's worth.
 * Returns how many were dealt with (0: it would block); errors[i] is set to the errno of those that could not be sent: EAGAIN
 * of one that would block while others behind it have been sent. With reasons it is the end of as many datagrams, of which
 * some were under way when the call without them returned. */
PyObject *views_send_batch(PyObject *self, PyObject *const *args, Py_ssize_t n) {
    struct socket_view *v = (struct socket_view *)self;
    struct xs_socket *s = views_socket(v);
    if (!s) return NULL;
    if ((n != 4 && n != 5) || !PyList_Check(args[0]) || !PyDict_Check(args[3]) ||
        (n == 5 && !PyList_Check(args[4]))) {
        PyErr_SetString(
            PyExc_TypeError,
            "takes a list of payloads, addresses, the index to start at, a dict for errors, and a "
            "list of the reasons of an end");
        return NULL;
    }
    Py_ssize_t start = PyLong_AsSsize_t(args[2]);
    if (start < 0) return PyErr_Occurred() ? NULL : fail(EINVAL, NULL);
    int pending = n == 4 && start == 0 ? xs_socket_take_error(s) : 0;
    if (pending) return fail(pending, NULL);
    Py_ssize_t left = PyList_Size(args[0]) - start;
    uint32_t want = left < 0 ? 0 : left > (Py_ssize_t)XS_WEIGHT ? XS_WEIGHT : (uint32_t)left;
    uint16_t reasons[XS_WEIGHT];
    if (n == 5 && PyList_Size(args[4]) < (Py_ssize_t)want) want = (uint32_t)PyList_Size(args[4]);
    for (uint32_t i = 0; n == 5 && i < want; i++)
        if (reason_of(PyList_GetItem(args[4], i), &reasons[i])) return NULL;
    struct outgoing out[XS_WEIGHT];
    Py_buffer data[XS_WEIGHT];
    uint32_t held = 0, ready = 0;
    for (; ready < want; ready++) {
        struct outgoing *o = &out[ready];
        *o = (struct outgoing){0};
        if (PyObject_GetBuffer(PyList_GetItem(args[0], start + ready), &data[held], PyBUF_SIMPLE)) break;
        o->data = data[held].buf;
        o->bytes = data[held++].len;
        if (address_for(v, s, args[1], start + ready, o)) break;
        o->error = refused(s, o);
    }
    bool done = ready == want;
    if (done && n == 5)
        views_settle(v, out, want, reasons);
    else if (done)
        done = views_transmit(v, out, want);
    for (uint32_t i = 0; i < held; i++) PyBuffer_Release(&data[i]);
    if (!done) return NULL;
    uint32_t dealt = want;
    while (dealt && out[dealt - 1].error == EAGAIN) dealt--;
    for (uint32_t i = 0; i < dealt; i++) {
        if (!out[i].error) continue;
        PyObject *index = PyLong_FromSsize_t(start + i), *error = PyLong_FromLong(out[i].error);
        int rc = index && error ? PyDict_SetItem(args[3], index, error) : -1;
        Py_XDECREF(index);
        Py_XDECREF(error);
        if (rc) return NULL;
    }
    return PyLong_FromUnsignedLong(dealt);
}
