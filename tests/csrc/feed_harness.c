/* A socket from inside: the ring of its first feed, which bystanders have in hand; an ICMP error that waits to be raised. */
#include "tables/sockets.h"

void *feed_ring(struct xs_socket *s) { return s->feed[0].ring; }
uint32_t ring_slots(struct xs_spsc *r) { return r->mask + 1; }
uint32_t ring_length(struct xs_spsc *r) { return xs_spsc_len(r); }
void set_error(struct xs_socket *s, int error) { s->error = error; }
