/* libxdp's dispatcher, by which an interface has several XDP programs (csrc/xdp/libxdp.c). Read by cffi and by C; plain
 * declarations only. All are for the network namespace of the calling thread, and return 0 or a negative errno. */

struct bpf_object;

/* libxdp's enum xdp_attach_mode. */
#define XS_LIBXDP_NATIVE 1
#define XS_LIBXDP_GENERIC 2

/* Before all others. -ENOENT: it is not installed; -ENOSYS: it is older than 1.2; -EXDEV: it has another libbpf than ours. */
int xs_libxdp_load(void);

/* The programs that the dispatcher of an interface calls, in order. */
#define XS_LIBXDP_PROGRAMS 10
struct xs_libxdp_program {
    uint32_t id;
    uint32_t priority;
    char name[64];
};
struct xs_libxdp_dispatcher {
    uint32_t mode; /* XS_LIBXDP_* */
    bool frags;    /* it takes frames of several buffers */
    uint32_t count;
    struct xs_libxdp_program program[XS_LIBXDP_PROGRAMS];
};
/* -ENOENT: there is no program; -EOPNOTSUPP: there is one that is no dispatcher. */
int xs_libxdp_list(uint32_t ifindex, struct xs_libxdp_dispatcher *out);

/* Loads the object, of which one program is to be loaded, that of `section`, and has the dispatcher call it.
 * -EOPNOTSUPP: there cannot be a dispatcher; then nothing is attached. */
int xs_libxdp_attach(struct bpf_object *object, const char *section, uint32_t ifindex, uint32_t mode);
/* Has the dispatcher call that program no more; it goes with the last one. -ENOENT: it is not called. */
int xs_libxdp_remove(uint32_t ifindex, uint32_t program_id, uint32_t mode);
/* Removes what is pinned for an interface that is gone. */
void xs_libxdp_forget(uint32_t ifindex);
