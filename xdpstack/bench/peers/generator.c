/* Live frames: the cheapest sender there is on veth. generator send IFNAME FRAMEFILE COUNTFILE [BACKFILE]
 *                                                    generator count IFNAME COUNTFILE | generator pass IFNAME
 *
 * `send` runs an XDP program that counts, and returns XDP_TX, over the frame in FRAMEFILE with BPF_F_TEST_XDP_LIVE_FRAMES: the
 * kernel sends real frames out of IFNAME without making an skb, so the receiver is what is measured. It goes on until it is
 * killed, and adds what it has sent to COUNTFILE (8 bytes, mapped), as others may that send by other queues. The receiving
 * veth needs a native XDP program. Frames are of one page at most, as the kernel has it.
 * `count` attaches a program that drops what comes and adds it to COUNTFILE; `send` does so too, for BACKFILE.
 * `pass` attaches one that passes everything to the kernel. All print "ready", and run until they are killed.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PER_CALL (1u << 21) /* frames a call: setting one up costs tens of milliseconds */
#define LOOK_US 2000        /* how often the count is copied out */
#define HEADER_WORDS 5      /* of 8 bytes: Ethernet, IPv4, ports */

/* A count as a program keeps it, and those of the harness that it is added to. */
struct copy {
    volatile uint64_t *from;
    _Atomic(uint64_t) *to;
    uint64_t seen;
};

static int fail(const char *what) { return fprintf(stderr, "generator: %s: %s\n", what, strerror(errno)), 1; }

static int load(const struct bpf_insn *code, size_t n) {
    LIBBPF_OPTS(bpf_prog_load_opts, options, .prog_flags = BPF_F_XDP_HAS_FRAGS);
    return bpf_prog_load(BPF_PROG_TYPE_XDP, "generator", "GPL", code, n, &options);
}

static int load_passing(void) {
    struct bpf_insn code[] = {
        {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, XDP_PASS},
        {BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
    };
    return load(code, sizeof code / sizeof code[0]);
}

static int insert_counting(struct bpf_insn *code, int n, struct copy *copy) {
    LIBBPF_OPTS(bpf_map_create_opts, mappable, .map_flags = BPF_F_MMAPABLE);
    int map = bpf_map_create(BPF_MAP_TYPE_ARRAY, "count", 4, 8, 1, &mappable);
    void *at = map < 0 ? MAP_FAILED : mmap(NULL, 8, PROT_READ, MAP_SHARED, map, 0);
    if (at == MAP_FAILED) exit(fail("make a map"));
    copy->from = at;
    code[n++] = (struct bpf_insn){BPF_LD | BPF_DW | BPF_IMM, BPF_REG_1, BPF_PSEUDO_MAP_VALUE, 0, map};
    code[n++] = (struct bpf_insn){0};
    code[n++] = (struct bpf_insn){BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_2, 0, 0, 1};
    code[n++] = (struct bpf_insn){BPF_STX | BPF_ATOMIC | BPF_DW, BPF_REG_1, BPF_REG_2, 0, BPF_ADD};
    return n;
}

static int insert_return(struct bpf_insn *code, int n, int verdict) {
    code[n++] = (struct bpf_insn){BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, verdict};
    code[n++] = (struct bpf_insn){BPF_JMP | BPF_EXIT, 0, 0, 0, 0};
    return n;
}

/* Drops and counts into a map, which is `copy->from` then. Frames may come by several queues at once. */
static int load_counting(struct copy *copy) {
    struct bpf_insn code[8];
    return load(code, (size_t)insert_return(code, insert_counting(code, 0, copy), XDP_DROP));
}

/* The kernel uses pages again as they come back: headers are written anew, or who has forwarded one would get it as it was
 * sent on. */
static int load_sending(const char *frame, struct copy *copy) {
    struct bpf_insn code[8 + 4 + 3 * HEADER_WORDS];
    int n = 0;
    code[n++] = (struct bpf_insn){BPF_LDX | BPF_MEM | BPF_W, BPF_REG_2, BPF_REG_1, 0, 0}; /* data */
    code[n++] = (struct bpf_insn){BPF_LDX | BPF_MEM | BPF_W, BPF_REG_3, BPF_REG_1, 4, 0}; /* data_end */
    code[n++] = (struct bpf_insn){BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_4, BPF_REG_2, 0, 0};
    code[n++] = (struct bpf_insn){BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_4, 0, 0, 8 * HEADER_WORDS};
    code[n++] = (struct bpf_insn){BPF_JMP | BPF_JGT | BPF_X, BPF_REG_4, BPF_REG_3, 3 * HEADER_WORDS, 0};
    for (int i = 0; i < HEADER_WORDS; i++) {
        int32_t half[2];
        memcpy(half, frame + 8 * i, sizeof half);
        code[n++] = (struct bpf_insn){BPF_LD | BPF_DW | BPF_IMM, BPF_REG_5, 0, 0, half[0]};
        code[n++] = (struct bpf_insn){.imm = half[1]};
        code[n++] = (struct bpf_insn){BPF_STX | BPF_MEM | BPF_DW, BPF_REG_2, BPF_REG_5, (int16_t)(8 * i), 0};
    }
    n = insert_counting(code, n, copy);
    return load(code, (size_t)insert_return(code, n, XDP_TX));
}

/* Generic where the driver has nothing better. */
static int attach(int program, int ifindex) {
    return program < 0 ? -1 : bpf_link_create(program, ifindex, BPF_XDP, NULL);
}

static _Atomic(uint64_t) *map_count(const char *path) {
    int fd = open(path, O_RDWR);
    void *at = fd < 0 ? MAP_FAILED : mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) exit(fail(path));
    return at;
}

static int ready(void) { return puts("ready"), fflush(stdout); }

/* Up to the first without a program. */
static void *go_on_copying(void *argument) {
    for (struct copy *copies = argument;; usleep(LOOK_US))
        for (struct copy *copy = copies; copy->from; copy++) {
            uint64_t now = *copy->from;
            atomic_fetch_add_explicit(copy->to, now - copy->seen, memory_order_relaxed);
            copy->seen = now;
        }
    return NULL;
}

static void start_counting(int ifindex, const char *path, struct copy *copy) {
    copy->to = map_count(path);
    if (attach(load_counting(copy), ifindex) < 0) exit(fail("attach the counter"));
}

static int send_for_ever(int ifindex, const char *frame_path, struct copy *copies) {
    static char frame[4096];
    pthread_t thread;
    ssize_t len = read(open(frame_path, O_RDONLY), frame, sizeof frame);
    int program = len < 8 * HEADER_WORDS ? -1 : load_sending(frame, copies);
    if (program < 0 || pthread_create(&thread, NULL, go_on_copying, copies)) return fail("start");
    struct xdp_md context = {.data_end = (uint32_t)len, .ingress_ifindex = (uint32_t)ifindex};
    ready();
    for (;;) {
        LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = frame, .data_size_in = (uint32_t)len,
                    .ctx_in = &context, .ctx_size_in = sizeof context, .repeat = PER_CALL,
                    .flags = BPF_F_TEST_XDP_LIVE_FRAMES);
        if (bpf_prog_test_run_opts(program, &run) && errno != EINTR) return fail("run");
    }
}

int main(int argc, char **argv) {
    int ifindex = argc > 2 ? (int)if_nametoindex(argv[2]) : 0;
    const char *mode = ifindex ? argv[1] : "";
    static struct copy copies[3];
    if (argc == 3 && !strcmp(mode, "pass")) {
        if (attach(load_passing(), ifindex) < 0) return fail("attach");
        ready();
        return pause();
    }
    if (argc == 4 && !strcmp(mode, "count")) {
        start_counting(ifindex, argv[3], &copies[0]);
        ready();
        go_on_copying(copies);
    }
    if (argc < 5 || argc > 6 || strcmp(mode, "send"))
        return fprintf(stderr, "usage: generator send IFNAME FRAMEFILE COUNTFILE [BACKFILE] | "
                               "count IFNAME COUNTFILE | pass IFNAME\n"),
               2;
    copies[0].to = map_count(argv[4]);
    if (argc == 6) start_counting(ifindex, argv[5], &copies[1]);
    return send_for_ever(ifindex, argv[3], copies);
}
