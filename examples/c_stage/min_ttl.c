/* A custom stage in C: drops packets whose TTL (hop limit) is below a limit, as RFC 5082 (GTSM) asks of a neighbour's.
 *
 *      cc -O2 -shared -fPIC -I "$(python -c 'import xdpstack; print(xdpstack.get_include())')" -o min_ttl.so min_ttl.c
 *
 *      stage = xdpstack.load_stage("./min_ttl.so")
 *      stack.hook("netfilter.input", stage)
 */
#include "xdpstack_stage.h"

enum { ACCEPT };  /* edges, in the order of min_ttl_def.edges */
enum { TOO_FAR }; /* counters, likewise */
enum { IPV4_TTL = 8, IPV6_HOP_LIMIT = 7 };

struct min_ttl {
    uint8_t least;
};

static void min_ttl(void *self, struct xs_batch *b) {
    const struct min_ttl *config = self;
    for (uint32_t i = 0; i < b->n; i++) {
        const struct xs_pkt *p = xs_pkt(b, i);
        const uint8_t *ip = xs_data(b, i) + p->l3_off;
        uint8_t ttl = ip[p->flags & XS_PKT_IPV6 ? IPV6_HOP_LIMIT : IPV4_TTL];
        b->next[i] = ACCEPT;
        if (ttl < config->least) {
            xs_drop(b, i, XS_REASON_HOOK);
            b->count[TOO_FAR]++;
        }
    }
}

static struct min_ttl config = {.least = 255};
static const struct xs_stage_def min_ttl_def = {
    .name = "min_ttl",
    .fn = min_ttl,
    .edges = {"accept"},
    .counters = {"too_far"},
};
XS_EXPORT_STAGE(min_ttl_def, &config)
