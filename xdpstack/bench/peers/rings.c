/* The floor: AF_XDP loops with nothing above the rings. rings rx|echo IFNAME QUEUES RING COUNTFILE
 *                                                       rings tx IFNAME QUEUES RING COUNTFILE FRAMEFILE [RATE TOTAL]
 *                                                       rings forward IFNAME QUEUES RING COUNTFILE OTHER
 *
 * rx       takes descriptors, touches the first bytes of each frame, and gives it back on the fill ring.
 * echo     turns addresses and ports around and sends the frame back where it came from.
 * forward  sends what comes by a queue of IFNAME out by the same of OTHER; one UMEM, so that no frame is copied here.
 * tx       sends the frame in FRAMEFILE as fast as it can; or RATE a second (0: as it can), TOTAL of them.
 *
 * No descriptor, no pool, no stage. One port for each of the first QUEUES queues, one thread that polls them all. The number
 * of packets received (sent, for the others) goes to COUNTFILE (8 bytes, mapped); it prints "ready" and runs until it is
 * killed. The XDP program is six instructions: redirect to the queue's socket. Where the MTU does not fit a chunk of the
 * memory, packets are chains of chunks (XDP_USE_SG).
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
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef XDP_USE_SG /* headers before Linux 6.6 */
#define XDP_USE_SG (1 << 4)
#define XDP_PKT_CONTD (1 << 0)
#endif

#define FRAME 2048u
#define ROOM        \
    (FRAME - 256u - \
     14u) /* what is left of a chunk for IP, after the kernel's headroom and the Ethernet header */
#define LARGEST 9216u
#define BURST 64u
#define QUEUES 64
#define PORTS (2 * QUEUES) /* one a queue, and one a queue of the device that is forwarded to */

struct ring {
    _Atomic(uint32_t) *producer, *consumer, *flags;
    void *slots;
    uint32_t mask, at;
};

/* One queue of a device: its socket and four rings. `inside`: the last descriptor that was passed on is not a packet's last. */
struct port {
    int fd, inside;
    struct ring rx, tx, fill, done;
};

static char *umem;
static uint32_t ring_slots;
static int chains; /* whether packets may be of several chunks */

static void fail(const char *what) {
    fprintf(stderr, "rings: %s: %s\n", what, strerror(errno));
    exit(1);
}

static struct ring map_ring(int fd, uint64_t page, const struct xdp_ring_offset *off, uint32_t n,
                            size_t slot) {
    char *p =
        mmap(NULL, off->desc + n * slot, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, (off_t)page);
    if (p == MAP_FAILED) fail("mmap of a ring");
    return (struct ring){(void *)(p + off->producer),
                         (void *)(p + off->consumer),
                         (void *)(p + off->flags),
                         p + off->desc,
                         n - 1,
                         0};
}

/* Who only sends is content with whatever program is there. */
static void attach(int ifindex, int map, int only_sends) {
    struct bpf_insn code[] = {
        {BPF_LDX | BPF_MEM | BPF_W, BPF_REG_2, BPF_REG_1, 16, 0}, /* r2 = ctx->rx_queue_index */
        {BPF_LD | BPF_DW | BPF_IMM, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, map},
        {0, 0, 0, 0, 0},
        {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_3, 0, 0, XDP_PASS},
        {BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_redirect_map},
        {BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
    };
    LIBBPF_OPTS(bpf_prog_load_opts, options, .prog_flags = chains ? BPF_F_XDP_HAS_FRAGS : 0);
    int prog = bpf_prog_load(BPF_PROG_TYPE_XDP, "rings", "GPL", code, sizeof code / sizeof code[0], &options);
    if (prog < 0) fail("load the program");
    int fd = bpf_link_create(prog, ifindex, BPF_XDP, NULL); /* generic where the driver has nothing better */
    if (fd < 0 && !(only_sends && errno == EBUSY)) fail("attach the program");
}

static int has_chains(const char *name) {
    struct ifreq about = {0};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    strncpy(about.ifr_name, name, IFNAMSIZ - 1);
    if (fd < 0 || ioctl(fd, SIOCGIFMTU, &about)) fail(name);
    close(fd);
    return about.ifr_mtu > (int)ROOM;
}

/* Whether a socket of this device is granted zero-copy: by trying, with rings that are never mapped. */
static int has_zero_copy(int ifindex, uint32_t frames) {
    int fd = socket(AF_XDP, SOCK_RAW, 0);
    uint32_t n = ring_slots;
    struct xdp_umem_reg reg = {
        .addr = (uint64_t)(uintptr_t)umem, .len = (uint64_t)frames * FRAME, .chunk_size = FRAME};
    if (fd < 0 || setsockopt(fd, SOL_XDP, XDP_UMEM_REG, &reg, sizeof reg) ||
        setsockopt(fd, SOL_XDP, XDP_UMEM_FILL_RING, &n, 4) ||
        setsockopt(fd, SOL_XDP, XDP_UMEM_COMPLETION_RING, &n, 4) ||
        setsockopt(fd, SOL_XDP, XDP_RX_RING, &n, 4))
        fail("try zero-copy");
    struct sockaddr_xdp address = {.sxdp_family = AF_XDP,
                                   .sxdp_ifindex = (uint32_t)ifindex,
                                   .sxdp_flags = (uint16_t)(XDP_ZEROCOPY | (chains ? XDP_USE_SG : 0))};
    int granted = !bind(fd, (struct sockaddr *)&address, sizeof address);
    close(fd);
    return granted;
}

/* Bind a socket to a queue, with `flags`. The first registers the memory (`frames` of it), the others share it with `first`. */
static struct port open_port(int ifindex, uint32_t queue, uint32_t frames, const struct port *first,
                             uint16_t flags) {
    struct port p = {.fd = socket(AF_XDP, SOCK_RAW, 0)};
    struct xdp_umem_reg reg = {
        .addr = (uint64_t)(uintptr_t)umem, .len = (uint64_t)frames * FRAME, .chunk_size = FRAME};
    uint32_t n = ring_slots, fill_n = 2 * n;
    if (p.fd < 0 || (!first && setsockopt(p.fd, SOL_XDP, XDP_UMEM_REG, &reg, sizeof reg)))
        fail("register the memory");
    if (setsockopt(p.fd, SOL_XDP, XDP_UMEM_FILL_RING, &fill_n, 4) ||
        setsockopt(p.fd, SOL_XDP, XDP_UMEM_COMPLETION_RING, &n, 4) ||
        setsockopt(p.fd, SOL_XDP, XDP_RX_RING, &n, 4) || setsockopt(p.fd, SOL_XDP, XDP_TX_RING, &n, 4))
        fail("make the rings");
    struct xdp_mmap_offsets off;
    socklen_t len = sizeof off;
    if (getsockopt(p.fd, SOL_XDP, XDP_MMAP_OFFSETS, &off, &len)) fail("ask for the offsets");
    p.rx = map_ring(p.fd, XDP_PGOFF_RX_RING, &off.rx, n, sizeof(struct xdp_desc));
    p.tx = map_ring(p.fd, XDP_PGOFF_TX_RING, &off.tx, n, sizeof(struct xdp_desc));
    p.fill = map_ring(p.fd, XDP_UMEM_PGOFF_FILL_RING, &off.fr, fill_n, sizeof(uint64_t));
    p.done = map_ring(p.fd, XDP_UMEM_PGOFF_COMPLETION_RING, &off.cr, n, sizeof(uint64_t));
    struct sockaddr_xdp address = {
        .sxdp_family = AF_XDP,
        .sxdp_ifindex = (uint32_t)ifindex,
        .sxdp_queue_id = queue,
        .sxdp_flags =
            first ? XDP_SHARED_UMEM : (uint16_t)(flags | XDP_USE_NEED_WAKEUP | (chains ? XDP_USE_SG : 0)),
        .sxdp_shared_umem_fd = first ? (uint32_t)first->fd : 0};
    for (int tries = 0; bind(p.fd, (struct sockaddr *)&address, sizeof address); tries++) {
        if (errno != EBUSY || tries == 100)
            fail("bind"); /* a socket closed just before lets go after a while */
        usleep(10000);
    }
    return p;
}

/* Some drivers send in zero-copy only while a program is attached; this one passes all where no socket is entered. */
static int wants_program(const struct port *p) {
    struct xdp_options granted = {0};
    socklen_t len = sizeof granted;
    return !getsockopt(p->fd, SOL_XDP, XDP_OPTIONS, &granted, &len) && granted.flags & XDP_OPTIONS_ZEROCOPY;
}

static uint32_t available(const struct ring *r) {
    return atomic_load_explicit(r->producer, memory_order_acquire) - r->at;
}

static void give(struct ring *fill, uint64_t addr) {
    ((uint64_t *)fill->slots)[fill->at++ & fill->mask] = addr & ~(uint64_t)(FRAME - 1);
}

static void publish(struct ring *r) { atomic_store_explicit(r->producer, r->at, memory_order_release); }
static void consume(struct ring *r) { atomic_store_explicit(r->consumer, r->at, memory_order_release); }

/* What was sent comes home to `fill`. */
static void reap(struct port *p, struct ring *fill) {
    uint32_t have = available(&p->done);
    if (!have) return;
    for (uint32_t i = 0; i < have; i++) give(fill, ((uint64_t *)p->done.slots)[p->done.at++ & p->done.mask]);
    consume(&p->done);
    publish(fill);
}

/* Tell the kernel of what it has not taken yet: one call moves 32 frames in copy mode. Returns whether some are left. */
static int kick(struct port *p) {
    if (atomic_load_explicit(p->tx.consumer, memory_order_acquire) == p->tx.at) return 0;
    if (atomic_load_explicit(p->tx.flags, memory_order_relaxed) & XDP_RING_NEED_WAKEUP)
        sendto(p->fd, NULL, 0, MSG_DONTWAIT, NULL, 0);
    return 1;
}

static void swap(char *a, char *b, size_t n) {
    char kept[6];
    memcpy(kept, a, n);
    memcpy(a, b, n);
    memcpy(b, kept, n);
}

/* UDP over IPv4 without options or tag. Checksums are sums: they stay right. */
static void turn_around(char *frame) {
    swap(frame, frame + 6, 6);
    swap(frame + 26, frame + 30, 4);
    swap(frame + 34, frame + 36, 2);
}

static uint32_t rx(struct port *p, volatile uint16_t *touched, int whole) {
    uint32_t have = available(&p->rx), packets = 0;
    if (have > BURST) have = BURST;
    const struct xdp_desc *slot = p->rx.slots;
    uint16_t sum = 0;
    for (uint32_t i = 0; i < have; i++) {
        const struct xdp_desc *d = &slot[p->rx.at++ & p->rx.mask];
        sum = (uint16_t)(sum + *(uint16_t *)(umem + d->addr + 12));
        give(&p->fill, d->addr);
        if (!whole) packets += !(d->options & XDP_PKT_CONTD);
    }
    if (!have) return 0;
    *touched = sum;
    consume(&p->rx);
    publish(&p->fill);
    return whole ? have : packets;
}

/* What came by `in` leaves by `out`; the packets that have left whole. `idle` is cleared when there was anything to do. */
static uint32_t pass_on(struct port *in, struct port *out, int turn, int *idle) {
    reap(out, &in->fill);
    uint32_t have = available(&in->rx), packets = 0;
    uint32_t room = ring_slots - (out->tx.at - atomic_load_explicit(out->tx.consumer, memory_order_acquire));
    if (have > BURST) have = BURST;
    if (have > room) have = room;
    for (uint32_t i = 0; i < have; i++) {
        struct xdp_desc d = ((struct xdp_desc *)in->rx.slots)[in->rx.at++ & in->rx.mask];
        if (turn && !in->inside) turn_around(umem + d.addr);
        in->inside = d.options & XDP_PKT_CONTD;
        packets += !in->inside;
        ((struct xdp_desc *)out->tx.slots)[out->tx.at++ & out->tx.mask] = d;
    }
    if (have) {
        consume(&in->rx);
        publish(&out->tx);
    }
    if (kick(out) || have) *idle = 0;
    return packets;
}

/* How many frames are wanted, and by when: all at once unless there is a rate. */
struct wanted {
    uint64_t total, rate, began_ns, sent;
    uint32_t len, chunks;
};

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* How many may be sent now. */
static uint64_t due(const struct wanted *w) {
    uint64_t until_now = w->total;
    if (w->rate) {
        uint64_t by_rate = (uint64_t)((double)(now_ns() - w->began_ns) * 1e-9 * (double)w->rate);
        if (by_rate < until_now) until_now = by_rate;
    }
    return until_now - w->sent;
}

/* All packets are alike, and completions come in order: the chunks of the port's part of the memory go round. */
static uint32_t tx(struct port *p, uint64_t base, struct wanted *w) {
    uint32_t done = available(&p->done);
    if (done) {
        p->done.at += done;
        consume(&p->done);
    }
    uint64_t n = (ring_slots - (p->tx.at - p->done.at)) / w->chunks, may = due(w);
    if (n > may) n = may;
    if (n > BURST) n = BURST;
    uint32_t used = ring_slots - ring_slots % w->chunks, at = p->tx.at % used;
    for (uint64_t i = 0; i < n; i++) {
        if (at == used) at = 0;
        for (uint32_t left = w->len, more = 1; more; at++) {
            more = left > FRAME;
            uint32_t len = more ? FRAME : left;
            ((struct xdp_desc *)p->tx.slots)[p->tx.at++ & p->tx.mask] =
                (struct xdp_desc){base + (uint64_t)at * FRAME, len, more ? XDP_PKT_CONTD : 0};
            left -= len;
        }
    }
    if (n) publish(&p->tx);
    kick(p);
    w->sent += n;
    return (uint32_t)n;
}

/* The frame to send, as often as it fits, into a port's part of the memory. */
static void load_frames(const char *path, uint64_t base, struct wanted *w) {
    static char frame[LARGEST];
    int fd = open(path, O_RDONLY);
    ssize_t len = read(fd, frame, sizeof frame);
    close(fd);
    if (len < 14) fail(path);
    w->len = (uint32_t)len;
    w->chunks = (w->len + FRAME - 1) / FRAME;
    for (uint32_t i = 0; i + w->chunks <= ring_slots; i += w->chunks)
        memcpy(umem + base + (uint64_t)i * FRAME, frame, (size_t)len);
}

int main(int argc, char **argv) {
    if (argc < 6)
        return fprintf(stderr, "usage: rings MODE IFNAME QUEUES RING COUNTFILE [FRAMEFILE|OTHER]\n"), 2;
    char mode = argv[1][0]; /* r, e, t, f */
    int ifindex = (int)if_nametoindex(argv[2]), queues = atoi(argv[3]);
    int other = mode == 'f' && argc > 6 ? (int)if_nametoindex(argv[6]) : 0;
    ring_slots = (uint32_t)atoi(argv[4]);
    int count_fd = open(argv[5], O_RDWR);
    volatile uint64_t *count = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, count_fd, 0);
    if (!ifindex || count == MAP_FAILED || queues < 1 || queues > QUEUES || (mode == 'f' && !other))
        fail(argv[2]);
    chains = has_chains(argv[2]);

    uint32_t each = 2 * ring_slots, frames = each * (uint32_t)queues;
    umem = mmap(NULL, (size_t)frames * FRAME, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    static struct port port[PORTS];
    static struct pollfd wait[PORTS];
    struct wanted wanted = {.total = argc > 8 ? strtoull(argv[8], NULL, 10) : UINT64_MAX,
                            .rate = argc > 8 ? strtoull(argv[7], NULL, 10) : 0};
    if (umem == MAP_FAILED || (mode == 't' && argc < 7)) return 2;
    int map = bpf_map_create(BPF_MAP_TYPE_XSKMAP, "xsks", 4, 4, QUEUES, NULL);
    /* Memory that two devices share is zero-copy for both of them, or for neither. */
    uint16_t flags =
        other && !(has_zero_copy(ifindex, frames) && has_zero_copy(other, frames)) ? XDP_COPY : 0;
    for (int q = 0; q < queues; q++) {
        port[q] = open_port(ifindex, (uint32_t)q, frames, q ? port : NULL, flags);
        if (other) port[queues + q] = open_port(other, (uint32_t)q, frames, port, flags);
        wait[q] = (struct pollfd){.fd = port[q].fd, .events = POLLIN};
        uint64_t base = (uint64_t)q * each * FRAME;
        if (mode == 't') {
            load_frames(argv[6], base, &wanted);
            continue;
        }
        for (uint32_t i = 0; i < each; i++) give(&port[q].fill, base + (uint64_t)i * FRAME);
        publish(&port[q].fill);
        if (map < 0 || bpf_map_update_elem(map, &q, &port[q].fd, 0)) fail("enter the socket into the map");
    }
    if (mode != 't' || wants_program(port)) attach(ifindex, map, mode == 't');
    puts("ready");
    fflush(stdout);

    wanted.began_ns = now_ns();
    uint64_t total = 0;
    uint16_t touched;
    for (;;) {
        int idle = 1;
        uint64_t before = total;
        for (int q = 0; q < queues; q++) {
            struct port *p = &port[q];
            if (mode == 'r')
                total += chains ? rx(p, &touched, 0) : rx(p, &touched, 1);
            else if (mode == 't')
                total += tx(p, (uint64_t)q * each * FRAME, &wanted);
            else
                total += pass_on(p, other ? p + queues : p, mode == 'e', &idle);
        }
        if (total != before) *count = total;
        if (total == before && idle && mode != 't') poll(wait, (nfds_t)queues, 100);
    }
}
