/* Live frames: the cheapest sender there is on veth. generator send IFNAME FRAMEFILE COUNTFILE | generator pass IFNAME
 *
 * `send` runs a two-instruction XDP program (return XDP_TX) over the frame in FRAMEFILE with BPF_F_TEST_XDP_LIVE_FRAMES: the
 * kernel sends real frames out of IFNAME without making an skb, so the receiver is what is measured. It goes on until it is
 * killed, and adds what it has sent to COUNTFILE (8 bytes, mapped). The receiving veth needs a native XDP program.
 * `pass` is one: it attaches a program that passes everything to the kernel, prints "ready", and waits to be killed.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PER_CALL (1u << 18) /* frames a call: setting one up costs milliseconds */

static int load(int verdict) {
    struct bpf_insn code[] = {
        {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, verdict},
        {BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
    };
    LIBBPF_OPTS(bpf_prog_load_opts, options);
    return bpf_prog_load(BPF_PROG_TYPE_XDP, "generator", "GPL", code, 2, &options);
}

static int fail(const char *what) { return fprintf(stderr, "generator: %s: %s\n", what, strerror(errno)), 1; }

static int pass(int ifindex) {
    LIBBPF_OPTS(bpf_link_create_opts, link, .flags = XDP_FLAGS_DRV_MODE);
    int program = load(XDP_PASS);
    if (program < 0 || bpf_link_create(program, ifindex, BPF_XDP, &link) < 0) return fail("attach");
    puts("ready");
    fflush(stdout);
    return pause();
}

int main(int argc, char **argv) {
    int ifindex = argc > 2 ? (int)if_nametoindex(argv[2]) : 0;
    if (argc == 3 && !strcmp(argv[1], "pass") && ifindex) return pass(ifindex);
    if (argc != 5 || strcmp(argv[1], "send") || !ifindex)
        return fprintf(stderr, "usage: generator send IFNAME FRAMEFILE COUNTFILE | pass IFNAME\n"), 2;
    static char frame[4096];
    int frame_fd = open(argv[3], O_RDONLY), count_fd = open(argv[4], O_RDWR);
    ssize_t len = read(frame_fd, frame, sizeof frame);
    volatile uint64_t *count = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, count_fd, 0);
    int program = load(XDP_TX);
    if (len < 14 || count == MAP_FAILED || program < 0) return fail("start");
    struct xdp_md context = {.data_end = (uint32_t)len, .ingress_ifindex = (uint32_t)ifindex};
    puts("ready");
    fflush(stdout);
    for (;;) {
        LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = frame, .data_size_in = (uint32_t)len,
                    .ctx_in = &context, .ctx_size_in = sizeof context, .repeat = PER_CALL,
                    .flags = BPF_F_TEST_XDP_LIVE_FRAMES);
        if (bpf_prog_test_run_opts(program, &run) && errno != EINTR) return fail("run");
        *count += PER_CALL;
    }
}
