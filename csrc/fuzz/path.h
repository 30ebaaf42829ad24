/* The path for fuzz targets: which row each edge leads to, and by which edge an absent row is passed. The same table as
 * xdpstack/path.py, against which tests/csrc/test_fuzz_path.py holds it. */
#ifndef XS_FUZZ_PATH_H
#define XS_FUZZ_PATH_H

/* X(row, edge, the row it leads to, is it the edge by which the row is passed when it is absent) */
#define XS_PATH_EDGES(X)                                         \
    X("napi.rx", "receive", "xdp.redirect", 0)                   \
    X("xdp.redirect", "receive", "gro.rx", 1)                    \
    X("xdp.redirect", "xmit", "napi.tx", 0)                      \
    X("gro.rx", "receive", "rps.rx", 1)                          \
    X("rps.rx", "receive", "taps.rx", 1)                         \
    X("taps.rx", "receive", "tc.rx", 1)                          \
    X("tc.rx", "receive", "ip.rx", 1)                            \
    X("ip.rx", "prerouting", "netfilter.prerouting", 0)          \
    X("netfilter.prerouting", "accept", "routing.rx", 1)         \
    X("routing.rx", "local", "ip.local", 0)                      \
    X("routing.rx", "forward", "netfilter.forward", 0)           \
    X("netfilter.forward", "accept", "netfilter.postrouting", 1) \
    X("ip.local", "input", "netfilter.input", 0)                 \
    X("netfilter.input", "accept", "xfrm.rx", 1)                 \
    X("xfrm.rx", "accept", "udp.rx", 1)                          \
    X("routing.tx", "output", "udp.tx", 0)                       \
    X("udp.tx", "output", "ip.tx", 0)                            \
    X("ip.tx", "output", "netfilter.output", 0)                  \
    X("netfilter.output", "accept", "netfilter.postrouting", 1)  \
    X("netfilter.postrouting", "accept", "xfrm.tx", 1)           \
    X("xfrm.tx", "output", "neigh.tx", 1)                        \
    X("neigh.tx", "xmit", "tc.tx", 0)                            \
    X("tc.tx", "xmit", "gro.tx", 1)                              \
    X("gro.tx", "xmit", "taps.tx", 1)                            \
    X("taps.tx", "xmit", "rps.tx", 1)                            \
    X("rps.tx", "xmit", "napi.tx", 1)

#endif
