/* Path MTUs that ICMP has told of: what is larger than that towards a destination is the kernel's to send, which knows it too
 * (its route exceptions) and fragments, or has the error for it.
 *
 * One table a worker, written and read by whoever drives it: the error queues of the shadow sockets (stages/udp_shadow.c) are
 * where such messages come out, and ip.tx asks. A slot holds the destination that was told of last; one that is forgotten is
 * learned again. Mirrors fib_nh_exception and rt6_exception, without their lists.
 */
#ifndef XS_TABLES_PATH_MTU_H
#define XS_TABLES_PATH_MTU_H

#include "tables/addr.h"

#define XS_PATHS 256u
/* net.ipv4.route.mtu_expires and net.ipv6.route.mtu_expires, at their defaults */
#define XS_PATH_MTU_NS (600u * 1000000000ull)

struct xs_path_mtu {
    struct xs_addr dst;
    uint64_t until_ns; /* 0: an empty slot */
    uint32_t mtu;      /* bytes of the IP packet */
    uint32_t pad;
};

struct xs_path_mtus {
    bool any; /* something was learned, ever: until then nobody looks */
    struct xs_path_mtu slot[XS_PATHS];
};

/* As __ip_rt_update_pmtu(): a larger one than is known is not believed. */
static inline void xs_path_mtu_learn(struct xs_path_mtus *t, struct xs_addr dst, uint32_t mtu,
                                     uint64_t now_ns) {
    struct xs_path_mtu *p = &t->slot[xs_addr_hash(dst, 0) % XS_PATHS];
    if (p->until_ns > now_ns && xs_addr_equal(p->dst, dst) && p->mtu < mtu) return;
    *p = (struct xs_path_mtu){.dst = dst, .until_ns = now_ns + XS_PATH_MTU_NS, .mtu = mtu};
    t->any = true;
}

/* The smaller of `mtu` and what is known of the path. */
static inline uint32_t xs_path_mtu_bound(const struct xs_path_mtus *t, struct xs_addr dst, uint32_t mtu,
                                         uint64_t now_ns) {
    const struct xs_path_mtu *p = &t->slot[xs_addr_hash(dst, 0) % XS_PATHS];
    return p->until_ns > now_ns && xs_addr_equal(p->dst, dst) && p->mtu < mtu ? p->mtu : mtu;
}

#endif
