/* The rows of the path table that C implements, and where a worker keeps the state of each. One line a row. */
#ifndef XS_STAGES_REGISTRY_H
#define XS_STAGES_REGISTRY_H

#include "stages/ip.h"
#include "stages/napi.h"
#include "stages/neigh.h"
#include "stages/routing.h"
#include "stages/rps.h"
#include "stages/taps.h"
#include "stages/udp.h"
#include "stages/xdp.h"

/* X(definition, field of struct xs_worker) in the order of xdpstack/path.py */
#define XS_STAGE_ROWS(X)          \
    X(xs_napi_rx_def, napi)       \
    X(xs_xdp_redirect_def, xdp)   \
    X(xs_rps_rx_def, rps)         \
    X(xs_taps_rx_def, taps)       \
    X(xs_ip_rx_def, ip)           \
    X(xs_routing_rx_def, routing) \
    X(xs_ip_local_def, ip)        \
    X(xs_udp_rx_def, udp)         \
    X(xs_routing_tx_def, routing) \
    X(xs_udp_tx_def, udp)         \
    X(xs_ip_tx_def, ip)           \
    X(xs_neigh_tx_def, neigh)     \
    X(xs_rps_tx_def, rps)         \
    X(xs_napi_tx_def, napi)

#endif
