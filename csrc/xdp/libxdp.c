/* libxdp, if it is there when it is asked for: a dispatcher on the interface that calls several programs one after the
 * other. The program is loaded by it, as a function that replaces one of the dispatcher's (freplace).
 *
 * Not linked: who does not join other programs needs none of it. Its declarations are those of xdp/libxdp.h, 1.2 and
 * later.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <bpf/libbpf.h>

#include "ffi/20_libbpf.cdef.h"
#include "ffi/21_libxdp.cdef.h"
#include "xdp/log.h"

struct xdp_program;
struct xdp_multiprog;

static struct {
    void *handle;
    long (*get_error)(const void *);
    void *(*set_print)(int (*)(int, const char *, va_list));
    struct xdp_program *(*from_bpf_obj)(struct bpf_object *, const char *);
    void (*close)(struct xdp_program *);
    int (*attach)(struct xdp_program *, int, unsigned int, unsigned int);
    int (*detach)(struct xdp_program *, int, unsigned int, unsigned int);
    uint32_t (*id)(const struct xdp_program *);
    const char *(*name)(const struct xdp_program *);
    unsigned int (*run_prio)(const struct xdp_program *);
    struct xdp_multiprog *(*get)(int);
    struct xdp_program *(*next)(const struct xdp_program *, const struct xdp_multiprog *);
    void (*close_all)(struct xdp_multiprog *);
    bool (*is_legacy)(const struct xdp_multiprog *);
    unsigned int (*mode)(const struct xdp_multiprog *);
    /* 1.3 and later */
    int (*set_frags)(struct xdp_program *, bool);
    bool (*has_frags)(const struct xdp_multiprog *);
    int (*clean)(int);
} xdp;

static int load_error;

/* All levels: it says why it falls back only to who wants to know everything. */
__attribute__((format(printf, 2, 0))) static int print(int level, const char *format, va_list arguments) {
    (void)level;
    xs_bpf_log_add(format, arguments);
    return 0;
}

static int load(void) {
    static const struct {
        const char *name;
        void *at;
        bool later;
    } symbols[] = {
        {"libxdp_get_error", &xdp.get_error, false},
        {"libxdp_set_print", &xdp.set_print, false},
        {"xdp_program__from_bpf_obj", &xdp.from_bpf_obj, false},
        {"xdp_program__close", &xdp.close, false},
        {"xdp_program__attach", &xdp.attach, false},
        {"xdp_program__detach", &xdp.detach, false},
        {"xdp_program__id", &xdp.id, false},
        {"xdp_program__name", &xdp.name, false},
        {"xdp_program__run_prio", &xdp.run_prio, false},
        {"xdp_multiprog__get_from_ifindex", &xdp.get, false},
        {"xdp_multiprog__next_prog", &xdp.next, false},
        {"xdp_multiprog__close", &xdp.close_all, false},
        {"xdp_multiprog__is_legacy", &xdp.is_legacy, false},
        {"xdp_multiprog__attach_mode", &xdp.mode, false},
        {"xdp_program__set_xdp_frags_support", &xdp.set_frags, true},
        {"xdp_multiprog__xdp_frags_support", &xdp.has_frags, true},
        {"libxdp_clean_references", &xdp.clean, true},
    };

    xdp.handle = dlopen("libxdp.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!xdp.handle) return -ENOENT;
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *found = dlsym(xdp.handle, symbols[i].name);

        if (!found && !symbols[i].later) return -ENOSYS;
        memcpy(symbols[i].at, &found, sizeof found);
    }
    /* Objects are handed over: it has to be the libbpf that made them. */
    if (dlsym(xdp.handle, "bpf_object__load") != (void *)bpf_object__load) return -EXDEV;
    xdp.set_print(print);
    return 0;
}

static void load_once(void) { load_error = load(); }

int xs_libxdp_load(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, load_once);
    return load_error;
}

/* The programs of an interface, or why not. */
static int get(uint32_t ifindex, struct xdp_multiprog **out) {
    struct xdp_multiprog *all = xdp.get((int)ifindex);
    int error = (int)xdp.get_error(all);

    *out = NULL;
    if (error) return error;
    if (xdp.is_legacy(all)) {
        xdp.close_all(all);
        return -EOPNOTSUPP;
    }
    *out = all;
    return 0;
}

int xs_libxdp_list(uint32_t ifindex, struct xs_libxdp_dispatcher *out) {
    struct xdp_multiprog *all;
    int error = get(ifindex, &all);

    if (error) return error;
    *out = (struct xs_libxdp_dispatcher){.mode = xdp.mode(all), .frags = xdp.has_frags && xdp.has_frags(all)};
    for (struct xdp_program *each = xdp.next(NULL, all); each && out->count < XS_LIBXDP_PROGRAMS;
         each = xdp.next(each, all)) {
        struct xs_libxdp_program *one = &out->program[out->count++];

        one->id = xdp.id(each);
        one->priority = xdp.run_prio(each);
        strncpy(one->name, xdp.name(each), sizeof one->name - 1);
    }
    xdp.close_all(all);
    return 0;
}

int xs_libxdp_attach(struct bpf_object *object, const char *section, uint32_t ifindex, uint32_t mode) {
    struct xdp_program *program = xdp.from_bpf_obj(object, section);
    int error = (int)xdp.get_error(program), result;
    struct xdp_multiprog *all;

    if (error) return error;
    if (xdp.set_frags && !strcmp(section, "xdp.frags")) xdp.set_frags(program, true);
    result = xdp.attach(program, (int)ifindex, mode, 0);
    if (!result) {
        result = get(ifindex, &all);
        if (!result)
            xdp.close_all(all);
        else /* it found the kernel or the dispatcher wanting, and attached the program alone */
            xdp.detach(program, (int)ifindex, mode, 0);
    }
    xdp.close(program);
    return result;
}

int xs_libxdp_remove(uint32_t ifindex, uint32_t program_id, uint32_t mode) {
    struct xdp_multiprog *all;
    int result = get(ifindex, &all);

    if (result) return result;
    result = -ENOENT;
    for (struct xdp_program *each = xdp.next(NULL, all); each; each = xdp.next(each, all)) {
        if (xdp.id(each) != program_id) continue;
        result = xdp.detach(each, (int)ifindex, mode, 0);
        break;
    }
    xdp.close_all(all);
    return result;
}

void xs_libxdp_forget(uint32_t ifindex) {
    if (xdp.clean) xdp.clean((int)ifindex);
}
