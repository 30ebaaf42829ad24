/* Asking for memory before it is needed. What is only asked for cannot fault, so that any address may be. */
#ifndef XS_BASE_PREFETCH_H
#define XS_BASE_PREFETCH_H

/* Asks for a cache line in order to write there: it is taken from the core that has it. GCC's own is an ordinary prefetch where
 * it may not suppose a CPU of 2014, and then the line is asked for again when it is written. An older CPU passes this over. */
static inline void xs_ask_to_write(const void *line) {
#ifdef __x86_64__
    __asm__ volatile("prefetchw %0" : : "m"(*(const char *)line));
#else
    __builtin_prefetch(line, 1);
#endif
}

#endif
