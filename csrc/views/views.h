/* The views module: what Python calls once per datagram or per batch, with the GIL kept: receiving, and sending too, from the
 * arguments of sendto() to the walk (send.c).
 *
 * Releasing and taking the GIL costs more than receiving a datagram, so these calls keep it and never block: they look at
 * a queue, or walk a batch to a ring. All that may wait is in the cffi module, but for one thing: a sender whose worker another
 * thread drives waits for it, and then walks, without the GIL. Keeping the GIL also makes the caller the one
 * reader of every socket and the one producer of the rings by which frames go home.
 *
 *      Socket   one socket's receive queue and its way out      socket.c, receive.c, send.c, send_calls.c, address.c
 *      (the same with whole frames                              frames.c)
 *      Batch    datagrams taken out at once: columns, payloads  batch.c
 *      Column   one column of a batch, by the buffer protocol   column.c
 *      Payload  one payload where it lies, likewise             column.c
 *
 * Lifetimes: `keep` is a Python object that keeps the stack's memory mapped (xdpstack.native.core.Core.umem). A Socket holds
 * one, a Batch takes one from its Socket, Columns and Payloads hold their Batch. So a view is valid memory as long as it
 * lives, whatever was closed.
 */
#ifndef XS_VIEWS_VIEWS_H
#define XS_VIEWS_VIEWS_H

#include <Python.h>

#include "base/likely.h"
#include "stack.h"
#include "tables/sockets.h"

/* An address as Python has it and as we have it, beside each other: the last one met is usually the next one. */
struct known_address {
    PyObject *tuple; /* ("10.0.0.1", 7) or ("fd00::1", 7, 0, scope); NULL at first */
    uint8_t address[16];
    uint16_t port;
    uint32_t scope;
};

struct socket_view {
    PyObject_HEAD struct xs_socket *socket; /* NULL once closed */
    struct xs_stack *stack;
    PyObject *keep;
    uint64_t forks; /* of the process when the view was made; another number: we are a child */
    struct known_address from, to;
    uint32_t tx_device; /* by which the last packet left, for the question whether there is room */
    uint32_t marked;    /* XS_SOCKET_MARKS that all datagrams on the queue have, or have zeroed */
    uint64_t slow;      /* datagrams sent by the shadow socket */
    bool parked;        /* a Python hook had packets after the last send */
    /* Then: how many datagrams it was about, and of each the frame that waits for Python, or XS_NO_FRAME */
    uint32_t nsent, under_way[XS_WEIGHT];
};

/* Datagrams that were taken out at once. Their columns are filled when one is first asked for, while the frames are lent. */
struct batch {
    PyObject_HEAD struct xs_stack *stack;
    PyObject *keep;
    uint64_t forks; /* as in struct socket_view */
    uint8_t family;
    uint8_t released;
    uint8_t all_home;  /* no frame is lent any more */
    uint8_t described; /* the columns are filled */
    uint8_t marks;     /* XS_SOCKET_STAMP, XS_SOCKET_RXQ_OVFL: the frames have time stamps, counts of drops */
    uint8_t viewed;    /* there was a Payload: `views` counts */
    uint32_t nviews;   /* live Payloads, of all */
    uint32_t n;
    uint32_t *frame; /* XS_NO_FRAME once it has gone home */
    uint32_t *views; /* live Payloads of each; counted from the first on */
    uint64_t *stamp;
    uint64_t *device_stamp; /* by the device's own clock; this and the next two of a stack that asked */
    uint32_t *hash, *hash_type;
    int32_t *vlan;   /* TCI of the outermost tag, or -1 */
    uint8_t *source; /* [n][16] */
    uint8_t *destination;
    uint32_t *length, *scope, *drops;
    uint16_t *port;
    uint8_t *slow, *device;
    uint8_t *partial;      /* of whole frames: the checksum was left to hardware */
    uint8_t partial_known; /* it is filled when it is asked for: that takes a look at each frame */
};

extern PyTypeObject *views_socket_type, *views_batch_type, *views_column_type, *views_payload_type;
extern PyObject *views_closed_error, *views_forked_error;
extern uint64_t views_forks;

int views_make_socket_type(PyObject *module);
int views_make_batch_type(PyObject *module);
int views_make_column_types(PyObject *module);

static inline void views_refuse_child(void) {
    PyErr_SetString(views_forked_error,
                    "the stack was opened in the parent process; a child must open its own");
}

/* The socket of a view, or NULL with an exception: closed, or in a forked child. */
static inline struct xs_socket *views_socket(struct socket_view *v) {
    if (likely(v->socket && v->forks == views_forks)) return v->socket;
    if (v->socket)
        views_refuse_child();
    else
        PyErr_SetString(views_closed_error, "the socket is closed");
    return NULL;
}

/* Waits until the worker is ours to drive, with the GIL; for what is done once in a while. Other Python threads have a turn now and
 * then. xs_worker_leave() ends it. False with an exception when the socket was closed meanwhile. socket.c */
bool views_enter(struct socket_view *v, struct xs_worker *w);

/* For senders who found that another thread drives the worker: waits for it, does `work`, and leaves it, all of that without the
 * GIL, so that nobody waits for a worker with the GIL, nor for the GIL with a worker. `work` touches nothing of Python's, and of
 * the view only what whoever has the socket's worker may. False with an exception when the socket was closed meanwhile; then it
 * was not done. socket.c */
bool views_wait_and_do(struct socket_view *v, struct xs_worker *w, void (*work)(void *), void *argument);

/* address.c */
PyObject *views_address(struct known_address *known, uint8_t family, const uint8_t *address, uint16_t port,
                        uint32_t scope);
/* Reads (host, port[, flowinfo, scope]) with a numeric host; 0, or -1 with LookupError for a name, or another exception. */
int views_parse_address(struct known_address *known, uint8_t family, PyObject *tuple);
void views_forget(struct known_address *known);

/* receive.c */
uint32_t views_take(struct socket_view *v, uint32_t *frames, uint32_t most);
void views_give_back(struct xs_stack *stack, const uint32_t *frames, uint32_t n);
/* False, with ClosedError, when the batch was released. */
bool views_usable(const struct batch *b);
/* Fills the columns of a batch that was not released. */
void views_describe(struct batch *b);
void views_peer_of(const struct xs_mem *mem, uint32_t frame, uint8_t address[16], uint16_t *port,
                   uint32_t *scope);
void views_our_address(const struct xs_mem *mem, uint32_t frame, uint8_t address[16]);
void views_copy_payload(const struct xs_mem *mem, uint32_t frame, uint8_t *to, uint32_t bytes);
PyObject *views_recvfrom(PyObject *self, PyObject *const *args, Py_ssize_t n);
PyObject *views_recv(PyObject *self, PyObject *const *args, Py_ssize_t n);
PyObject *views_recvfrom_into(PyObject *self, PyObject *const *args, Py_ssize_t n);
PyObject *views_drain(PyObject *self, PyObject *unused);
uint32_t views_next(struct socket_view *v);

/* batch.c */
PyObject *views_recv_batch(PyObject *self, PyObject *const *args, Py_ssize_t n);

/* column.c */
PyObject *views_column(struct batch *b, void *data, const char *format, Py_ssize_t itemsize,
                       Py_ssize_t width);
PyObject *views_view(struct batch *b, uint32_t i);

/* send_calls.c */
PyObject *views_sendto(PyObject *self, PyObject *const *args, Py_ssize_t n);
PyObject *views_send_batch(PyObject *self, PyObject *const *args, Py_ssize_t n);
PyObject *views_send_frames(PyObject *self, PyObject *const *args, Py_ssize_t n);

#endif
