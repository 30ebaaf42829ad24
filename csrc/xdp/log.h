/* What libbpf and libxdp say on a thread that collects it (xs_bpf_log_begin): csrc/xdp/libbpf.c. */
#ifndef XS_XDP_LOG_H
#define XS_XDP_LOG_H

#include <stdarg.h>

/* Adds to it, as vprintf(3) would print; nothing on a thread that does not collect. */
__attribute__((format(printf, 1, 0))) void xs_bpf_log_add(const char *format, va_list arguments);

#endif
