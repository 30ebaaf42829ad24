/* A frame as one line of text, for traces and tests. */
#ifndef XS_WIRE_PRINT_H
#define XS_WIRE_PRINT_H

#include <stdint.h>

#include "ffi/15_wire.cdef.h"

#endif
