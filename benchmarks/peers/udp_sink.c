/* The kernel's own way: a UDP socket read in C. udp_sink PORT COUNTFILE
 * recvmmsg of 64 datagrams at a time; the number seen goes to COUNTFILE (8 bytes, mapped); prints "ready". */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define BATCH 64

int main(int argc, char **argv) {
    if (argc != 3) return fprintf(stderr, "usage: udp_sink PORT COUNTFILE\n"), 2;
    int fd = socket(AF_INET, SOCK_DGRAM, 0), count_fd = open(argv[2], O_RDWR);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    volatile uint64_t *count = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, count_fd, 0);
    int room = 1 << 20; /* as every subject of this comparison asks for */
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) ||
        bind(fd, (struct sockaddr *)&address, sizeof address) || count == MAP_FAILED)
        return perror("udp_sink"), 1;
    static char data[BATCH][2048];
    static struct sockaddr_in from[BATCH];
    struct iovec part[BATCH];
    struct mmsghdr message[BATCH];
    for (int i = 0; i < BATCH; i++) {
        part[i] = (struct iovec){data[i], sizeof data[i]};
        message[i].msg_hdr = (struct msghdr){
            .msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &part[i], .msg_iovlen = 1};
    }
    puts("ready");
    fflush(stdout);
    for (uint64_t total = 0;;) {
        int n = recvmmsg(fd, message, BATCH, MSG_WAITFORONE, NULL);
        if (n < 0) return perror("recvmmsg"), 1;
        *count = total += (uint64_t)n;
    }
}
