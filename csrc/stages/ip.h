/* ip: the IP layer of this host, both versions. Contract: xdpstack/stages/ip.py.
 *
 *      ip.rx     ip_rx.c       ip_rcv_core, ip6_rcv_core: is this an IP packet that may be looked at?
 *                ip_options.c  IPv4 options
 *                ip_ext.c      IPv6 extension headers
 *      ip.local  ip_local.c    ip_local_deliver, ip6_input: which protocol gets it?
 *      ip.tx     ip_tx.c       __ip_make_skb, ip6_xmit: the header of what this host sends
 *
 * A packet that is as packets nearly always are takes a short way through ip.rx: one expression that implies every check.
 * All others take the long way, which is the kernel's functions check by check, in their order, with their reasons.
 */
#ifndef XS_STAGES_IP_H
#define XS_STAGES_IP_H

#include "base/pool.h"
#include "include/xdpstack_stage.h"
#include "tables/config.h"
#include "tables/path_mtu.h"

#define XS_IP_IDENTS 1024u /* counters of IPv4 ids; a pair of addresses has one of them. A power of two */

/* A counter of ids, as the kernel's ip_idents[]: it jumps by a random part of the milliseconds since its last use, so that
 * it tells nobody how much was sent. */
struct xs_ip_ident {
    uint32_t used_ms;
    uint32_t id;
};

struct xs_ip {
    const struct xs_tables *tables;
    struct xs_pool *pool; /* takes frames that trimming cut off a packet */
    const struct xs_path_mtus *paths;
    uint64_t secret[2]; /* of flow labels and of which counter an id comes from: the same in all workers */
    uint64_t random;    /* state of the generator of jumps */
    struct xs_ip_ident ident[XS_IP_IDENTS];
};

enum { XS_IP_RX_PREROUTING };
enum { XS_IP_LOCAL_INPUT };
enum { XS_IP_TX_OUTPUT };
enum xs_ip_rx_counter { XS_IP_RX_SLOW };
enum xs_ip_local_counter { XS_IP_LOCAL_SLOW };

/* `first` is the state of the stack's first worker, whose secret the others share; NULL for itself. 0, or a negative errno
 * when the system gives no random bytes. */
int xs_ip_init(struct xs_ip *self, const struct xs_tables *tables, struct xs_pool *pool,
               const struct xs_ip *first);

void xs_ip_rx(struct xs_ip *self, struct xs_batch *b);
void xs_ip_local(struct xs_ip *self, struct xs_batch *b);
void xs_ip_tx(struct xs_ip *self, struct xs_batch *b);

extern const struct xs_stage_def xs_ip_rx_def, xs_ip_local_def, xs_ip_tx_def;

/* ---- between the files of this stage ---- */

/* What a check returns for a packet that passes it: the kernel's SKB_NOT_DROPPED_YET. */
#define XS_IP_PASS XS_REASON_NOT_SPECIFIED

/* An IP packet under examination. */
struct xs_ip_view {
    const uint8_t *l3;
    uint32_t head;  /* bytes from the IP header on that can be read: those in the first frame */
    uint32_t total; /* bytes from the IP header on, in all frames */
};

/* ip_options_compile and ip_options_rcv_srr. The header's bytes must be there; it is not changed. */
enum xs_reason xs_ip_options(const uint8_t *l3, uint32_t header_bytes, uint8_t pkt_type,
                             bool accept_source_route);

/* Whether there is a source route among the options of a header that xs_ip_options() has let pass. */
bool xs_ip_source_route(const uint8_t *l3, uint32_t header_bytes);

/* ipv6_parse_hopopts, for a packet whose next header is hop-by-hop options. A jumbo payload option sets v->total. */
enum xs_reason xs_ip_hopopts(struct xs_ip_view *v);

/* ipv6_skip_exthdr: looks for the transport header without judging what is on the way. Returns its offset from the IP
 * header, or 0 when it is not in the first frame, or not in this fragment. Sets `*proto` to the last next header seen. */
uint32_t xs_ip_find_transport(const struct xs_ip_view *v, uint8_t *proto, bool *fragment);

/* ip6_protocol_deliver_rcu: what this host does with each extension header behind hop-by-hop. On XS_IP_PASS `*proto` is the
 * transport protocol and `*offset` where its header is. */
enum xs_reason xs_ip_extensions(const struct xs_ip_view *v, uint8_t pkt_type, uint8_t *proto,
                                uint32_t *offset);

#endif
