/* Rows of the path whose work Python does (xdpstack/engines.py): the packets of such a row are parked as for a hook, Python
 * decides, and gives them back with what only C can do. Read by cffi and by C; plain declarations only. */

struct xs_worker;

/* The row `name` as a node that parks its packets. Its edges, counters and tick are those of the C stage. As
 * xs_worker_add_stage(). */
int xs_worker_add_engine(struct xs_worker *worker, const char *name);

#define XS_DELIVERY_REFUSED 0xffffffff

/* A packet of udp.rx goes to a socket. Of several for one packet all but the last get a copy. The packet's ports,
 * payload_off and payload_len (before any filter) are set. */
struct xs_delivery {
    uint32_t packet; /* its place among those that are given back, in ascending order */
    uint32_t socket; /* index; a socket that is in no table any more is NO_SOCKET */
    uint32_t
        bytes; /* of the payload, as the socket's filter left it; or XS_DELIVERY_REFUSED: it left nothing */
};

/* What became of a packet that was given back, as of the end of that walk. */
struct xs_outcome {
    uint16_t reason; /* why it was dropped; 0: it was not */
    uint8_t device;  /* that it left by, if it was sent */
    uint8_t parked;  /* 1: it waits for the next Python hook, and the rest is not known yet */
};

/* xs_worker_resume(), with deliveries (udp.rx; NULL: none) and outcomes (NULL: nobody asks; else one for each). */
int xs_worker_resume_decided(struct xs_worker *worker, uint32_t node, const uint8_t *next,
                             const uint16_t *reason, uint32_t n, const struct xs_delivery *deliveries,
                             uint32_t ndeliveries, struct xs_outcome *outcomes);
