/* libbpf for callers without its headers: its log in a buffer, its option structures filled from plain
 * values. */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>

#include "ffi/20_libbpf.cdef.h"
#include "xdp/log.h"

_Static_assert(XS_BPF_XDP_GENERIC == XDP_FLAGS_SKB_MODE, "flags are passed on");
_Static_assert(XS_BPF_XDP_NATIVE == XDP_FLAGS_DRV_MODE, "flags are passed on");
_Static_assert(XS_BPF_XDP_OFFLOADED == XDP_FLAGS_HW_MODE, "flags are passed on");
#ifdef BPF_F_XDP_DEV_BOUND_ONLY
_Static_assert(XS_BPF_XDP_DEV_BOUND_ONLY == BPF_F_XDP_DEV_BOUND_ONLY, "flags are passed on");
#endif
_Static_assert(XS_BPF_LINK_XDP == BPF_LINK_TYPE_XDP, "types are passed on");

/* libbpf has one printer for the whole process. Ours takes the lines of threads that collect and leaves all
 * others to the printer that was there, which may be another library's. */
static libbpf_print_fn_t previous_printer;
static __thread char *log_at;
static __thread size_t log_left;

void xs_bpf_log_add(const char *format, va_list arguments) {
    int length;

    if (!log_at) return;
    length = vsnprintf(log_at, log_left, format, arguments);
    if (length < 0) return;
    if ((size_t)length >= log_left) length = (int)log_left - 1;
    log_at += length;
    log_left -= (size_t)length;
}

__attribute__((format(printf, 2, 0))) static int print(enum libbpf_print_level level, const char *format,
                                                       va_list arguments) {
    if (!log_at) return previous_printer ? previous_printer(level, format, arguments) : 0;
    if (level != LIBBPF_DEBUG) xs_bpf_log_add(format, arguments);
    return 0;
}

void xs_bpf_log_begin(char *buffer, size_t bytes) {
    libbpf_print_fn_t printer = libbpf_set_print(print);

    if (printer != print) previous_printer = printer;
    buffer[0] = '\0';
    log_at = buffer;
    log_left = bytes;
}

void xs_bpf_log_end(void) { log_at = NULL; }

int xs_bpf_open(const char *name, const void *elf, size_t bytes, struct bpf_object **out) {
    LIBBPF_OPTS(bpf_object_open_opts, options, .object_name = name);
    struct bpf_object *object = bpf_object__open_mem(elf, bytes, &options);

    if (!object) return -errno;
    *out = object;
    return 0;
}

int xs_bpf_xdp_attach(int program_fd, uint32_t ifindex, uint32_t flags) {
    LIBBPF_OPTS(bpf_link_create_opts, options, .flags = flags);

    return bpf_link_create(program_fd, (int)ifindex, BPF_XDP, &options);
}

int xs_bpf_xdp_query(uint32_t ifindex, struct xs_bpf_xdp_programs *out) {
    LIBBPF_OPTS(bpf_xdp_query_opts, options);
    int error = bpf_xdp_query((int)ifindex, 0, &options);

    if (error) return error;
    *out = (struct xs_bpf_xdp_programs){
        .native_id = options.drv_prog_id,
        .generic_id = options.skb_prog_id,
        .offloaded_id = options.hw_prog_id,
    };
    return 0;
}

int xs_bpf_program_info(int program_fd, struct xs_bpf_program_info *out) {
    struct bpf_prog_info info = {0};
    uint32_t bytes = sizeof(info);
    int error = bpf_obj_get_info_by_fd(program_fd, &info, &bytes);

    if (error) return error;
    _Static_assert(sizeof(out->name) == sizeof(info.name), "copied whole");
    *out = (struct xs_bpf_program_info){
        .id = info.id,
        .type = info.type,
        .load_time_ns = info.load_time,
        .uid = info.created_by_uid,
    };
    memcpy(out->name, info.name, sizeof(out->name));
    return 0;
}

int xs_bpf_map_info(int map_fd, struct xs_bpf_map_info *out) {
    struct bpf_map_info info = {0};
    uint32_t bytes = sizeof(info);
    int error = bpf_obj_get_info_by_fd(map_fd, &info, &bytes);

    if (error) return error;
    *out = (struct xs_bpf_map_info){
        .id = info.id,
        .key_bytes = info.key_size,
        .value_bytes = info.value_size,
        .max_entries = info.max_entries,
    };
    return 0;
}

int xs_bpf_create_array(const char *name, uint32_t value_bytes) {
    return bpf_map_create(BPF_MAP_TYPE_ARRAY, name, sizeof(uint32_t), value_bytes, 1, NULL);
}

int xs_bpf_link_info(int link_fd, struct xs_bpf_link_info *out) {
    struct bpf_link_info info = {0};
    uint32_t bytes = sizeof(info);
    int error = bpf_obj_get_info_by_fd(link_fd, &info, &bytes);

    if (error) return error;
    *out = (struct xs_bpf_link_info){
        .id = info.id,
        .type = info.type,
        .program_id = info.prog_id,
        .ifindex = info.type == BPF_LINK_TYPE_XDP ? info.xdp.ifindex : 0,
    };
    return 0;
}

int xs_bpf_test_run(int program_fd, struct xs_bpf_test_run *run) {
    struct xdp_md in = {
        .data_end = run->frame_bytes, .ingress_ifindex = run->ifindex, .rx_queue_index = run->queue};
    struct xdp_md out = {0};
    LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = run->frame, .data_size_in = run->frame_bytes,
                .data_out = run->out, .data_size_out = run->out_bytes, .ctx_in = &in,
                .ctx_size_in = sizeof(in), .ctx_out = &out, .ctx_size_out = sizeof(out),
                .repeat = (int)run->repeat);
    int error = bpf_prog_test_run_opts(program_fd, &options);

    if (error) return error;
    run->verdict = options.retval;
    run->duration_ns = options.duration;
    run->out_bytes = options.data_size_out;
    run->metadata_bytes = out.data - out.data_meta;
    return 0;
}
