/* Which way a branch nearly always goes: the compiler lays the code out for it. */
#ifndef XS_BASE_LIKELY_H
#define XS_BASE_LIKELY_H

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#endif
