/* libbpf, as far as it is used: its own declarations, word for word, for cffi to parse. C reads them after
 * libbpf's headers, so the compiler holds the two against each other. What takes libbpf's growing option
 * structures is wrapped by csrc/xdp/ in functions of plain values. All return 0 or more, or a negative errno;
 * pointers are NULL with errno set. */

struct bpf_object;
struct bpf_program;
struct bpf_map;
struct bpf_map_batch_opts;

int bpf_object__load(struct bpf_object *obj);
void bpf_object__close(struct bpf_object *obj);
struct bpf_program *bpf_object__next_program(const struct bpf_object *obj, struct bpf_program *prog);
struct bpf_map *bpf_object__next_map(const struct bpf_object *obj, const struct bpf_map *map);

const char *bpf_program__name(const struct bpf_program *prog);
int bpf_program__fd(const struct bpf_program *prog);
int bpf_program__set_autoload(struct bpf_program *prog, bool autoload);
int bpf_program__set_log_buf(struct bpf_program *prog, char *log_buf, size_t log_size);
void bpf_program__set_ifindex(struct bpf_program *prog, uint32_t ifindex);
int bpf_program__set_attach_target(struct bpf_program *prog, int attach_prog_fd,
                                   const char *attach_func_name);
int bpf_program__set_flags(struct bpf_program *prog, uint32_t flags);

const char *bpf_map__name(const struct bpf_map *map);
int bpf_map__fd(const struct bpf_map *map);
uint32_t bpf_map__key_size(const struct bpf_map *map);
uint32_t bpf_map__value_size(const struct bpf_map *map);
uint32_t bpf_map__max_entries(const struct bpf_map *map);
int bpf_map__set_max_entries(struct bpf_map *map, uint32_t max_entries);
int bpf_map__set_ifindex(struct bpf_map *map, uint32_t ifindex);
int bpf_map__set_initial_value(struct bpf_map *map, const void *data, size_t size);
bool bpf_map__is_internal(const struct bpf_map *map);

int bpf_map_update_elem(int fd, const void *key, const void *value, unsigned long long flags);
int bpf_map_lookup_elem(int fd, const void *key, void *value);
int bpf_map_delete_elem(int fd, const void *key);
int bpf_map_get_next_key(int fd, const void *key, void *next_key);
int bpf_map_update_batch(int fd, const void *keys, const void *values, uint32_t *count,
                         const struct bpf_map_batch_opts *opts);

int bpf_obj_pin(int fd, const char *pathname);
int bpf_obj_get(const char *pathname);
int bpf_link_detach(int link_fd);
int bpf_raw_tracepoint_open(const char *name, int prog_fd);
int bpf_prog_get_fd_by_id(uint32_t id);
int bpf_link_get_fd_by_id(uint32_t id);
int bpf_link_get_next_id(uint32_t start_id, uint32_t *next_id);
int libbpf_num_possible_cpus(void);

/* From here on: csrc/xdp/libbpf.c. */

/* Collects what libbpf says on this thread into `buffer`, always terminated, until the end; too much is cut
 * off. */
void xs_bpf_log_begin(char *buffer, size_t bytes);
void xs_bpf_log_end(void);

/* Flag of a program that is loaded for one device, and may ask it for metadata: BPF_F_XDP_DEV_BOUND_ONLY, 6.3. */
#define XS_BPF_XDP_DEV_BOUND_ONLY 64

/* Opens an ELF object from memory, which is not needed after the call. */
int xs_bpf_open(const char *name, const void *elf, size_t bytes, struct bpf_object **out);

/* Attaches with a bpf_link: returns its file descriptor, and what was attached is gone when the last copy of
 * it is closed. `flags`: XS_BPF_XDP_*, or 0 for the kernel's choice. */
#define XS_BPF_XDP_GENERIC 2
#define XS_BPF_XDP_NATIVE 4
#define XS_BPF_XDP_OFFLOADED 8
int xs_bpf_xdp_attach(int program_fd, uint32_t ifindex, uint32_t flags);

/* The programs of an interface of the caller's network namespace; 0: none in that mode. */
struct xs_bpf_xdp_programs {
    uint32_t native_id;
    uint32_t generic_id;
    uint32_t offloaded_id;
};
int xs_bpf_xdp_query(uint32_t ifindex, struct xs_bpf_xdp_programs *out);

struct xs_bpf_program_info {
    uint32_t id;
    uint32_t type;
    uint64_t load_time_ns; /* since boot */
    uint32_t uid;
    char name[16];
};
int xs_bpf_program_info(int program_fd, struct xs_bpf_program_info *out);

struct xs_bpf_map_info {
    uint32_t id;
    uint32_t key_bytes;
    uint32_t value_bytes;
    uint32_t max_entries;
};
int xs_bpf_map_info(int map_fd, struct xs_bpf_map_info *out);
/* An array map of one element: its file descriptor. */
int xs_bpf_create_array(const char *name, uint32_t value_bytes);

#define XS_BPF_LINK_XDP 6
struct xs_bpf_link_info {
    uint32_t id;
    uint32_t type;
    uint32_t program_id;
    uint32_t ifindex; /* XDP only; 0: the interface is gone */
};
int xs_bpf_link_info(int link_fd, struct xs_bpf_link_info *out);

/* BPF_PROG_TEST_RUN of an XDP program. `ifindex` 0: the loopback of the namespace, queue 0. */
struct xs_bpf_test_run {
    const void *frame;
    uint32_t frame_bytes;
    uint32_t ifindex;
    uint32_t queue;
    uint32_t repeat;
    uint32_t verdict;        /* out: XDP_* */
    uint32_t duration_ns;    /* out: mean of the repeats */
    void *out;               /* out: the frame as the program left it, its metadata first */
    uint32_t out_bytes;      /* in: room; out: length */
    uint32_t metadata_bytes; /* out */
};
int xs_bpf_test_run(int program_fd, struct xs_bpf_test_run *run);

/* From csrc/xdp/deadman.c: maps xs_deadman. Not inherited by a forked child. */
struct xs_xdp_deadman;
int xs_deadman_map(int map_fd, struct xs_xdp_deadman **out);
void xs_deadman_unmap(struct xs_xdp_deadman *deadman);
