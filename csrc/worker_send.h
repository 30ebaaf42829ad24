/* Whole frames of the user's on their way out: into frames of ours, and onto the walk where tc's egress is. */
#ifndef XS_WORKER_SEND_H
#define XS_WORKER_SEND_H

#include "stack.h"

#include "ffi/72_send.cdef.h"

/* The worker's queue of a device, or NULL. */
struct xs_xsk *xs_queue_of(const struct xs_worker *w, uint32_t device);

/* Whether so many bytes could be a frame that is sent, over `frags_max` of ours at most: 0, -EINVAL (no Ethernet header) or
 * -EMSGSIZE. */
int xs_sendable(const struct xs_mem *mem, uint32_t frags_max, uint64_t bytes);

/* The bytes into frames of the worker's pool, as many as it takes: the first, or XS_NO_FRAME, and nothing taken. */
uint32_t xs_make_packet(struct xs_worker *w, const uint8_t *data, uint32_t bytes, uint32_t device);

/* To be called before packets are made: frames come home, from readers and from completions. Returns for how many packets there
 * is room, in the TX ring of the device and behind it. */
uint32_t xs_make_room(struct xs_worker *w, uint32_t device);

#endif
