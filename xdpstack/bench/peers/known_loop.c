/* A loop of two instructions a round: known_loop ROUNDS. Prints the ns of CPU time that it took.
 *
 * Where the clock counts instructions that is twice ROUNDS, and what interrupts took meanwhile.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void loop(uint64_t rounds) {
#if defined(__x86_64__)
    __asm__ volatile("1: dec %0\n\tjnz 1b" : "+r"(rounds) : : "cc");
#elif defined(__aarch64__)
    __asm__ volatile("1: subs %0, %0, #1\n\tb.ne 1b" : "+r"(rounds) : : "cc");
#else
#error "what a round is in instructions is not known here"
#endif
}

static uint64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int main(int argc, char **argv) {
    uint64_t rounds = argc == 2 ? strtoull(argv[1], NULL, 10) : 0;
    if (!rounds) return fprintf(stderr, "usage: known_loop ROUNDS\n"), 2;
    uint64_t before = cpu_ns();
    loop(rounds);
    printf("%llu\n", (unsigned long long)(cpu_ns() - before));
}
