"""xdp: the program in the kernel that lifts what is claimed.

Its configuration are the claims of a device: xdpstack/device/claims.py. Below are the contracts of its row and of
xdp.redirect; docs/stages/xdp.md says how it decides and why so, and xdpstack/device/verdict.py is the definition in plain
Python.

xdp.rx
======
Does: lifts frames that a claim covers into the AF_XDP socket of their receive queue, and leaves all others to the kernel.
Mirrors: bpf_prog_run_xdp, xdp_do_redirect, __xsk_map_redirect.
Reads: the frame's first bytes: Ethernet, at most two VLAN tags, IPv4, or IPv6 with at most 8 extension headers, and 8
    bytes above.
Writes: nothing; with metadata asked for, 8 bytes (struct xs_xdp_metadata) directly before a lifted frame, and before these
    what the device has said of it, if that was asked for (struct xs_xdp_hints).
Next:
    redirect: a frame that a claim covers, while the dead-man deadline is in the future.
Drops: nothing. A frame that is not lifted is the kernel's, as if the program were not there; enum xs_xdp_cause
    (bpf/xdpstack_layout.cdef.h) says why it was not, and each cause is counted.
Holds: nothing.
State: the maps of the program, one set for each device: claims and what they leave alone (by xdpstack/device/claim_set.py),
    the mirrored local addresses (by the stack), the deadline (by the watchdog), the sockets of the queues. The map of routes
    that forwarding may lift to (Claims.set_forwardable) is empty until a stack forwards.
Cost: benchmarks/stages/bench_xdp.py
Differs from Linux:
    - Linux hands a frame to every socket that fits; the first claim that covers a frame takes it.
    - Fragments of datagrams to claimed sockets pass: the kernel reassembles them, and the socket's shadow has them.
    - A claimed frame bypasses the host's own nftables, conntrack, tc and AF_PACKET, as all of XDP does.
    - A VLAN tag that the NIC or a veth peer has taken off the frame is seen where the stack asks for it
      (metadata=("vlan",)) and the driver answers. Else the frame counts as untagged: turn rxvlan off (ethtool -K) where
      tagged and untagged frames are told apart by claims.
    - A frame in a VLAN is compared with the device's own MAC; a VLAN device with another MAC is not known.

xdp.redirect
============
Does: has the frames of a claim leave by another device of the stack, or by the one they came by: the same frame, not copied.
Mirrors: xdp_do_redirect, dev_map_enqueue, xdp_ok_fwd_dev; XDP_TX.
Reads: device, data_off, len, pkt_len; the claim id that the XDP program put before the frame.
Writes: device; with `swap_macs`, the frame's two MAC addresses.
Next:
    receive: the frame's claim is not redirected.
    xmit: it is.
Drops:
    DEV_READY: the device that it is to leave by is down.
    PKT_TOO_BIG: it is larger than that device's MTU, an Ethernet header and a VLAN tag.
Holds: nothing. What waits for room on the TX ring, napi.tx holds.
State: which claim's frames leave by which device (csrc/tables/redirects.h), published by Stack.redirect(); the device table.
Cost: benchmarks/stages/bench_xdp_redirect.py
Differs from Linux:
    - It happens in user space, behind the XDP program and napi.rx, and before gro.rx; no skb is made in between either.
    - Where the TX ring is full Linux drops (dev_map_bulk_queue, 16 frames); here 1,024 frames wait, as behind napi.tx.
    - The frame leaves by the queue of the same number as it came by, if there is one; not by the core's.
    - XDP_TX does not ask for the MTU, as the device that received a frame can send it; here it is asked all the same.
"""
