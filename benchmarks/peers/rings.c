/* The floor: an AF_XDP receive loop with nothing above it. rings IFNAME QUEUE RING COUNTFILE
 *
 * Polls, takes descriptors, touches the first bytes of each frame, and gives it back on the fill ring. No descriptor, no
 * pool, no stage. It writes the number of packets it has seen to COUNTFILE (8 bytes, mapped), prints "ready", and runs
 * until it is killed. The XDP program is six instructions: redirect to the queue's socket.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define FRAME 2048u

struct ring {
    _Atomic(uint32_t) *producer, *consumer;
    void *slots;
    uint32_t mask;
};

static void fail(const char *what) {
    fprintf(stderr, "rings: %s: %s\n", what, strerror(errno));
    exit(1);
}

static struct ring map_ring(int fd, uint64_t page, const struct xdp_ring_offset *off, uint32_t n,
                            size_t slot) {
    char *p =
        mmap(NULL, off->desc + n * slot, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, (off_t)page);
    if (p == MAP_FAILED) fail("mmap of a ring");
    return (struct ring){(void *)(p + off->producer), (void *)(p + off->consumer), p + off->desc, n - 1};
}

static int attach(int ifindex, int map) {
    struct bpf_insn code[] = {
        {BPF_LDX | BPF_MEM | BPF_W, BPF_REG_2, BPF_REG_1, 16, 0}, /* r2 = ctx->rx_queue_index */
        {BPF_LD | BPF_DW | BPF_IMM, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, map},
        {0, 0, 0, 0, 0},
        {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_3, 0, 0, XDP_PASS},
        {BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_redirect_map},
        {BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
    };
    LIBBPF_OPTS(bpf_prog_load_opts, options);
    int prog = bpf_prog_load(BPF_PROG_TYPE_XDP, "rings", "GPL", code, sizeof code / sizeof code[0], &options);
    if (prog < 0) fail("load the program");
    LIBBPF_OPTS(bpf_link_create_opts, link, .flags = XDP_FLAGS_DRV_MODE);
    int fd = bpf_link_create(prog, ifindex, BPF_XDP, &link);
    if (fd < 0) fail("attach the program");
    return fd;
}

int main(int argc, char **argv) {
    if (argc != 5) return fprintf(stderr, "usage: rings IFNAME QUEUE RING COUNTFILE\n"), 2;
    int ifindex = (int)if_nametoindex(argv[1]), queue = atoi(argv[2]);
    uint32_t n = (uint32_t)atoi(argv[3]), frames = 4 * n;
    int count_fd = open(argv[4], O_RDWR);
    volatile uint64_t *count = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, count_fd, 0);
    if (!ifindex || count == MAP_FAILED) fail(argv[1]);

    char *umem = mmap(NULL, (size_t)frames * FRAME, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    int fd = socket(AF_XDP, SOCK_RAW, 0);
    struct xdp_umem_reg reg = {
        .addr = (uint64_t)(uintptr_t)umem, .len = (uint64_t)frames * FRAME, .chunk_size = FRAME};
    uint32_t fill_n = 2 * n;
    if (fd < 0 || setsockopt(fd, SOL_XDP, XDP_UMEM_REG, &reg, sizeof reg)) fail("register the memory");
    if (setsockopt(fd, SOL_XDP, XDP_UMEM_FILL_RING, &fill_n, 4) ||
        setsockopt(fd, SOL_XDP, XDP_UMEM_COMPLETION_RING, &n, 4) ||
        setsockopt(fd, SOL_XDP, XDP_RX_RING, &n, 4))
        fail("make the rings");
    struct xdp_mmap_offsets off;
    socklen_t len = sizeof off;
    if (getsockopt(fd, SOL_XDP, XDP_MMAP_OFFSETS, &off, &len)) fail("ask for the offsets");
    struct ring rx = map_ring(fd, XDP_PGOFF_RX_RING, &off.rx, n, sizeof(struct xdp_desc));
    struct ring fill = map_ring(fd, XDP_UMEM_PGOFF_FILL_RING, &off.fr, fill_n, sizeof(uint64_t));
    struct sockaddr_xdp address = {.sxdp_family = AF_XDP,
                                   .sxdp_ifindex = (uint32_t)ifindex,
                                   .sxdp_queue_id = (uint32_t)queue,
                                   .sxdp_flags = XDP_USE_NEED_WAKEUP};
    for (int tries = 0; bind(fd, (struct sockaddr *)&address, sizeof address); tries++) {
        if (errno != EBUSY || tries == 100)
            fail("bind"); /* a socket closed just before lets go after a while */
        usleep(10000);
    }
    int map = bpf_map_create(BPF_MAP_TYPE_XSKMAP, "xsks", 4, 4, 64, NULL);
    if (map < 0 || bpf_map_update_elem(map, &queue, &fd, 0)) fail("enter the socket into the map");
    attach(ifindex, map);

    uint64_t *fill_slot = fill.slots;
    for (uint32_t i = 0; i < fill_n; i++) fill_slot[i & fill.mask] = (uint64_t)i * FRAME;
    uint32_t fill_at = fill_n, rx_at = 0;
    atomic_store_explicit(fill.producer, fill_at, memory_order_release);
    puts("ready");
    fflush(stdout);

    struct pollfd wait = {.fd = fd, .events = POLLIN};
    uint64_t total = 0, touched = 0;
    for (;;) {
        uint32_t have = atomic_load_explicit(rx.producer, memory_order_acquire) - rx_at;
        if (!have) {
            poll(&wait, 1, 100);
            continue;
        }
        if (have > 64) have = 64;
        const struct xdp_desc *slot = rx.slots;
        for (uint32_t i = 0; i < have; i++) {
            const struct xdp_desc *d = &slot[(rx_at + i) & rx.mask];
            touched += *(uint16_t *)(umem + d->addr + 12);
            fill_slot[(fill_at + i) & fill.mask] = d->addr & ~(uint64_t)(FRAME - 1);
        }
        rx_at += have;
        fill_at += have;
        atomic_store_explicit(rx.consumer, rx_at, memory_order_release);
        atomic_store_explicit(fill.producer, fill_at, memory_order_release);
        total += have;
        *count = total;
    }
    return (int)touched;
}
