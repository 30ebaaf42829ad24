"""udp: from IP to the socket, and back.

What a received datagram meets is defined in `semantics.py`; what a socket is to its user, in `socket.py` and
docs/sockets.md. Below are the contracts of the layer's two rows.

udp.rx
======
Does: checks a datagram, finds its socket, and puts it on the socket's receive queue.
Mirrors: udp_rcv, udpv6_rcv, __udp4_lib_lookup, __udp6_lib_lookup, compute_score, __udp4_lib_mcast_deliver,
    __udp_enqueue_schedule_skb, udp_rmem_release; RFC 768, RFC 8200 8.1, RFC 6935.
Reads: data_off, len, pkt_len, l3_off, l4_off, device, frag, csum, flags IPV6, ROUTED_BROADCAST and ROUTED_MULTICAST.
Writes: csum, sport, dport, payload_off, payload_len, socket, owner QUEUED, owner_device (the feeding worker), nexthop (the
    bytes charged); stamp_ns of the cold descriptor for sockets that want it.
Next:
Drops:
    PKT_TOO_SMALL: shorter than a UDP header, or than the length in it; a length below 8 (0 over IPv6 means all there is).
    UDP_CSUM: wrong checksum; none over IPv6, and the socket does not allow that.
    NO_SOCKET: no socket is bound to the destination.
    SOCKET_RCVBUFF: the socket's receive buffer is full.
    PROTO_MEM: the sockets together have three quarters of the worker's frames, and the device needs the rest.
    NOMEM: no frames for the copy that one of several sockets gets.
Holds: nothing. What is queued is the reader's; the tick publishes it, once per poll.
State: the table of sockets, published by this layer (native.py); each socket's counters, by their one writer each.
Cost: benchmarks/stages/bench_udp.py
Differs from Linux:
    - The checksum is verified before the datagram is queued. Linux puts that off to the reader beyond 76 bytes, so that
      wrong ones take up receive buffer until they are read.
    - The headers must be in the first frame of a packet of several.
    - No ICMP port unreachable is sent: what has no socket is not lifted.
    - net.ipv4.udp_mem has no counterpart in pages; frames of the worker are what runs out (PROTO_MEM).
    - A datagram's cost is that of a packet from a local sender, whatever the driver would have used.
    - Not there: SO_REUSEPORT groups, IP_MULTICAST_ALL off, source filters, encapsulation, UDP_GRO, early demultiplexing.
    - A socket bound to a VRF's device is none here.

udp.tx
======
Does: puts the UDP header and its checksum before the payload.
Mirrors: udp_send_skb, udp_v6_send_skb.
Reads: payload_off, payload_len, len, pkt_len, sport, dport; src and dst of the cold descriptor.
Writes: data_off, len, pkt_len, l4_off, l4_proto, csum, the header.
Next:
    output: always.
Drops:
Holds: nothing.
State: none.
Cost: benchmarks/stages/bench_udp.py
Differs from Linux:
    - The checksum is always computed in software: SO_NO_CHECK and UDP_NO_CHECK6_TX are refused by setsockopt().
    - No UDP_SEGMENT.
"""
