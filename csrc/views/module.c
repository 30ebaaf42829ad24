/* The module `_views`: a second module in the extension's shared object (PEP 489). See views.h. */
#include "views/views.h"

#include <pthread.h>

PyObject *views_closed_error, *views_forked_error;
uint64_t views_forks; /* how often this process is a child of one that had us loaded */

static void forked(void) { views_forks++; }

static PyObject *error_class(const char *name) {
    PyObject *errors = PyImport_ImportModule("xdpstack.errors");
    PyObject *found = errors ? PyObject_GetAttrString(errors, name) : NULL;
    Py_XDECREF(errors);
    return found;
}

static int execute(PyObject *module) {
    static bool once;
    views_closed_error = error_class("ClosedError");
    views_forked_error = error_class("ForkedError");
    if (!views_closed_error || !views_forked_error) return -1;
    if (!once && pthread_atfork(NULL, NULL, forked)) {
        PyErr_NoMemory();
        return -1;
    }
    once = true;
    if (views_make_socket_type(module) || views_make_batch_type(module)) return -1;
    return views_make_column_types(module);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_views",
    .m_doc = "Receive, send and payload views, with the GIL kept (csrc/views/views.h).",
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__views(void) { return PyModuleDef_Init(&definition); }
