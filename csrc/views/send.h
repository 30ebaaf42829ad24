/* What the calls that send (send_calls.c) ask of what sends (send.c). */
#ifndef XS_VIEWS_SEND_H
#define XS_VIEWS_SEND_H

#include "views/views.h"

#include <string.h>

struct outgoing {
    const uint8_t *data;
    Py_ssize_t bytes;
    uint8_t address[16]; /* a copy: while we wait for our turn, another thread may send to elsewhere */
    uint32_t scope;
    uint16_t port;
    bool to_peer;    /* without an address: to whom the socket is connected */
    int error;       /* errno, or 0; EAGAIN = not sent, later */
    uint16_t reason; /* why the walk did not send it */
    uint32_t frame;
};

static inline bool views_is_mapped(const uint8_t *address) {
    static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};
    return !memcmp(address, prefix, 12);
}

/* Sends up to XS_WEIGHT datagrams, but for those that have an error already, and sets `error` of each. False with an
 * exception: closed, and none was sent. */
bool views_transmit(struct socket_view *v, struct outgoing *out, uint32_t n);

/* The end of datagrams that were under way, by the reasons why they were dropped (0: they were not). */
void views_settle(struct socket_view *v, struct outgoing *out, uint32_t n, const uint16_t *reason);

#endif
