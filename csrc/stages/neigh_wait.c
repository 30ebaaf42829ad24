/* Packets that wait for their neighbour. See neigh.h. Mirrors __neigh_event_send, neigh_update_process_arp_queue,
 * neigh_invalidate, neigh_timer_handler. */
#include "stages/neigh.h"

#include "tables/neigh.h"
#include "tables/sockets.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

void xs_neigh_init(struct xs_neigh *self, const struct xs_mem *mem, const struct xs_tables *tables,
                   struct xs_events *events, uint32_t frames) {
    *self = (struct xs_neigh){.mem = mem, .tables = tables, .events = events};
    self->held_max = frames / 4 < XS_NEIGH_HELD ? frames / 4 : XS_NEIGH_HELD;
}

bool xs_neigh_ask(struct xs_neigh *self, struct xs_batch *b, uint32_t device, struct xs_addr address) {
    struct xs_event event = {.kind = XS_EVENT_NEIGH_WANTED, .device = device};
    xs_addr_store(event.address, address);
    if (!xs_event_raise(self->events, &event)) return false;
    b->count[XS_NEIGH_TX_ASKED]++;
    return true;
}

static void ask_again(struct xs_neigh *self, struct xs_batch *b, struct xs_neigh_wait *w) {
    if (w->asked && b->now_ns - w->asked_ns < XS_NEIGH_ASK_NS) return;
    if (!xs_neigh_ask(self, b, w->device, w->address)) return;
    w->asked = true;
    w->asked_ns = b->now_ns;
}

/* ---- the queue of one neighbour: a list through the descriptors ---- */

static uint32_t *next_of(const struct xs_mem *mem, uint32_t frame) { return &mem->meta[frame].scratch[0]; }

/* What a packet costs its neighbour's queue: the skb that a local sender would have made for it. */
static uint32_t truesize(const struct xs_pkt *p) {
    bool ipv6 = p->flags & XS_PKT_IPV6;
    uint32_t headers = (uint32_t)(p->l3_off - p->data_off) + (ipv6 ? XS_IPV6_BYTES : XS_IPV4_BYTES);
    return xs_truesize(p->pkt_len - headers, ipv6);
}

static void push(struct xs_neigh *self, struct xs_neigh_wait *w, uint32_t frame, uint32_t bytes) {
    *next_of(self->mem, frame) = XS_NO_FRAME;
    if (w->packets)
        *next_of(self->mem, w->last) = frame;
    else
        w->first = frame;
    w->last = frame;
    w->packets++;
    w->bytes += bytes;
    self->nheld++;
}

/* Gives the oldest back to the walk; its index in the batch, or -1 when the batch is full and it stays. */
static int pop(struct xs_neigh *self, struct xs_batch *b, struct xs_neigh_wait *w, uint8_t next) {
    uint32_t frame = w->first, after = *next_of(self->mem, frame), bytes = truesize(&self->mem->pkt[frame]);
    int i = xs_release(b, frame, next);
    if (i < 0) return i;
    w->first = after;
    w->packets--;
    w->bytes -= bytes;
    self->nheld--;
    return i;
}

/* ---- waiting begins ---- */

static struct xs_neigh_wait *find_wait(struct xs_neigh *self, uint32_t device, struct xs_addr address) {
    for (uint32_t k = 0; k < self->nwaits; k++)
        if (self->wait[k].device == device && xs_addr_equal(self->wait[k].address, address))
            return &self->wait[k];
    return NULL;
}

static struct xs_neigh_wait *begin_wait(struct xs_neigh *self, const struct xs_batch *b, uint32_t device,
                                        struct xs_addr address, uint64_t cell) {
    if (self->nwaits == XS_NEIGH_WAITS) return NULL;
    struct xs_neigh_wait *w = &self->wait[self->nwaits++];
    *w = (struct xs_neigh_wait){.address = address, .device = device, .cell = cell, .since_ns = b->now_ns};
    return w;
}

static void keep(struct xs_neigh *self, struct xs_batch *b, uint32_t i, struct xs_neigh_wait *w,
                 uint32_t bytes) {
    xs_own(b->mem, b->frame[i], XS_HELD);
    b->next[i] = XS_KEPT;
    b->count[XS_NEIGH_TX_HELD]++;
    push(self, w, b->frame[i], bytes);
}

void xs_neigh_hold(struct xs_neigh *self, struct xs_batch *b, uint32_t i, struct xs_addr address,
                   uint64_t cell) {
    struct xs_pkt *p = xs_pkt(b, i);
    uint32_t bytes = truesize(p);
    struct xs_neigh_wait *w = find_wait(self, p->device, address);
    if (!w) w = begin_wait(self, b, p->device, address, cell);
    if (!w) return xs_drop(b, i, XS_REASON_NEIGH_CREATEFAIL);
    ask_again(self, b, w);
    while (w->packets && (w->bytes + bytes > XS_NEIGH_QUEUE_BYTES || self->nheld >= self->held_max)) {
        int victim = pop(self, b, w, XS_DROP); /* the oldest makes room */
        if (victim < 0) break;
        b->reason[victim] = XS_REASON_NEIGH_QUEUEFULL;
    }
    if (w->bytes + bytes > XS_NEIGH_QUEUE_BYTES || self->nheld >= self->held_max)
        return xs_drop(b, i, XS_REASON_NEIGH_QUEUEFULL);
    keep(self, b, i, w, bytes);
}

/* ---- waiting ends ---- */

enum outcome { WAIT, SEND, FAILED, GONE };

static enum outcome look(const struct xs_neigh_wait *w, const struct xs_config *config, uint64_t cell,
                         uint64_t now_ns) {
    uint8_t state = xs_neigh_state(cell);
    if (w->device >= config->ndevices || !(config->device[w->device].flags & XS_DEV_UP)) return GONE;
    if (state & XS_NUD_VALID) return SEND;
    if (state & XS_NUD_FAILED && cell != w->cell) return FAILED; /* not the failure of before we asked */
    return now_ns - w->since_ns >= XS_NEIGH_WAIT_NS ? FAILED : WAIT;
}

/* False when the batch is full: the rest at the next tick. */
static bool finish(struct xs_neigh *self, struct xs_batch *b, struct xs_neigh_wait *w,
                   const struct xs_config *config, enum outcome outcome, uint64_t cell) {
    uint8_t mac[8];
    xs_neigh_mac(cell, mac);
    while (w->packets) {
        int i = pop(self, b, w, outcome == SEND ? XS_NEIGH_TX_XMIT : XS_DROP);
        if (i < 0) return false;
        if (outcome == SEND)
            xs_neigh_write(b, (uint32_t)i, config, mac);
        else
            b->reason[i] = outcome == GONE ? XS_REASON_DEVICE_GONE : XS_REASON_NEIGH_FAILED;
    }
    return true;
}

/* The queue's bound in bytes is for packets of which nobody knows where they go: these are on their way out. */
bool xs_neigh_follow(struct xs_neigh *self, struct xs_batch *b, uint32_t i, const struct xs_config *config,
                     struct xs_addr address, uint64_t cell) {
    const struct xs_pkt *p = xs_pkt(b, i);
    struct xs_neigh_wait *w = find_wait(self, p->device, address);
    if (!w || !w->packets) return false;
    if (self->nheld >= self->held_max) finish(self, b, w, config, SEND, cell);
    if (self->nheld >= self->held_max)
        xs_drop(b, i, XS_REASON_NEIGH_QUEUEFULL);
    else
        keep(self, b, i, w, truesize(p));
    return true;
}

/* When `w` is due, though nothing changes. */
static uint64_t due(const struct xs_neigh_wait *w) {
    uint64_t over = w->since_ns + XS_NEIGH_WAIT_NS, ask = w->asked ? w->asked_ns + XS_NEIGH_ASK_NS : 0;
    return ask < over ? ask : over;
}

/* Something changed since the waits were last looked at, or time has passed. */
static bool look_again(struct xs_neigh *self, const struct xs_config *config, struct xs_neigh_table *table,
                       uint64_t now_ns) {
    uint32_t changes = table ? atomic_load_explicit(&table->changes, memory_order_acquire) : 0;
    if (table == self->seen_table && config == self->seen_config && changes == self->seen_changes &&
        now_ns < self->due_ns)
        return false;
    self->seen_table = table;
    self->seen_config = config;
    self->seen_changes = changes;
    return true;
}

void xs_neigh_release(struct xs_neigh *self, struct xs_batch *b) {
    const struct xs_config *config = xs_table(self->tables, config);
    struct xs_neigh_table *table = xs_table(self->tables, neigh);
    self->due_ns = b->now_ns + XS_NEIGH_LOOK_NS;
    for (uint32_t k = 0; k < self->nwaits;) {
        struct xs_neigh_wait *w = &self->wait[k];
        uint64_t cell = xs_neigh_lookup(table, w->device, w->address);
        enum outcome outcome = look(w, config, cell, b->now_ns);
        if (outcome == WAIT) {
            ask_again(self, b, w);
            if (due(w) < self->due_ns) self->due_ns = due(w);
            k++;
        } else if (finish(self, b, w, config, outcome, cell)) {
            *w = self->wait[--self->nwaits];
        } else { /* no room in the batch: the rest at the next tick */
            self->due_ns = 0;
            return;
        }
    }
}

void xs_neigh_tx_tick(struct xs_neigh *self, struct xs_batch *b) {
    if (!self->nwaits) return;
    const struct xs_config *config = xs_table(self->tables, config);
    if (look_again(self, config, xs_table(self->tables, neigh), b->now_ns)) xs_neigh_release(self, b);
}
