/* The kernel's user interface that we use, under our own names where distribution headers are older than the feature.
 * Values are ABI: they never change. Static asserts hold ours against the installed header where it has them. */
#ifndef XS_BASE_UAPI_H
#define XS_BASE_UAPI_H

#include <linux/if_xdp.h>
#include <stdint.h>

#define XS_UAPI_XDP_USE_SG (1 << 4)          /* bind flag, 6.6: packets of several buffers */
#define XS_UAPI_XDP_PKT_CONTD (1 << 0)       /* descriptor option, 6.6: the packet goes on in the next one */
#define XS_UAPI_XDP_TX_METADATA (1 << 1)     /* descriptor option, 6.8 */
#define XS_UAPI_XDP_UMEM_TX_SW_CSUM (1 << 1) /* umem flag, 6.8 */
#define XS_UAPI_XDP_UMEM_TX_METADATA_LEN (1 << 2) /* umem flag, 6.11 */
#define XS_UAPI_XDP_MAX_TX_SKB_BUDGET 9           /* socket option, 6.17 */
#define XS_UAPI_TX_BATCH_SIZE 32u       /* what that budget is at first, and at least: net/xdp/xsk.c */
#define XS_UAPI_MAP_HUGE_2MB (21 << 26) /* mmap(2), 3.8: log2 of the size */
#define XS_UAPI_MADV_POPULATE_WRITE 23  /* madvise(2), 5.14 */
#define XS_UAPI_SO_BUSY_POLL 46         /* 3.11 */
#define XS_UAPI_SO_INCOMING_NAPI_ID 56  /* 4.12 */
#define XS_UAPI_SO_PREFER_BUSY_POLL 69  /* 5.11 */
#define XS_UAPI_SO_BUSY_POLL_BUDGET 70  /* 5.11 */

/* struct xdp_umem_reg, as of 6.8: the last field was padding before */
struct xs_uapi_xdp_umem_reg {
    uint64_t addr, len;
    uint32_t chunk_size, headroom, flags, tx_metadata_len;
};

/* struct xsk_tx_metadata, 6.8; launch_time 6.14. Before a frame to send, whose descriptor says XDP_TX_METADATA. */
#define XS_UAPI_XDP_TXMD_FLAGS_TIMESTAMP 1u
#define XS_UAPI_XDP_TXMD_FLAGS_CHECKSUM 2u
struct xs_uapi_xsk_tx_metadata {
    uint64_t flags;
    union {
        struct {
            uint16_t csum_start, csum_offset;
            uint64_t launch_time;
        } request;
        struct {
            uint64_t tx_timestamp;
        } completion;
    };
};

_Static_assert(sizeof(struct xs_uapi_xdp_umem_reg) == sizeof(struct xdp_umem_reg),
               "the new field was padding");
_Static_assert(sizeof(struct xs_uapi_xsk_tx_metadata) == 24, "as long as the kernel's");
_Static_assert(sizeof(struct xdp_desc) == 16, "an RX or TX slot is 16 bytes");
_Static_assert(XDP_RING_NEED_WAKEUP == 1, "base/ring.h tests bit 0");

#endif
