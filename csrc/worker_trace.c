/* Starting, reading and ending the trace of a worker. See walk_trace.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "worker.h"

#include "ffi/10_core.cdef.h"
#include "walk_trace.h"

_Static_assert(sizeof((struct xs_trace_values){0}.step) == XS_TRACE_STEPS * sizeof(struct xs_trace_step),
               "all steps");
_Static_assert(sizeof((struct xs_trace_values){0}.bytes) == XS_TRACE_BYTES, "all bytes");

static struct xs_trace *replace(struct xs_worker *w, struct xs_trace *new) {
    xs_worker_hold(w);
    struct xs_trace *old = w->walk.trace;
    w->walk.trace = new;
    xs_worker_unhold(w);
    return old;
}

int xs_worker_trace_start(struct xs_worker *w, uint32_t packets, int node, int reason) {
    if (!packets || packets > XS_TRACE_MOST) return -EINVAL;
    struct xs_trace *t = xs_trace_create(packets, node, reason);
    if (!t) return -ENOMEM;
    free(replace(w, t));
    return 0;
}

int xs_worker_trace_read(struct xs_worker *w, uint32_t packet, struct xs_trace_values *out) {
    xs_worker_hold(w);
    const struct xs_trace *t = w->walk.trace;
    int found = t && packet < t->nfound;
    if (found) {
        const struct xs_trace_packet *p = &t->packet[t->found[packet]];
        *out = (struct xs_trace_values){.nsteps = p->nsteps, .len = p->len};
        memcpy(out->bytes, p->bytes, p->len);
        memcpy(out->step, p->step, p->nsteps * sizeof p->step[0]);
    }
    xs_worker_unhold(w);
    return found;
}

void xs_worker_trace_stop(struct xs_worker *w) { free(replace(w, NULL)); }
