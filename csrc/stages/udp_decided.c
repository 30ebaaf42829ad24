/* udp.rx and udp.tx when Python does their work: what is left to C once Python has decided. Contract: xdpstack/udp/layer.py;
 * what Python decides and writes: xdpstack/udp/engine.py. */
#include "stages/udp_look.h"

/* By its index: the socket that Python chose may have been closed since. */
static struct xs_socket *open_socket(const struct xs_socket_table *t, uint32_t index) {
    for (uint32_t i = 0; i < t->nentries; i++)
        if (t->entry[i].socket->index == index) return t->entry[i].socket;
    return NULL;
}

static void deliver(struct xs_udp *self, struct xs_batch *b, uint32_t i, const struct xs_delivery *d,
                    const struct xs_socket_table *t, uint32_t ulen) {
    struct xs_socket *s = open_socket(t, d->socket);
    if (!s) return xs_drop(b, i, XS_REASON_NO_SOCKET);
    if (d->bytes == XS_DELIVERY_REFUSED) return refuse(self, b, i, s);
    xs_pkt(b, i)->payload_len = (uint16_t)d->bytes;
    xs_udp_deliver_filtered(self, b, i, s, ulen);
}

void xs_udp_rx_decided(struct xs_udp *self, struct xs_batch *b) {
    const struct xs_socket_table *t = xs_table(self->tables, sockets);
    const struct xs_delivery *d = self->decided;
    uint32_t k = 0, nd = self->ndecided;
    if (!t) t = &xs_no_sockets;
    self->busy = true;
    for (uint32_t i = 0, n = b->n; i < n; i++) { /* copies are appended behind */
        b->count[XS_UDP_RX_PARTIAL] += xs_pkt(b, i)->csum == XS_CSUM_PARTIAL;
        uint32_t ulen = xs_pkt(b, i)->payload_len + XS_UDP_BYTES;
        for (; k < nd && d[k].packet == i; k++) {
            bool last = k + 1 == nd || d[k + 1].packet != i;
            int at = last ? (int)i : xs_udp_clone(self, b, i);
            if (at >= 0) deliver(self, b, (uint32_t)at, &d[k], t, ulen);
        }
    }
}

void xs_udp_tx_decided(struct xs_udp *self, struct xs_batch *b) {
    for (uint32_t i = 0; i < b->n; i++)
        if (b->next[i] == XS_UDP_TX_OUTPUT) b->count[XS_UDP_TX_BYTES] += xs_pkt(b, i)->payload_len;
}
