/* What the cffi module includes: the declarations of this folder (cffi parsed the same text) and what they build on. */
#ifndef XS_FFI_NATIVE_H
#define XS_FFI_NATIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "bpf/xdpstack_maps.h"
#include "bpf/xdpstack_redirect_err.cdef.h"
#include "ffi/10_core.cdef.h"
#include "ffi/15_wire.cdef.h"
#include "ffi/16_by_hand.cdef.h"
#include "ffi/17_threads.cdef.h"
#include "ffi/17_vlan.cdef.h"
#include "ffi/18_offload.cdef.h"
#include "ffi/20_libbpf.cdef.h"
#include "ffi/21_libxdp.cdef.h"
#include "ffi/40_fake.cdef.h"
#include "base/events.h" /* and through it ffi/51_neigh.cdef.h */
#include "ffi/62_engine.cdef.h"
#include "ffi/70_frames.cdef.h"
#include "ffi/71_redirects.cdef.h"
#include "ffi/72_rps.cdef.h"
#include "ffi/72_send.cdef.h"
#include "include/xdpstack_stage.h"
#include "tables/config.h"
#include "tables/fib.h"
#include "tables/sockets.h"
#include "walk_trace.h" /* and through it ffi/11_trace.cdef.h */
#include "watchdog.h"
#include "xsk/xsk.h"

#endif
