/* Round trips: udp_client ADDRESS PORT BYTES COUNTFILE LOSTFILE SAMPLEFILE
 *
 * Sends a datagram of BYTES, waits for the answer, notes how long it took, and again: one is under way at a time. Answers
 * that have not come within 100 ms are lost. SAMPLEFILE (mapped, its size as it is found) is filled with times of 4 bytes in
 * ns, the oldest overwritten; COUNTFILE and LOSTFILE (8 bytes, mapped) have how many there were. Prints "ready", and runs
 * until it is killed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *map_file(const char *path, size_t *bytes) {
    int fd = open(path, O_RDWR);
    struct stat about;
    if (fd < 0 || fstat(fd, &about)) return MAP_FAILED;
    *bytes = (size_t)about.st_size;
    return mmap(NULL, *bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

int main(int argc, char **argv) {
    if (argc != 7)
        return fprintf(stderr, "usage: udp_client ADDRESS PORT BYTES COUNTFILE LOSTFILE SAMPLEFILE\n"), 2;
    static char data[65536];
    int fd = socket(AF_INET, SOCK_DGRAM, 0), bytes = atoi(argv[3]);
    size_t size;
    volatile uint64_t *count = map_file(argv[4], &size), *lost = map_file(argv[5], &size);
    uint32_t *samples = map_file(argv[6], &size);
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    struct timeval patience = {.tv_usec = 100000};
    if (count == MAP_FAILED || lost == MAP_FAILED || samples == MAP_FAILED ||
        inet_pton(AF_INET, argv[1], &peer.sin_addr) != 1 ||
        connect(fd, (struct sockaddr *)&peer, sizeof peer) ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience))
        return perror("udp_client"), 1;
    if (bytes < 8) bytes = 8; /* room for the number */
    size_t slots = size / sizeof *samples;
    puts("ready");
    fflush(stdout);
    for (uint64_t number = 1;; number++) {
        memcpy(data, &number, sizeof number);
        uint64_t began = now_ns(), answered = 0;
        send(fd, data, (size_t)bytes, 0); /* refused while the server starts: then no answer comes either */
        while (answered != number) {      /* answers that were given up may still come */
            if (recv(fd, data, sizeof data, 0) < 8) break;
            memcpy(&answered, data, sizeof answered);
        }
        if (answered != number) {
            (*lost)++;
            continue;
        }
        uint64_t took = now_ns() - began;
        samples[*count % slots] = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
        (*count)++;
    }
}
