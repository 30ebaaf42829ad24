"""ip: the IP layer of this host, IPv4 and IPv6.

It has no configuration of its own: what Linux has as sysctls is mirrored into the device table (csrc/tables/config.h).
Below are the contracts of its three rows.

ip.rx
=====
Does: decides whether a frame holds an IP packet that may be looked at, and where its transport header is.
Mirrors: ip_rcv_core, ip6_rcv_core, the options of ip_rcv_finish_core; ipv6_parse_hopopts; ipv6_skip_exthdr.
Reads: data_off, len, pkt_len, l3_off, l3_proto, pkt_type, device, frag, flags TRUNC.
Writes: l4_off, l4_proto, tos, flags IPV6 and FRAGMENT; len, pkt_len, frag and flags MULTI where it trims.
Next:
    prerouting: the header is valid.
Drops:
    UNHANDLED_PROTO: neither IPv4 nor IPv6 by its ethertype; an IPv6 ethertype and another version; an unknown hop-by-hop
        option whose type says so.
    HDR_TRUNC: the frame ends inside its Ethernet or VLAN header.
    OTHERHOST: the frame is addressed to another MAC.
    PKT_TOO_SMALL: shorter than its IP length says; a header goes on beyond the first frame of several.
    IP_INHDR: no room for the header, version, IHL, total length below the header, malformed options; IPv6: loopback or
        interface-local addresses on the wire, multicast source, multicast scope 0, malformed hop-by-hop options.
    IP_CSUM: wrong IPv4 header checksum.
    IP_SOURCE_ROUTE: an IPv4 source route that the device does not accept, or that is not at its end.
    IPV6DISABLED: net.ipv6.conf.IF.disable_ipv6.
    UNICAST_IN_L2_MULTICAST: IPv6, net.ipv6.conf.IF.drop_unicast_in_l2_multicast.
    IPV6_BAD_EXTHDR: the hop-by-hop header is longer than the packet.
    IP_INADDRERRORS: IPv6 to an IPv4-mapped address.
    PKT_TOO_BIG: a jumbogram of more than 65,535 bytes behind its header.
Holds: nothing.
State: the device table, published by the stack.
Cost: benchmarks/stages/bench_ip.py
Differs from Linux:
    - IPv4 options are judged before routing, so a packet that has bad options and no route is dropped for its options.
    - Record route and timestamp options are judged, and nothing is recorded.
    - A source route that is accepted and not at its end is dropped; Linux would forward along it, or, where all that is left
      of it are addresses of this host, deliver to the last.
    - CIPSO and CALIPSO options are always refused, as by a Linux without configured domains; IOAM is ignored, as by a
      device with ioam6_enabled 0.
    - net.ipv6.max_hbh_opts_number and max_hbh_opts_length are taken at their defaults (8, no limit).
    - Headers must be in the first frame of a packet of several; Linux would pull them together.
    - IPv6 to an IPv4-mapped address (::ffff:0:0/96) is dropped before routing; Linux would look for a route.
    - A device without IPv6 (MTU below 1280) must be told apart by whoever publishes the device table.
    - A VLAN tag is not judged: the claim named it.
    - No ICMP parameter problem is sent.

ip.local
========
Does: finds out which transport protocol a packet for this host is for, past its extension headers.
Mirrors: ip_local_deliver, ip_protocol_deliver_rcu, ip6_input, ip6_protocol_deliver_rcu; ipv6_destopt_rcv, ipv6_rthdr_rcv,
    ipv6_frag_rcv; the link-layer multicast check of ip_rcv_finish_core; of ip_options_rcv_srr, what a route has to say.
Reads: data_off, len, pkt_len, l3_off, l4_off, l4_proto, pkt_type, device, flags IPV6, FRAGMENT, ROUTED_BROADCAST and
    ROUTED_MULTICAST.
Writes: l4_off and l4_proto of IPv6 packets with extension headers.
Next:
    input: UDP.
Drops:
    FRAGMENT: a fragment. The XDP program leaves those of claimed sockets to the kernel; this is for all others.
    IP_NOPROTO: another protocol than UDP, or no next header.
    UNICAST_IN_L2_MULTICAST: IPv4, net.ipv4.conf.IF.drop_unicast_in_l2_multicast.
    IP_SOURCE_ROUTE: an IPv4 source route to a broadcast or multicast address.
    IPV6_BAD_EXTHDR: an extension header is longer than the packet; a routing header with segments left, of segment or
        RPL routing, or in a multicast packet; a second fragment header, or one in a packet without payload length.
    IP_INHDR: malformed destination options.
    UNHANDLED_PROTO: an unknown destination option whose type says so.
    PKT_TOO_SMALL: an extension header goes on beyond the first frame of several.
Holds: nothing.
State: the device table, published by the stack.
Cost: benchmarks/stages/bench_ip.py
Differs from Linux:
    - Fragments are not reassembled: the kernel does it, and the datagram comes through the shadow socket.
    - Protocols other than UDP go nowhere, raw sockets see nothing, and no ICMP unreachable or parameter problem is sent.
    - The link-layer multicast check is made here and not for forwarded packets, which ip_forward refuses anyway.
    - Segment routing is refused, as by a device with seg6_enabled 0; home address options are unknown options.
    - net.ipv6.max_dst_opts_number and max_dst_opts_length are taken at their defaults (8, no limit).
    - Whether the host has joined the multicast group is asked by routing.rx.

ip.tx
=====
Does: puts the IP header before what this host sends.
Mirrors: __ip_make_skb, ip_select_ident, ip_local_out; __ip6_make_skb, ip6_make_flowlabel, ip6_xmit.
Reads: data_off, len, pkt_len, l4_proto, sport, dport, tos, device, nexthop, flags IPV6, DF and NO_DF; src, dst and ttl of
    the cold descriptor.
Writes: data_off, len, pkt_len, l3_off, l3_proto.
Next:
    output: the header is there.
Drops:
    TX_FRAGMENT: larger than the MTU of the path as ICMP told of it, of the route or of the device. The shadow socket
        fragments it, or has the error for it.
Holds: nothing.
State: the device table, published by the stack; next hops, by routing; a table of id counters and a secret, the
    worker's own.
Cost: benchmarks/stages/bench_ip.py
Differs from Linux:
    - IPv4 ids of connected sockets come from the same counters as those of others, not from the socket's own; with
      IP_PMTUDISC_DO and IP_PMTUDISC_PROBE they are 0, as those of other sockets are.
    - A route's MTU larger than the device's (Linux would hand the packet to the device) is the kernel's to deal with.
    - IPv6 always has a flow label of its own flow (net.ipv6.auto_flowlabels 1, flowlabel_state_ranges 0).
    - Path MTUs are learned from the ICMP errors that the worker's own sockets get, and kept for ten minutes whatever
      net.ipv4.route.mtu_expires says; of destinations that share a slot, the last. Sockets with IP_PMTUDISC_DONT get no
      such errors, and send what is larger without DF, for routers to fragment.
    - No options are sent.
"""
