/* What a forked child finds where a stack's frames were: pages of zeros, its own. See stack.h.
 *
 * The frames themselves a child does not get (MADV_DONTFORK). Calls on a stack raise there, but a memoryview that was made
 * before the fork cannot: it shows zeros. Without these pages to look at, it would end the process. */
#include "stack.h"

#include <sys/mman.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct xs_stack *first;

static void put_zeros(void *where, size_t bytes) {
    mmap(where, bytes, PROT_READ | PROT_WRITE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
}

static void before(void) { pthread_mutex_lock(&lock); }
static void after(void) { pthread_mutex_unlock(&lock); }

static void in_child(void) {
    for (struct xs_stack *s = first; s; s = s->next) {
        put_zeros(s->mem.data, s->data_bytes);
        put_zeros(s->mem.pkt, s->mem.nframes * sizeof *s->mem.pkt);
        put_zeros(s->mem.meta, s->mem.nframes * sizeof *s->mem.meta);
    }
    first = NULL;
    after();
}

void xs_fork_guard(struct xs_stack *s) {
    static bool watching;
    before();
    if (!watching) watching = pthread_atfork(before, after, in_child) == 0;
    s->next = first;
    first = s;
    after();
}

void xs_fork_unguard(struct xs_stack *s) {
    before();
    for (struct xs_stack **at = &first; *at; at = &(*at)->next) {
        if (*at != s) continue;
        *at = s->next;
        break;
    }
    after();
}
