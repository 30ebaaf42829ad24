/* Makes the n-th call fail that our library, or libbpf for it, makes of the C library: no memory, no descriptor, no thread.
 *
 * Preloaded (LD_PRELOAD). Calls of anybody else, the Python interpreter above all, go through and are not counted.
 *
 *     failing_calls_arm(n)     from now on the n-th call fails with ENOMEM, once; 0: none does
 *     failing_calls_fired()    the name of the call that did, or NULL
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t n, size_t bytes);
extern void *__libc_memalign(size_t align, size_t bytes);

static _Atomic(int) left;
static _Atomic(const char *) fired;

void failing_calls_arm(int n) {
    atomic_store(&fired, NULL);
    atomic_store(&left, n);
}

const char *failing_calls_fired(void) { return atomic_load(&fired); }

static bool ours(const void *caller) {
    Dl_info info;
    return dladdr(caller, &info) && info.dli_fname &&
           (strstr(info.dli_fname, "_native") || strstr(info.dli_fname, "libbpf"));
}

/* Whether this call is the one that fails. */
static bool fails(const void *caller, const char *name) {
    if (atomic_load(&left) <= 0 || !ours(caller) || atomic_fetch_sub(&left, 1) != 1) return false;
    atomic_store(&fired, name);
    errno = ENOMEM;
    return true;
}

#define CALLER __builtin_extract_return_addr(__builtin_return_address(0))
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

void *malloc(size_t bytes) { return fails(CALLER, "malloc") ? NULL : __libc_malloc(bytes); }

void *calloc(size_t n, size_t bytes) { return fails(CALLER, "calloc") ? NULL : __libc_calloc(n, bytes); }

void *aligned_alloc(size_t align, size_t bytes) {
    return fails(CALLER, "aligned_alloc") ? NULL : __libc_memalign(align, bytes);
}

void *mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset) {
    return fails(CALLER, "mmap") ? MAP_FAILED : NEXT(mmap)(at, bytes, prot, flags, fd, offset);
}

void *mmap64(void *at, size_t bytes, int prot, int flags, int fd, off64_t offset) {
    return fails(CALLER, "mmap") ? MAP_FAILED : NEXT(mmap64)(at, bytes, prot, flags, fd, offset);
}

int eventfd(unsigned value, int flags) { return fails(CALLER, "eventfd") ? -1 : NEXT(eventfd)(value, flags); }

int epoll_create1(int flags) { return fails(CALLER, "epoll_create1") ? -1 : NEXT(epoll_create1)(flags); }

int epoll_ctl(int epoll, int what, int fd, struct epoll_event *event) {
    return fails(CALLER, "epoll_ctl") ? -1 : NEXT(epoll_ctl)(epoll, what, fd, event);
}

int timerfd_create(int clock, int flags) {
    return fails(CALLER, "timerfd_create") ? -1 : NEXT(timerfd_create)(clock, flags);
}

int socket(int family, int kind, int protocol) {
    return fails(CALLER, "socket") ? -1 : NEXT(socket)(family, kind, protocol);
}

int bind(int fd, const struct sockaddr *address, socklen_t bytes) {
    return fails(CALLER, "bind") ? -1 : NEXT(bind)(fd, address, bytes);
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t bytes) {
    return fails(CALLER, "setsockopt") ? -1 : NEXT(setsockopt)(fd, level, name, value, bytes);
}

int getsockopt(int fd, int level, int name, void *value, socklen_t *bytes) {
    return fails(CALLER, "getsockopt") ? -1 : NEXT(getsockopt)(fd, level, name, value, bytes);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *argument) {
    return fails(CALLER, "pthread_create") ? EAGAIN : NEXT(pthread_create)(thread, how, run, argument);
}

/* libbpf's bpf(2). */
long syscall(long number, ...) {
    long a[6];
    va_list rest;
    va_start(rest, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(rest, long);
    va_end(rest);
    return fails(CALLER, "syscall") ? -1 : NEXT(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
