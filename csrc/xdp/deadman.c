/* The dead-man deadline in memory that the XDP program reads too: whoever maps it renews it with one 64-bit
 * store. */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include "bpf/xdpstack_maps.h"
#include "ffi/20_libbpf.cdef.h"

int xs_deadman_map(int map_fd, struct xs_xdp_deadman **out) {
    void *mapping = mmap(NULL, sizeof(struct xs_xdp_deadman), PROT_READ | PROT_WRITE, MAP_SHARED, map_fd, 0);

    if (mapping == MAP_FAILED) return -errno;
    if (madvise(mapping, sizeof(struct xs_xdp_deadman), MADV_DONTFORK)) {
        int error = errno;

        munmap(mapping, sizeof(struct xs_xdp_deadman));
        return -error;
    }
    *out = mapping;
    return 0;
}

void xs_deadman_unmap(struct xs_xdp_deadman *deadman) { munmap(deadman, sizeof(*deadman)); }
