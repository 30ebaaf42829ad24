/* Which claims' frames leave again, and by which device. Immutable, replaced whole. The kernel's is a BPF_MAP_TYPE_DEVMAP. */
#ifndef XS_TABLES_REDIRECTS_H
#define XS_TABLES_REDIRECTS_H

#include <stdbool.h>
#include <stdint.h>

struct xs_redirects {
    uint32_t n;
    struct xs_redirect_entry {
        uint32_t claim_id;
        uint8_t device; /* by which the frame came: the stack's index */
        uint8_t to;     /* by which it leaves */
        bool swap;      /* the two MAC addresses change places */
    } entry[];
};

#endif
