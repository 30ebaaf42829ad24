/* Live frames: the cheapest sender there is on veth. generator send IFNAME FRAMEFILE COUNTFILE [BACKFILE]
 *                                                    generator count IFNAME COUNTFILE | generator pass IFNAME
 *
 * `send` runs a two-instruction XDP program (return XDP_TX) over the frame in FRAMEFILE with BPF_F_TEST_XDP_LIVE_FRAMES: the
 * kernel sends real frames out of IFNAME without making an skb, so the receiver is what is measured. It goes on until it is
 * killed, and adds what it has sent to COUNTFILE (8 bytes, mapped). The receiving veth needs a native XDP program.
 * `count` attaches a program that drops what comes and counts it, into COUNTFILE; `send` does so too, for BACKFILE.
 * `pass` attaches one that passes everything to the kernel. All print "ready", and run until they are killed.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PER_CALL (1u << 18) /* frames a call: setting one up costs milliseconds */
#define LOOK_US 2000        /* how often the count is copied out */

/* The count as the program keeps it, and where it is wanted. */
struct copy {
    volatile uint64_t *from, *to;
};

static int load(int verdict) {
    struct bpf_insn code[] = {
        {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, verdict},
        {BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
    };
    LIBBPF_OPTS(bpf_prog_load_opts, options);
    return bpf_prog_load(BPF_PROG_TYPE_XDP, "generator", "GPL", code, 2, &options);
}

static int load_counting(int map) {
    struct bpf_insn code[] = {
        {BPF_LD | BPF_DW | BPF_IMM, BPF_REG_1, BPF_PSEUDO_MAP_VALUE, 0, map},
        {0, 0, 0, 0, 0},
        {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_2, 0, 0, 1},
        {BPF_STX | BPF_ATOMIC | BPF_DW, BPF_REG_1, BPF_REG_2, 0, BPF_ADD},
        {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, XDP_DROP},
        {BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
    };
    LIBBPF_OPTS(bpf_prog_load_opts, options);
    return bpf_prog_load(BPF_PROG_TYPE_XDP, "counter", "GPL", code, sizeof code / sizeof code[0], &options);
}

static int fail(const char *what) { return fprintf(stderr, "generator: %s: %s\n", what, strerror(errno)), 1; }

static int attach(int program, int ifindex) {
    LIBBPF_OPTS(bpf_link_create_opts, link, .flags = XDP_FLAGS_DRV_MODE);
    return program < 0 ? -1 : bpf_link_create(program, ifindex, BPF_XDP, &link);
}

static volatile uint64_t *map_count(const char *path) {
    int fd = open(path, O_RDWR);
    void *at = fd < 0 ? MAP_FAILED : mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) exit(fail(path));
    return at;
}

static int ready(void) { return puts("ready"), fflush(stdout); }

static void *go_on_copying(void *argument) {
    const struct copy *copy = argument;
    for (;;) {
        *copy->to = *copy->from;
        usleep(LOOK_US);
    }
    return NULL;
}

static void start_counting(int ifindex, const char *path, struct copy *copy) {
    LIBBPF_OPTS(bpf_map_create_opts, mappable, .map_flags = BPF_F_MMAPABLE);
    int map = bpf_map_create(BPF_MAP_TYPE_ARRAY, "count", 4, 8, 1, &mappable);
    void *at = map < 0 ? MAP_FAILED : mmap(NULL, 8, PROT_READ, MAP_SHARED, map, 0);
    if (at == MAP_FAILED || attach(load_counting(map), ifindex) < 0) exit(fail("attach the counter"));
    *copy = (struct copy){at, map_count(path)};
}

static int send_for_ever(int ifindex, const char *frame_path, volatile uint64_t *count) {
    static char frame[4096];
    ssize_t len = read(open(frame_path, O_RDONLY), frame, sizeof frame);
    int program = load(XDP_TX);
    if (len < 14 || program < 0) return fail("start");
    struct xdp_md context = {.data_end = (uint32_t)len, .ingress_ifindex = (uint32_t)ifindex};
    ready();
    for (;;) {
        LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = frame, .data_size_in = (uint32_t)len,
                    .ctx_in = &context, .ctx_size_in = sizeof context, .repeat = PER_CALL,
                    .flags = BPF_F_TEST_XDP_LIVE_FRAMES);
        if (bpf_prog_test_run_opts(program, &run) && errno != EINTR) return fail("run");
        *count += PER_CALL;
    }
}

int main(int argc, char **argv) {
    int ifindex = argc > 2 ? (int)if_nametoindex(argv[2]) : 0;
    const char *mode = ifindex ? argv[1] : "";
    static struct copy copy;
    pthread_t thread;
    if (argc == 3 && !strcmp(mode, "pass")) {
        if (attach(load(XDP_PASS), ifindex) < 0) return fail("attach");
        ready();
        return pause();
    }
    if (argc == 4 && !strcmp(mode, "count")) {
        start_counting(ifindex, argv[3], &copy);
        ready();
        go_on_copying(&copy);
    }
    if (argc < 5 || argc > 6 || strcmp(mode, "send"))
        return fprintf(stderr, "usage: generator send IFNAME FRAMEFILE COUNTFILE [BACKFILE] | "
                               "count IFNAME COUNTFILE | pass IFNAME\n"),
               2;
    if (argc == 6) {
        start_counting(ifindex, argv[5], &copy);
        if (pthread_create(&thread, NULL, go_on_copying, &copy)) return fail("start a thread");
    }
    return send_for_ever(ifindex, argv[3], map_count(argv[4]));
}
