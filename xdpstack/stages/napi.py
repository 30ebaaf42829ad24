"""napi: between the AF_XDP rings and the walk.

It has no configuration of its own: rings are made by xdpstack.device, and the budget of a poll is the caller's. Below
are the contracts of its two rows; docs/stages/napi.md says how a poll goes.

napi.rx
=======
Does: makes descriptors of what the kernel put on the RX ring, and reads the Ethernet header and VLAN tags; while
    sockets are bound it also recognises batches in which every packet is plain (docs/stages/napi.md), once for all
    stages up to the socket.
Mirrors: napi_poll and a driver's poll function; eth_type_trans, skb_vlan_untag.
Reads: the frame's first bytes; what the program has put before them, if devices are asked for metadata.
Writes: data_off, len, pkt_len, device, queue, frag, l3_off, l3_proto, pkt_type, flags VLAN, MULTI, TAIL and TRUNC;
    vlan_tci, vlan_proto and vlan_inner_tci of the cold descriptor with flag VLAN; all other fields of the hot
    descriptor are zero. Of a plain packet, what ip.rx, ip.local and udp.rx would write too: l4_off, l4_proto, tos,
    sport, dport, payload_off, payload_len, flag IPV6, csum VERIFIED or PARTIAL (as a NIC's receive offload says it; a
    wrong one is left to udp.rx); and of the batch: XS_ALL_*. With metadata: hash, and of the cold descriptor hints,
    hash_type and device_ns; a VLAN tag that the device took off is put back into the frame.
Next:
    receive: every packet.
Drops:
    RX_TOO_MANY_FRAGS: over more frames than a packet may have (18, as an skb: MAX_SKB_FRAGS + 1).
Holds: nothing. The frames of a packet whose last one has not come yet count as the kernel's (FILLED).
State: the device table, published by the stack, for the device's MAC; whether the table of sockets is empty.
Cost: benchmarks/stages/bench_napi.py
Differs from Linux:
    - A frame to another MAC goes on with pkt_type OTHERHOST, as in Linux; taps see it, ip.rx drops it.
    - A VLAN tag does not choose another device: there are no VLAN devices here, the claim names the VLAN.
    - An 802.3 length field stays in l3_proto; Linux puts ETH_P_802_2 or ETH_P_802_3 there.
    - Nothing is taken off the end of a frame; Ethernet padding is cut by the IP length in ip.rx, as in Linux.

napi.tx
=======
Does: puts packets on the TX ring of their device, or behind those that wait for room in it; gives those for a device that
    this worker has no queue of to the worker that has.
    If devices of the stack hand over partial checksums, it finishes those of what was received and leaves again.
Mirrors: ndo_start_xmit, dev_hard_start_xmit; validate_xmit_skb, skb_checksum_help; the waiting ones: a pfifo qdisc of
    1,024 packets.
Reads: device, queue, data_off, len, pkt_len, frag; csum, pkt_type, and the headers of what may have a partial checksum.
Writes: owner, owner_device, queue (the one it leaves by); csum, and the checksum itself, where it was partial.
    With offloads, what the device is asked, before the frame.
Next: nothing follows.
Drops:
    DEVICE_GONE: the device has no queue here, or went away, also while the packet waited.
    QDISC_DROP: 1,024 packets wait already, here or on their way to the worker that has the queue; or he has said that
        more than that wait with him.
    TX_TOO_MANY_FRAGS: over several frames where the socket takes one (bound without XDP_USE_SG); over more than 18, or, in
        zero-copy, than the driver sends (zc-max-segs); or over more than its TX ring has slots.
    PKT_TOO_BIG: a frame of it ends behind its chunk.
    PKT_TOO_SMALL: a frame without bytes. The kernel would skip its descriptor and never give the frame back.
Holds: packets for which the TX ring has no room, 1,024 per queue, in order; sent at the next poll, or dropped with
    DEVICE_GONE when the queue is detached. On the way to another worker 1,024 more, from each to each: it takes them at its
    next poll. What its backlog has no room for waits behind it, and its device is marked as full for all other workers: so
    those are no more than were on their way.
State: the offloads that the stack asked for; its rings; which worker has which queue, written as queues come and go.
Cost: benchmarks/stages/bench_napi.py
Differs from Linux:
    - A partial checksum is told by its value, as frames of XDP have nothing like ip_summed. Linux itself does not finish
      those that XDP_REDIRECT passes on.
    - The queue is the one that the descriptor names, folded into those that this worker has (rps.tx chooses it).
    - Sent means on the ring. What the driver drops afterwards is in the device's own statistics, as in Linux.
    - A device that is down keeps what is on its TX ring until it is up again or its sockets are closed; Linux drops its
      queue at once.
"""
