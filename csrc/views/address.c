/* Addresses as Python's socket module has them, and back. */
#include <arpa/inet.h>
#include <string.h>

#include "views/views.h"

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

void views_forget(struct known_address *known) { Py_CLEAR(known->tuple); }

static bool same(const struct known_address *k, const uint8_t *address, uint16_t port, uint32_t scope) {
    return k->tuple && k->port == port && k->scope == scope && !memcmp(k->address, address, 16);
}

static PyObject *tuple_of(uint8_t family, const uint8_t *address, uint16_t port, uint32_t scope) {
    char host[INET6_ADDRSTRLEN];
    if (family == 4) {
        inet_ntop(AF_INET, address + 12, host, sizeof host);
        return Py_BuildValue("(si)", host, (int)port);
    }
    inet_ntop(AF_INET6, address, host, sizeof host);
    return Py_BuildValue("(siiI)", host, (int)port, 0, (unsigned int)scope);
}

PyObject *views_address(struct known_address *known, uint8_t family, const uint8_t *address, uint16_t port,
                        uint32_t scope) {
    if (!same(known, address, port, scope)) {
        PyObject *tuple = tuple_of(family, address, port, scope);
        if (!tuple) return NULL;
        views_forget(known);
        known->tuple = tuple;
        memcpy(known->address, address, 16);
        known->port = port;
        known->scope = scope;
    }
    Py_INCREF(known->tuple);
    return known->tuple;
}

/* A numeric host into 16 bytes; false when it is none. */
static bool parse_host(const char *host, uint8_t family, uint8_t *address) {
    if (family == 6) return inet_pton(AF_INET6, host, address) == 1;
    memcpy(address, mapped, 12);
    return inet_pton(AF_INET, host, address + 12) == 1;
}

/* The number at `i` of a tuple, from 0 to `most`; -1 with an exception. */
static long long number_at(PyObject *tuple, Py_ssize_t i, const char *what, long long most) {
    long long value = PyLong_AsLongLong(PyTuple_GetItem(tuple, i));
    if (value == -1 && PyErr_Occurred()) return -1;
    if (value < 0 || value > most) {
        PyErr_Format(PyExc_OverflowError, "%s must be 0 to %lld", what, most);
        return -1;
    }
    return value;
}

int views_parse_address(struct known_address *known, uint8_t family, PyObject *tuple) {
    if (tuple == known->tuple) return 0; /* the same object: tuples do not change */
    Py_ssize_t n = PyTuple_Check(tuple) ? PyTuple_Size(tuple) : 0;
    if (family == 4 ? n != 2 : n < 2 || n > 4) {
        PyErr_Format(PyExc_TypeError, "an address is a tuple %s, not %R",
                     family == 4 ? "(host, port)" : "(host, port[, flowinfo[, scope_id]])", tuple);
        return -1;
    }
    const char *host = PyUnicode_AsUTF8AndSize(PyTuple_GetItem(tuple, 0), NULL);
    if (!host) return -1;
    struct known_address parsed = {0};
    if (!parse_host(host, family, parsed.address)) {
        PyErr_Format(PyExc_LookupError, "%s is not a numeric address", host);
        return -1;
    }
    long long port = number_at(tuple, 1, "port", 65535);
    long long flow = port >= 0 && n > 2 ? number_at(tuple, 2, "flowinfo", 0xfffff) : 0;
    long long scope = port >= 0 && flow >= 0 && n > 3 ? number_at(tuple, 3, "scope_id", UINT32_MAX) : 0;
    if (port < 0 || flow < 0 || scope < 0) return -1;
    parsed.port = (uint16_t)port;
    parsed.scope = (uint32_t)scope;
    views_forget(known);
    *known = parsed;
    Py_INCREF(tuple);
    known->tuple = tuple;
    return 0;
}
