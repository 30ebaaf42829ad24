/* xdpstack_vlan.h: VLAN tags put on packets and taken off, for stages in C. Public, as xdpstack_stage.h is.
 *
 *      | destination | source | 88a8 TCI | 8100 TCI | type | payload        two tags: IEEE 802.1ad over 802.1Q
 *                               outermost
 *
 * Tags are in the frame, all of them; Linux keeps the outermost in the skb beside it, which to whoever looks at the wire is the
 * same. The descriptor tells of the outermost: flag XS_PKT_VLAN, vlan_proto and vlan_tci of struct xs_meta; and of an 802.1Q tag
 * behind an 802.1ad one, as a VLAN device on a service VLAN's has them: vlan_inner_tci. l3_proto and l3_off are of what is behind
 * that, be it another tag, as it is if one of the two has a priority alone. Whatever is here keeps the descriptor right.
 *
 * What is needed is the Ethernet header: on receive all the way, on transmit from tc.tx on. A stage that has changed a tag
 * makes the batch forget what it knows of all packets, which xs_vlan_push(), _pop() and _modify() do.
 */
#ifndef XDPSTACK_VLAN_H
#define XDPSTACK_VLAN_H

#include <errno.h>
#include <string.h>

#include "xdpstack_stage.h"

#define XS_VLAN_PROTO_8021Q 0x8100u
#define XS_VLAN_PROTO_8021AD 0x88a8u
#define XS_VLAN_VID 0x0fffu /* of a TCI; above it the DEI, and three bits of priority */
#define XS_VLAN_PRIORITY_SHIFT 13u

#define XS_VLAN_TAG 4u   /* bytes */
#define XS_VLAN_MACS 12u /* bytes before the first tag */
#define XS_VLAN_HEAD 14u
#define XS_VLAN_LEAD 8u /* bytes that precede a received frame and go with it: struct xs_xdp_metadata */

static inline int xs_vlan_is_proto(uint32_t ethertype) {
    return ethertype == XS_VLAN_PROTO_8021Q || ethertype == XS_VLAN_PROTO_8021AD;
}

/* ---- on the bytes ---- */

static inline void xs_vlan_move(const struct xs_mem *m, uint32_t frame, int by) {
    struct xs_pkt *p = &m->pkt[frame];
    uint8_t *lead = xs_frame_data(m, frame) + p->data_off - XS_VLAN_LEAD;
    memmove(lead + by, lead, XS_VLAN_LEAD + XS_VLAN_MACS);
    p->data_off = (uint16_t)(p->data_off + by);
    p->len = (uint16_t)(p->len - by);
    p->pkt_len -= (uint32_t)by;
}

/* A tag before all others, and the descriptor not told: __vlan_insert_tag(). -ENOMEM: there is no room before the frame;
 * -EINVAL: it has no Ethernet header. */
static inline int xs_vlan_insert(const struct xs_mem *m, uint32_t frame, uint16_t proto, uint16_t tci) {
    struct xs_pkt *p = &m->pkt[frame];
    if (p->len < XS_VLAN_HEAD) return -EINVAL;
    if (p->data_off < XS_VLAN_TAG + XS_VLAN_LEAD) return -ENOMEM;
    xs_vlan_move(m, frame, -(int)XS_VLAN_TAG);
    const uint8_t tag[XS_VLAN_TAG] = {(uint8_t)(proto >> 8), (uint8_t)proto, (uint8_t)(tci >> 8),
                                      (uint8_t)tci};
    memcpy(xs_frame_data(m, frame) + p->data_off + XS_VLAN_MACS, tag, sizeof tag);
    return 0;
}

static inline uint16_t xs_vlan_get16(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }

/* What the Ethernet header says, into the descriptor: eth_type_trans(), skb_vlan_untag(). False: a tag is cut off. */
static inline int xs_vlan_read(const struct xs_mem *m, uint32_t frame) {
    struct xs_pkt *p = &m->pkt[frame];
    struct xs_meta *meta = &m->meta[frame];
    const uint8_t *at = xs_frame_data(m, frame) + p->data_off + XS_VLAN_MACS;
    p->flags &= (uint16_t)~XS_PKT_VLAN;
    p->l3_off = (uint16_t)(p->data_off + XS_VLAN_HEAD);
    p->l3_proto = xs_vlan_get16(at);
    if (!xs_vlan_is_proto(p->l3_proto)) return 1;
    if (p->len < XS_VLAN_HEAD + XS_VLAN_TAG) return 0;
    p->flags |= XS_PKT_VLAN;
    meta->vlan_proto = p->l3_proto;
    meta->vlan_tci = xs_vlan_get16(at + 2);
    meta->vlan_inner_tci = 0;
    p->l3_proto = xs_vlan_get16(at + 4);
    p->l3_off = (uint16_t)(p->l3_off + XS_VLAN_TAG);
    if (meta->vlan_proto != XS_VLAN_PROTO_8021AD || p->l3_proto != XS_VLAN_PROTO_8021Q) return 1;
    if (p->len < XS_VLAN_HEAD + 2 * XS_VLAN_TAG) return 0;
    if (!(meta->vlan_tci & XS_VLAN_VID) || !(xs_vlan_get16(at + 6) & XS_VLAN_VID)) return 1;
    meta->vlan_inner_tci = xs_vlan_get16(at + 6);
    p->l3_proto = xs_vlan_get16(at + 8);
    p->l3_off = (uint16_t)(p->l3_off + XS_VLAN_TAG);
    return 1;
}

/* The VLAN that a packet is in, as claims and sockets count them: of its tag, 0 for none or a priority alone; with two tags the
 * service VLAN in the upper half. */
static inline uint32_t xs_vlan_number(const struct xs_pkt *p, const struct xs_meta *meta) {
    if (!(p->flags & XS_PKT_VLAN)) return 0;
    uint32_t outer = meta->vlan_tci & XS_VLAN_VID, inner = meta->vlan_inner_tci & XS_VLAN_VID;
    return inner ? outer << 16 | inner : outer;
}

/* Before neigh.tx: the packet is to have the tags of such a VLAN, without a priority. */
static inline void xs_vlan_ask(struct xs_pkt *p, struct xs_meta *meta, uint32_t number) {
    uint32_t service = number >> 16;
    p->flags |= XS_PKT_VLAN;
    meta->vlan_proto = service ? XS_VLAN_PROTO_8021AD : XS_VLAN_PROTO_8021Q;
    meta->vlan_tci = (uint16_t)(service ? service : number);
    meta->vlan_inner_tci = (uint16_t)(service ? number : 0);
}

static inline int xs_vlan_has_header(const struct xs_pkt *p) {
    return p->len >= XS_VLAN_HEAD && p->l3_off >= p->data_off + XS_VLAN_HEAD;
}

/* The three below on a frame by its number, for who has no batch; they return what those return. */

static inline int xs_vlan_push_frame(const struct xs_mem *m, uint32_t frame, uint16_t proto, uint16_t tci) {
    if (!xs_vlan_is_proto(proto)) return -EPROTONOSUPPORT;
    if (!xs_vlan_has_header(&m->pkt[frame])) return -EINVAL;
    int rc = xs_vlan_insert(m, frame, proto, tci);
    if (rc == 0) xs_vlan_read(m, frame);
    return rc;
}

static inline int xs_vlan_pop_frame(const struct xs_mem *m, uint32_t frame) {
    struct xs_pkt *p = &m->pkt[frame];
    if (!xs_vlan_has_header(p)) return -EINVAL;
    if (!xs_vlan_is_proto(xs_vlan_get16(xs_frame_data(m, frame) + p->data_off + XS_VLAN_MACS))) return 0;
    if (p->len < XS_VLAN_HEAD + XS_VLAN_TAG || p->data_off < XS_VLAN_LEAD) return -EINVAL;
    xs_vlan_move(m, frame, XS_VLAN_TAG);
    xs_vlan_read(m, frame);
    return 0;
}

static inline int xs_vlan_modify_frame(const struct xs_mem *m, uint32_t frame, uint16_t proto, uint16_t tci) {
    struct xs_pkt *p = &m->pkt[frame];
    if (!(p->flags & XS_PKT_VLAN)) return 0;
    int rc = xs_vlan_is_proto(proto) ? xs_vlan_pop_frame(m, frame) : -EPROTONOSUPPORT;
    return rc ? rc : xs_vlan_push_frame(m, frame, proto, tci);
}

/* ---- for stages: 0, or a negative errno and nothing is changed ---- */

/* skb_vlan_push(): one more tag, the outermost. -EPROTONOSUPPORT: of no such kind; -ENOMEM: no room before the frame; -EINVAL:
 * no Ethernet header (yet, on transmit). */
static inline int xs_vlan_push(struct xs_batch *b, uint32_t i, uint16_t proto, uint16_t tci) {
    b->facts = 0;
    return xs_vlan_push_frame(b->mem, b->frame[i], proto, tci);
}

/* skb_vlan_pop(): the outermost tag off; no tag is no error. -EINVAL: cut off within it, or no Ethernet header. */
static inline int xs_vlan_pop(struct xs_batch *b, uint32_t i) {
    b->facts = 0;
    return xs_vlan_pop_frame(b->mem, b->frame[i]);
}

/* tc's "vlan modify": another kind and TCI in the outermost tag, where there is one. */
static inline int xs_vlan_modify(struct xs_batch *b, uint32_t i, uint16_t proto, uint16_t tci) {
    b->facts = 0;
    return xs_vlan_modify_frame(b->mem, b->frame[i], proto, tci);
}

#endif
