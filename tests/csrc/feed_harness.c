/* What a bystander of a socket's queue has in hand: the ring of its first feed, and how much that holds. */
#include "tables/sockets.h"

void *feed_ring(struct xs_socket *s) { return s->feed[0].ring; }
uint32_t ring_slots(struct xs_spsc *r) { return r->mask + 1; }
uint32_t ring_length(struct xs_spsc *r) { return xs_spsc_len(r); }
