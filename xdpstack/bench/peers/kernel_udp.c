/* The kernel's own way: UDP sockets in C. kernel_udp rx|echo|tx PORT COUNTFILE [plain|offload] [ADDRESS BYTES]
 *
 * rx and echo read recvmmsg() of 64; echo answers with sendmmsg(); tx sends datagrams of BYTES to ADDRESS. "offload" is
 * UDP_GRO on the way in and UDP_SEGMENT on the way out: a message is a train of datagrams then. The number of datagrams
 * received (sent, for the others) goes to COUNTFILE (8 bytes, mapped); it prints "ready" and runs until it is killed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define BATCH 64
#define ROOM 65536
#define TRAIN 60000 /* bytes of a message that is sent in segments, at most */

union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
};

static char data[BATCH][ROOM];
static struct sockaddr_in from[BATCH];
static struct iovec part[BATCH];
static struct mmsghdr message[BATCH];
static union control control[BATCH];

static void ready_for(int i, size_t len, size_t control_len) {
    part[i] = (struct iovec){data[i], len};
    message[i].msg_hdr = (struct msghdr){.msg_name = &from[i],
                                         .msg_namelen = sizeof from[i],
                                         .msg_iov = &part[i],
                                         .msg_iovlen = 1,
                                         .msg_control = control_len ? &control[i] : NULL,
                                         .msg_controllen = control_len};
}

/* Datagrams in a message, and the size that each but the last has. */
static unsigned datagrams(int i, int *size) {
    *size = (int)message[i].msg_len;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message[i].msg_hdr); c; c = CMSG_NXTHDR(&message[i].msg_hdr, c))
        if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) memcpy(size, CMSG_DATA(c), sizeof *size);
    return *size ? (message[i].msg_len + (unsigned)*size - 1) / (unsigned)*size : 1;
}

/* A control message that has it sent in segments of `size` bytes. */
static void segmented(int i, int size) {
    control[i].align = (struct cmsghdr){CMSG_LEN(sizeof(uint16_t)), SOL_UDP, UDP_SEGMENT};
    uint16_t segment = (uint16_t)size;
    memcpy(CMSG_DATA(&control[i].align), &segment, sizeof segment);
    message[i].msg_hdr.msg_control = &control[i];
    message[i].msg_hdr.msg_controllen = CMSG_SPACE(sizeof(uint16_t));
}

static int send_all(int fd, int n) {
    for (int at = 0; at < n;) {
        int sent = sendmmsg(fd, message + at, (unsigned)(n - at), 0);
        if (sent < 0 && errno != ENOBUFS) return perror("sendmmsg"), -1;
        at += sent < 0 ? 1 : sent;
    }
    return 0;
}

static int receive(int fd, int offload, int echo, volatile uint64_t *count) {
    size_t control_len = offload ? sizeof control[0] : 0;
    for (uint64_t total = 0;;) {
        for (int i = 0; i < BATCH; i++) ready_for(i, ROOM, control_len);
        int n = recvmmsg(fd, message, BATCH, MSG_WAITFORONE, NULL);
        if (n < 0) return perror("recvmmsg"), 1;
        for (int i = 0; i < n; i++) {
            int size;
            unsigned came = datagrams(i, &size);
            total += came;
            if (!echo) continue;
            ready_for(i, message[i].msg_len, 0);
            if (came > 1) segmented(i, size);
        }
        if (echo && send_all(fd, n)) return 1;
        *count = total;
    }
}

static int transmit(int fd, int offload, const char *address, int port, int bytes, volatile uint64_t *count) {
    int train = offload && bytes ? TRAIN / bytes > 64 ? 64 : TRAIN / bytes : 1;
    for (int i = 0; i < BATCH; i++) {
        from[i] = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        if (inet_pton(AF_INET, address, &from[i].sin_addr) != 1) return fprintf(stderr, "%s?\n", address), 2;
        ready_for(i, (size_t)(train * bytes), 0);
        if (train > 1) segmented(i, bytes);
    }
    for (uint64_t total = 0;;) {
        if (send_all(fd, BATCH)) return 1;
        *count = total += (uint64_t)(BATCH * train);
    }
}

int main(int argc, char **argv) {
    if (argc < 4)
        return fprintf(stderr, "usage: kernel_udp MODE PORT COUNTFILE [plain|offload] [ADDRESS BYTES]\n"), 2;
    int fd = socket(AF_INET, SOCK_DGRAM, 0), count_fd = open(argv[3], O_RDWR), on = 1;
    int port = atoi(argv[2]), offload = argc > 4 && !strcmp(argv[4], "offload");
    volatile uint64_t *count = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, count_fd, 0);
    int room = 1 << 20; /* as every subject of this comparison asks for */
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (count == MAP_FAILED || setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) ||
        (offload && setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof on)) ||
        bind(fd, (struct sockaddr *)&address, sizeof address))
        return perror("kernel_udp"), 1;
    puts("ready");
    fflush(stdout);
    if (argv[1][0] != 't') return receive(fd, offload, argv[1][0] == 'e', count);
    return argc > 6 ? transmit(fd, offload, argv[5], port, atoi(argv[6]), count) : 2;
}
