/* A host for fuzz targets: a stack over two memory devices, wired as xdpstack/path.py says, with addresses, routes and sockets.
 *
 *      a0  02:00:00:00:00:01   10.0.0.1/24, 2001:db8::1/64     sockets on port 7, one of each family
 *      b0  02:00:00:00:00:02   10.0.1.1/24, 2001:db8:1::1/64   forwarding is on
 *      default routes via 10.0.1.254 and 2001:db8:1::fe on b0
 *
 * After each input the host is brought back to rest: everything delivered is read, everything sent is taken, time passes until
 * nothing is held. Then both ledgers must be exact, and no frame may be anywhere but free or in a fill ring.
 */
#ifndef XS_FUZZ_HOST_H
#define XS_FUZZ_HOST_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ffi/10_core.cdef.h"
#include "fake/fake.h"
#include "fuzz/path.h"
#include "stack.h"
#include "tables/fib.h"
#include "tables/neigh.h"
#include "tables/sockets.h"

#define FRAMES 128u
#define DEVICES 2u
#define SOCKETS 2u
#define ECHO_PORT 7u
#define SECOND 1000000000ull

struct host {
    struct xs_stack *stack;
    struct xs_worker *worker;
    struct xs_xsk *device[DEVICES];
    struct xs_socket *socket[SOCKETS];
    uint64_t now_ns;
};

static void must(bool holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "fuzz: %s\n", what);
    abort();
}

/* ---- wiring ---- */

static int node_of(const char *row) {
    for (uint32_t i = 0; xs_stage_name(i); i++)
        if (!strcmp(xs_stage_name(i), row)) return (int)i;
    return -1;
}

/* The node that packets sent to `row` reach, over absent rows; -1 when one of those cannot be passed. */
static int reach(const char *row) {
    static const struct {
        const char *row, *edge, *to;
        int passes;
    } edge[] = {
#define EDGE(row, edge, to, passes) {row, edge, to, passes},
        XS_PATH_EDGES(EDGE)
#undef EDGE
    };
    int node;
    while ((node = node_of(row)) < 0) {
        const char *onward = NULL;
        for (uint32_t i = 0; i < sizeof edge / sizeof edge[0]; i++)
            if (!strcmp(edge[i].row, row) && edge[i].passes) onward = edge[i].to;
        if (!onward) return -1;
        row = onward;
    }
    return node;
}

static void wire(struct xs_worker *w) {
    for (uint32_t i = 0; xs_stage_name(i); i++)
        must(xs_worker_add_stage(w, xs_stage_name(i)) == (int)i, "nodes are numbered as rows are");
#define WIRE(row, name, to, passes)                                                                   \
    for (uint32_t e = 0; node_of(row) >= 0 && e < 8 && xs_stage_edge((uint32_t)node_of(row), e); e++) \
        if (!strcmp(xs_stage_edge((uint32_t)node_of(row), e), name) && reach(to) >= 0)                \
            must(!xs_worker_wire(w, (uint32_t)node_of(row), e, (uint32_t)reach(to)), "wire");
    XS_PATH_EDGES(WIRE)
#undef WIRE
    for (uint32_t i = 0; i < w->walk.nnodes; i++)
        for (uint32_t e = 0; e < w->walk.node[i].nedges; e++)
            must(w->walk.node[i].edge[e] != XS_EDGE_NONE, "every edge leads somewhere");
    must(!xs_worker_set_entry(w, 0, (uint32_t)node_of("napi.rx")), "enter at napi.rx");
    must(!xs_worker_set_entry(w, 1, (uint32_t)node_of("routing.tx")), "enter at routing.tx");
}

/* ---- tables ---- */

#define A0 0x0a000001u
#define B0 0x0a000101u
#define ROUTER 0x0a0001feu
#define A0_6 \
    { 0x20010db800000000ull, 1 }
#define B0_6 \
    { 0x20010db800010000ull, 1 }
#define ROUTER_6 \
    { 0x20010db800010000ull, 0xfe }

static struct xs_fib_route_values route4(uint32_t prefix, uint32_t bits, uint32_t table, uint8_t type,
                                         uint32_t hop) {
    return (struct xs_fib_route_values){.prefix = xs_addr_of4(prefix),
                                        .length = (uint8_t)(96 + bits),
                                        .table = table,
                                        .type = type,
                                        .hop = hop,
                                        .nhops = 1,
                                        .detour = XS_HOP_NONE};
}

static struct xs_fib_route_values route6(uint64_t hi, uint64_t lo, uint32_t bits, uint32_t table,
                                         uint8_t type, uint32_t hop) {
    return (struct xs_fib_route_values){.prefix = {hi, lo},
                                        .length = (uint8_t)bits,
                                        .table = table,
                                        .type = type,
                                        .hop = hop,
                                        .nhops = 1,
                                        .detour = XS_HOP_NONE,
                                        .ipv6 = 1,
                                        .preference = 2};
}

enum { LOCAL, MAIN, TABLES };
enum { HOP_A0, HOP_B0, HOP_ROUTER, HOP_ROUTER_6, HOPS };

static void publish_routes(struct xs_stack *stack) {
    struct xs_fib_rule rules[TABLES];
    for (uint32_t table = 0; table < TABLES; table++)
        rules[table] = (struct xs_fib_rule){.table = table,
                                            .target = XS_FIB_NO_RULE,
                                            .action = XS_RULE_TABLE,
                                            .flags = XS_RULE_ALL,
                                            .suppress_length = -1,
                                            .suppress_group = -1};
    const struct xs_nexthop nexthops[] = {
        {.device = XS_NO_DEVICE},
        {.id = 1, .ifindex = 2, .mtu = 1500, .device = 0},
        {.id = 2, .ifindex = 3, .mtu = 1500, .device = 1},
        {.id = 3,
         .ifindex = 3,
         .mtu = 1500,
         .device = 1,
         .gateway = xs_addr_of4(ROUTER),
         .flags = XS_NEXTHOP_GATEWAY},
        {.id = 4, .ifindex = 3, .mtu = 1500, .device = 1, .gateway = ROUTER_6, .flags = XS_NEXTHOP_GATEWAY},
    };
    const struct xs_fib_hop hops[HOPS] = {
        [HOP_A0] = {.source = xs_addr_of4(A0), .nexthop = 1, .ifindex = 2, .own = A0},
        [HOP_B0] = {.source = xs_addr_of4(B0), .nexthop = 2, .ifindex = 3, .own = B0},
        [HOP_ROUTER] = {.source = xs_addr_of4(B0), .nexthop = 3, .ifindex = 3, .own = B0},
        [HOP_ROUTER_6] = {.nexthop = 4, .ifindex = 3},
    };
    const struct xs_fib_route_values routes[] = {
        route4(A0, 32, LOCAL, XS_ROUTE_LOCAL, HOP_A0),
        route4(B0, 32, LOCAL, XS_ROUTE_LOCAL, HOP_B0),
        route4(A0 | 255, 32, LOCAL, XS_ROUTE_BROADCAST, HOP_A0),
        route4(B0 | 255, 32, LOCAL, XS_ROUTE_BROADCAST, HOP_B0),
        route4(A0 & ~255u, 24, MAIN, XS_ROUTE_UNICAST, HOP_A0),
        route4(B0 & ~255u, 24, MAIN, XS_ROUTE_UNICAST, HOP_B0),
        route4(0xc0000200u, 24, MAIN, XS_ROUTE_BLACKHOLE, HOP_A0),
        route4(0, 0, MAIN, XS_ROUTE_UNICAST, HOP_ROUTER),
        route6(0x20010db800000000ull, 1, 128, LOCAL, XS_ROUTE_LOCAL, HOP_A0),
        route6(0x20010db800010000ull, 1, 128, LOCAL, XS_ROUTE_LOCAL, HOP_B0),
        route6(0xff00000000000000ull, 0, 8, LOCAL, XS_ROUTE_MULTICAST, HOP_A0),
        route6(0x20010db800000000ull, 0, 64, MAIN, XS_ROUTE_UNICAST, HOP_A0),
        route6(0x20010db800010000ull, 0, 64, MAIN, XS_ROUTE_UNICAST, HOP_B0),
        route6(0, 0, 0, MAIN, XS_ROUTE_UNICAST, HOP_ROUTER_6),
    };
    const struct xs_fib_address locals[] = {{A0_6, 2}, {B0_6, 3}};
    const struct xs_fib_address groups[] = {{{0, XS_MAPPED | 0xe0000001u}, 2},
                                            {{0xff02000000000000ull, 1}, 2},
                                            {{0xff02000000000000ull, 0x1ff000001ull}, 2}};
    const struct xs_fib_link links[DEVICES] = {
        {.ifindex = 2, .nexthop = 1, .source_link = A0, .source_universe = A0},
        {.ifindex = 3, .nexthop = 2, .source_link = B0, .source_universe = B0}};
    const struct xs_fib_family family = {.rule = rules, .nrules = TABLES, .local_table = LOCAL};
    const struct xs_fib_values values = {
        .family = {family, family},
        .routes = routes,
        .nroutes = sizeof routes / sizeof routes[0],
        .hops = hops,
        .nhops = HOPS,
        .nexthops = nexthops,
        .nnexthops = sizeof nexthops / sizeof nexthops[0],
        .locals = locals,
        .nlocals = 2,
        .groups = groups,
        .ngroups = sizeof groups / sizeof groups[0],
        .links = links,
        .nlinks = DEVICES,
        .ntables = TABLES,
        .generation = 1,
    };
    struct xs_fib *fib;
    must(!xs_fib_create(&values, &fib), "make the routes");
    xs_stack_set_fib(stack, fib);
}

/* The routers are known; whoever else is wanted never answers. */
static void publish_neighbours(struct xs_stack *stack) {
    struct xs_neigh_values known[2] = {
        {.mac = {2, 0, 0, 0, 0, 0xfe}, .state = XS_NUD_PERMANENT, .device = 1},
        {.mac = {2, 0, 0, 0, 0, 0xfe}, .state = XS_NUD_STALE, .device = 1},
    };
    xs_addr_store(known[0].address, xs_addr_of4(ROUTER));
    xs_addr_store(known[1].address, (struct xs_addr)ROUTER_6);
    must(!xs_stack_set_neighbours(stack, known, 2), "publish the neighbours");
}

static void publish_sockets(struct host *h) {
    struct xs_socket_binding bindings[SOCKETS] = {0};
    for (uint32_t i = 0; i < SOCKETS; i++) {
        struct xs_socket_options o = {
            .index = i, .family = i ? 6 : 4, .port = ECHO_PORT, .rcvbuf = 1 << 18, .sndbuf = 1 << 18};
        if (!i) o.address[10] = o.address[11] = 0xff;
        must(!xs_socket_create(h->stack, &o, &h->socket[i]), "make a socket");
        bindings[i] = (struct xs_socket_binding){
            .socket = h->socket[i], .port = ECHO_PORT, .device = XS_ANY_DEVICE, .family = o.family};
        memcpy(bindings[i].address, o.address, 16);
    }
    must(!xs_stack_set_sockets(h->stack, bindings, SOCKETS), "publish the sockets");
}

static void host_init(struct host *h) {
    struct xs_stack_options o = {
        .workers = 1, .frames_per_worker = FRAMES, .frame_bytes = 2048, .manual_clock = 1};
    must(!xs_stack_create(&o, &h->stack), "make the stack");
    h->worker = xs_stack_worker(h->stack, 0);
    h->now_ns = 10000 * SECOND;
    xs_stack_set_now(h->stack, h->now_ns);
    struct xs_device_values device[DEVICES] = {0};
    for (uint32_t i = 0; i < DEVICES; i++)
        device[i] = (struct xs_device_values){.ifindex = 2 + i,
                                              .mtu = 1500,
                                              .flags = XS_DEV_UP | XS_DEV_FORWARDING | XS_DEV_FORWARDING6 |
                                                       XS_DEV_PARTIAL_CSUM | XS_DEV_SOURCE_ROUTE,
                                              .nqueues = 1,
                                              .mac = {2, 0, 0, 0, 0, (uint8_t)(1 + i)},
                                              .ttl = 64,
                                              .hop_limit = 64};
    must(!xs_stack_set_devices(h->stack, device, DEVICES), "publish the devices");
    wire(h->worker);
    publish_routes(h->stack);
    publish_neighbours(h->stack);
    publish_sockets(h);
    for (uint32_t i = 0; i < DEVICES; i++) {
        struct xs_fake_options q = {.rx_size = 64,
                                    .tx_size = 64,
                                    .fill_size = 64,
                                    .comp_size = 64,
                                    .fill_target = 32,
                                    .multi = 1,
                                    .first_index = 0xfffffff0u};
        must(!xs_fake_create(h->stack, &q, &h->device[i]), "make a device");
        must(!xs_worker_attach(h->worker, h->device[i], i), "attach a device");
    }
}

/* ---- running ---- */

static void host_step(struct host *h) {
    for (uint32_t i = 0; i < DEVICES; i++) xs_fake_service(h->device[i]);
    must(xs_worker_poll(h->worker, 64) >= 0, "poll");
}

/* What the reader of a socket does, without looking: every byte of a payload is where it should be. */
static void host_read(struct host *h) {
    struct xs_inbox *inbox = &h->worker->inbox;
    for (uint32_t i = 0; i < SOCKETS; i++) {
        struct xs_socket *s = h->socket[i];
        uint32_t frame;
        while (xs_spsc_pop(xs_feed_ring(&s->feed[0]), &frame, 1)) {
            uint32_t left = h->stack->mem.pkt[frame].payload_len, off = h->stack->mem.pkt[frame].payload_off;
            for (uint32_t f = frame; f != XS_NO_FRAME; f = h->stack->mem.pkt[f].frag) {
                static uint8_t room[4096];
                const struct xs_pkt *p = &h->stack->mem.pkt[f];
                must(p->owner == XS_QUEUED, "a frame on a queue is QUEUED");
                uint32_t at = f == frame ? off : p->data_off, end = p->data_off + p->len;
                must(at <= end, "a payload begins inside of its frame");
                uint32_t part = end - at < left ? end - at : left;
                memcpy(room, xs_frame_data(&h->stack->mem, f) + at,
                       part); /* the sanitizer looks at all of it */
                left -= part;
                atomic_store(&inbox->frames_taken, atomic_load(&inbox->frames_taken) + 1);
            }
            must(!left, "a payload is as long as it says");
            xs_pool_return(&h->worker->pool, &h->stack->mem, &frame, 1);
        }
        atomic_store(&s->released, s->feed[0].charged);
    }
}

static void host_take_sent(struct host *h) {
    static uint8_t room[1 << 20];
    for (uint32_t i = 0; i < DEVICES; i++)
        while (xs_fake_take_sent(h->device[i], room, sizeof room)) {}
}

/* Until nothing is held, queued or being sent; then both ledgers. */
static void host_rest(struct host *h) {
    uint64_t frames[8];
    for (uint32_t round = 0; round < 200; round++) {
        host_step(h);
        host_read(h);
        host_take_sent(h);
        static struct xs_event event[64];
        while (xs_worker_events(h->worker, event, 64) > 0) {}
        xs_pool_drain(&h->worker->pool);
        xs_stack_frames(h->stack, frames);
        if (frames[XS_FREE] + frames[XS_FILLED] == FRAMES) break;
        xs_stack_set_now(h->stack, h->now_ns += SECOND);
    }
    must(frames[XS_FREE] + frames[XS_FILLED] == FRAMES, "every frame comes home");
    struct xs_ledger_values l;
    xs_worker_ledger(h->worker, &l);
    must(l.received + l.created + l.split == l.delivered + l.sent + l.merged + l.punted + l.dropped + l.held,
         "every packet that began has ended");
    for (uint32_t node = 0; node < h->worker->walk.nnodes; node++)
        must(!xs_node_drops(h->worker, node, XS_REASON_NOT_SPECIFIED), "every drop has a reason");
}

#endif
