/* The memory of a stack: frames, and a hot and a cold descriptor for each. See stack.h.
 *
 * A forked child does not get it (MADV_DONTFORK): it must not touch frames that the parent's kernel rings name. So no page of it
 * is ever shared, and none copied on write from under the kernel. All of it is taken at once: a limit shows here, and not when
 * a frame is touched.
 *
 * Packets are all over it, and with pages of 4 KiB each costs a walk of page tables. Pages of 2 MiB are taken where the
 * kernel has some to give (transparent_hugepage: always, madvise), and from hugetlb, where they are sure, by who asks for them.
 */
#include "stack.h"

#include <errno.h>
#include <sys/mman.h>

#include "base/uapi.h"
#include "ffi/10_core.cdef.h"

#define HUGE_PAGE_BYTES ((size_t)2 << 20)
#define SMALL_PAGE_BYTES ((size_t)4096)

static size_t whole_huge_pages(size_t bytes) {
    return (bytes + HUGE_PAGE_BYTES - 1) & ~(HUGE_PAGE_BYTES - 1);
}

/* All pages, now. Returns the memory; NULL when there is not enough, and then it is unmapped. */
static void *take(char *p, size_t bytes) {
    bool unforked =
        madvise(p, bytes, MADV_DONTFORK) == 0; /* there may be too many mappings (vm.max_map_count) */
    if (unforked && madvise(p, bytes, XS_UAPI_MADV_POPULATE_WRITE) == 0) return p;
    if (unforked && errno == EINVAL) { /* that is Linux before 5.14 */
        for (size_t at = 0; at < bytes; at += SMALL_PAGE_BYTES) ((volatile char *)p)[at] = 0;
        return p;
    }
    munmap(p, bytes);
    return NULL;
}

/* On huge pages of hugetlb. */
static void *map_huge(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB | XS_UAPI_MAP_HUGE_2MB, -1, 0);
    return p == MAP_FAILED ? NULL : take(p, bytes);
}

/* On transparent ones as far as it goes: only a whole one, from where it can begin, is made one. */
static void *map(size_t bytes) {
    size_t more = bytes < HUGE_PAGE_BYTES ? 0 : HUGE_PAGE_BYTES - SMALL_PAGE_BYTES;
    char *p = mmap(NULL, bytes + more, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    if (more) {
        size_t before = whole_huge_pages((uintptr_t)p) - (uintptr_t)p, behind = more - before;
        if (before) munmap(p, before);
        p += before;
        if (behind) munmap(p + bytes, behind);
        madvise(p, bytes, MADV_HUGEPAGE);
    }
    return take(p, bytes);
}

int xs_stack_map(struct xs_stack *s, const struct xs_stack_options *o) {
    struct xs_mem *m = &s->mem;
    m->nframes = o->workers * o->frames_per_worker;
    m->frame_shift = (uint32_t)__builtin_ctz(o->frame_bytes);
    s->data_bytes = (size_t)m->nframes << m->frame_shift;
    s->mapped_bytes = o->huge_pages ? whole_huge_pages(s->data_bytes) : s->data_bytes;
    m->data = o->huge_pages ? map_huge(s->mapped_bytes) : map(s->mapped_bytes);
    if (o->huge_pages && !m->data) return -ENOBUFS;
    m->pkt = map(m->nframes * sizeof *m->pkt);
    m->meta = map(m->nframes * sizeof *m->meta);
    if (!m->data || !m->pkt || !m->meta) return -ENOMEM;
    for (uint32_t f = 0; f < m->nframes; f++) xs_frame_close(m, f, 0);
    xs_fork_guard(s);
    return 0;
}

void xs_stack_unmap(struct xs_stack *s) {
    struct xs_mem *m = &s->mem;
    xs_fork_unguard(s);
    for (uint32_t f = 0; m->data && f < m->nframes; f++) xs_frame_open(m, f);
    if (m->data) munmap(m->data, s->mapped_bytes);
    if (m->pkt) munmap(m->pkt, m->nframes * sizeof *m->pkt);
    if (m->meta) munmap(m->meta, m->nframes * sizeof *m->meta);
}
