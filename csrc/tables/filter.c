/* The interpreter of classic BPF. See tables/filter.h. */
#include "tables/filter.h"

#include <linux/filter.h>
#include <stdbool.h>
#include <string.h>

#include "wire/wire.h"

/* `size` bytes at `off` from the start of the first frame; false when they are not all in the packet. */
static bool at(const struct xs_filter_packet *k, int64_t off, uint32_t size, uint8_t *to) {
    const struct xs_pkt *p = &k->mem->pkt[k->frame];
    int64_t end = (int64_t)p->l4_off + k->length;
    if (off < p->data_off || off + size > end) return false;
    uint32_t frame = k->frame, here = (uint32_t)off;
    for (uint32_t i = 0; i < size; i++, here++) {
        while (here >= (uint32_t)p->data_off + p->len) { /* in a later frame */
            here -= (uint32_t)p->data_off + p->len;
            frame = p->frag;
            if (frame == XS_NO_FRAME) return false;
            p = &k->mem->pkt[frame];
            here += p->data_off;
        }
        to[i] = xs_frame_data(k->mem, frame)[here];
    }
    return true;
}

/* What is not in the packet's bytes: SKF_AD_OFF and on. */
static bool ancillary(const struct xs_filter_packet *k, uint32_t what, uint32_t *out) {
    const struct xs_pkt *p = &k->mem->pkt[k->frame];
    switch (what) {
    case SKF_AD_PROTOCOL: *out = p->flags & XS_PKT_IPV6 ? 0x86dd : 0x0800; return true;
    case SKF_AD_PKTTYPE: *out = p->pkt_type; return true;
    case SKF_AD_IFINDEX: *out = k->ifindex; return true;
    case SKF_AD_MARK: *out = p->mark; return true;
    case SKF_AD_QUEUE: *out = p->queue; return true;
    default: return false;
    }
}

static bool load(const struct xs_filter_packet *k, uint32_t code, uint32_t offset, uint32_t *out) {
    const struct xs_pkt *p = &k->mem->pkt[k->frame];
    int32_t off = (int32_t)offset;
    uint32_t size = BPF_SIZE(code) == BPF_W ? 4 : BPF_SIZE(code) == BPF_H ? 2 : 1;
    uint8_t bytes[4];
    int64_t from;
    if (off >= 0)
        from = (int64_t)p->l4_off + off;
    else if (off >= SKF_AD_OFF)
        return ancillary(k, (uint32_t)(off - SKF_AD_OFF), out);
    else if (off >= SKF_NET_OFF)
        from = (int64_t)p->l3_off + (off - SKF_NET_OFF);
    else if (off >= SKF_LL_OFF)
        from = (int64_t)p->data_off + (off - SKF_LL_OFF);
    else
        return false;
    if (!at(k, from, size, bytes)) return false;
    *out = size == 4 ? xs_get32(bytes) : size == 2 ? xs_get16(bytes) : bytes[0];
    return true;
}

static uint32_t calculate(uint32_t code, uint32_t a, uint32_t operand) {
    switch (BPF_OP(code)) {
    case BPF_ADD: return a + operand;
    case BPF_SUB: return a - operand;
    case BPF_MUL: return a * operand;
    case BPF_DIV: return a / operand; /* zero was looked for before */
    case BPF_MOD: return a % operand;
    case BPF_AND: return a & operand;
    case BPF_OR: return a | operand;
    case BPF_XOR: return a ^ operand;
    case BPF_LSH: return a << (operand & 31);
    case BPF_RSH: return a >> (operand & 31);
    default: return -a; /* BPF_NEG */
    }
}

static bool holds(uint32_t code, uint32_t a, uint32_t operand) {
    switch (BPF_OP(code)) {
    case BPF_JEQ: return a == operand;
    case BPF_JGT: return a > operand;
    case BPF_JGE: return a >= operand;
    default: return a & operand; /* BPF_JSET */
    }
}

static inline bool divides(uint32_t code) { return BPF_OP(code) == BPF_DIV || BPF_OP(code) == BPF_MOD; }

uint32_t xs_filter_run(const struct xs_filter *f, const struct xs_filter_packet *k) {
    uint32_t a = 0, x = 0, memory[XS_FILTER_MEMORY];
    for (uint32_t pc = 0; pc < f->n; pc++) {
        const struct xs_filter_code *i = &f->insn[pc];
        uint32_t operand = BPF_SRC(i->code) == BPF_X ? x : i->k;
        switch (BPF_CLASS(i->code)) {
        case BPF_LD:
            if (BPF_MODE(i->code) == BPF_IMM)
                a = i->k;
            else if (BPF_MODE(i->code) == BPF_MEM)
                a = memory[i->k];
            else if (BPF_MODE(i->code) == BPF_LEN)
                a = k->length;
            else if (!load(k, i->code, BPF_MODE(i->code) == BPF_IND ? x + i->k : i->k, &a))
                return 0;
            break;
        case BPF_LDX:
            if (BPF_MODE(i->code) == BPF_IMM) {
                x = i->k;
            } else if (BPF_MODE(i->code) == BPF_MEM) {
                x = memory[i->k];
            } else if (BPF_MODE(i->code) == BPF_LEN) {
                x = k->length;
            } else { /* BPF_MSH: four times the low half of a byte, as an IHL says it */
                if (!load(k, BPF_B, i->k, &x)) return 0;
                x = (x & 15) << 2;
            }
            break;
        case BPF_ST: memory[i->k] = a; break;
        case BPF_STX: memory[i->k] = x; break;
        case BPF_ALU:
            if (divides(i->code) && !operand) return 0;
            a = calculate(i->code, a, operand);
            break;
        case BPF_JMP:
            if (BPF_OP(i->code) == BPF_JA)
                pc += i->k;
            else
                pc += holds(i->code, a, operand) ? i->jt : i->jf;
            break;
        case BPF_RET: return BPF_RVAL(i->code) == BPF_A ? a : i->k;
        default: /* BPF_MISC */
            if (BPF_MISCOP(i->code) == BPF_TAX)
                x = a;
            else
                a = x;
        }
    }
    return 0;
}
