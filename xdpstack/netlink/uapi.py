"""The numbers of rtnetlink that the mirror reads, under the kernel's names.

Source: include/uapi/linux/{rtnetlink,if_link,if_addr,neighbour,fib_rules,nexthop,if}.h.
Newer than many installed headers, so they stand here instead of being read from the machine.
"""

from typing import Final

AF_INET: Final = 2
AF_INET6: Final = 10
FAMILIES: Final = (AF_INET, AF_INET6)

# Link flags (IFF_*) and operational states (RFC 2863, IF_OPER_*).
IFF_UP: Final = 0x1
IFF_BROADCAST: Final = 0x2
IFF_LOOPBACK: Final = 0x8
IFF_POINTOPOINT: Final = 0x10
IFF_RUNNING: Final = 0x40
IFF_NOARP: Final = 0x80
IFF_PROMISC: Final = 0x100
IFF_ALLMULTI: Final = 0x200
IFF_MULTICAST: Final = 0x1000
IFF_LOWER_UP: Final = 0x10000
IF_OPER_UNKNOWN: Final = 0
IF_OPER_DOWN: Final = 2
IF_OPER_UP: Final = 6
OPER_STATES: Final = ("unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up")
ARPHRD_ETHER: Final = 1
ARPHRD_LOOPBACK: Final = 772

# XDP attachment of a link (XDP_ATTACHED_*).
XDP_ATTACHED_NONE: Final = 0
XDP_ATTACHED_DRV: Final = 1
XDP_ATTACHED_SKB: Final = 2
XDP_ATTACHED_HW: Final = 3
XDP_ATTACHED_MULTI: Final = 4

# Address flags (IFA_F_*).
IFA_F_SECONDARY: Final = 0x01
IFA_F_TEMPORARY: Final = 0x01  # the same bit means "secondary" for IPv4 and "temporary" (RFC 4941) for IPv6
IFA_F_NODAD: Final = 0x02
IFA_F_OPTIMISTIC: Final = 0x04
IFA_F_DADFAILED: Final = 0x08
IFA_F_HOMEADDRESS: Final = 0x10
IFA_F_DEPRECATED: Final = 0x20
IFA_F_TENTATIVE: Final = 0x40
IFA_F_PERMANENT: Final = 0x80
IFA_F_MANAGETEMPADDR: Final = 0x100
IFA_F_NOPREFIXROUTE: Final = 0x200

# Route types, scopes, tables, protocols.
RTN_UNSPEC: Final = 0
RTN_UNICAST: Final = 1
RTN_LOCAL: Final = 2
RTN_BROADCAST: Final = 3
RTN_ANYCAST: Final = 4
RTN_MULTICAST: Final = 5
RTN_BLACKHOLE: Final = 6
RTN_UNREACHABLE: Final = 7
RTN_PROHIBIT: Final = 8
RTN_THROW: Final = 9
RTN_NAT: Final = 10
RTN_XRESOLVE: Final = 11
ROUTE_TYPES: Final = (
    "unspec", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit", "throw",
    "nat", "xresolve",
)  # fmt: skip
RT_SCOPE_UNIVERSE: Final = 0
RT_SCOPE_SITE: Final = 200
RT_SCOPE_LINK: Final = 253
RT_SCOPE_HOST: Final = 254
RT_SCOPE_NOWHERE: Final = 255
RT_TABLE_UNSPEC: Final = 0
RT_TABLE_DEFAULT: Final = 253
RT_TABLE_MAIN: Final = 254
RT_TABLE_LOCAL: Final = 255
RTPROT_KERNEL: Final = 2
RTPROT_BOOT: Final = 3
RTPROT_STATIC: Final = 4
RTPROT_RA: Final = 9
IP6_RT_PRIO_USER: Final = 1024
IP6_RT_PRIO_ADDRCONF: Final = 256
RTM_F_CLONED: Final = 0x200
RTM_F_LOOKUP_TABLE: Final = 0x1000
RTM_F_FIB_MATCH: Final = 0x2000

# Next-hop flags (RTNH_F_*) and route metrics (RTAX_*).
RTNH_F_DEAD: Final = 1
RTNH_F_PERVASIVE: Final = 2
RTNH_F_ONLINK: Final = 4
RTNH_F_OFFLOAD: Final = 8
RTNH_F_LINKDOWN: Final = 16
RTNH_F_UNRESOLVED: Final = 32
RTNH_F_TRAP: Final = 64
RTAX_LOCK: Final = 1
RTAX_MTU: Final = 2
RTAX_HOPLIMIT: Final = 10

# Router preference of an IPv6 route (RFC 4191).
ICMPV6_ROUTER_PREF_MEDIUM: Final = 0
ICMPV6_ROUTER_PREF_HIGH: Final = 1
ICMPV6_ROUTER_PREF_LOW: Final = 3

# Policy rules: actions (FR_ACT_*) and flags (FIB_RULE_*).
FR_ACT_TO_TBL: Final = 1
FR_ACT_GOTO: Final = 2
FR_ACT_NOP: Final = 3
FR_ACT_BLACKHOLE: Final = 6
FR_ACT_UNREACHABLE: Final = 7
FR_ACT_PROHIBIT: Final = 8
RULE_ACTIONS: Final = {1: "lookup", 2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
FIB_RULE_INVERT: Final = 0x2
FIB_RULE_UNRESOLVED: Final = 0x4

# Neighbour states (NUD_*) and flags (NTF_*).
NUD_NONE: Final = 0x00
NUD_INCOMPLETE: Final = 0x01
NUD_REACHABLE: Final = 0x02
NUD_STALE: Final = 0x04
NUD_DELAY: Final = 0x08
NUD_PROBE: Final = 0x10
NUD_FAILED: Final = 0x20
NUD_NOARP: Final = 0x40
NUD_PERMANENT: Final = 0x80
NUD_CONNECTED: Final = NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE
NUD_VALID: Final = NUD_CONNECTED | NUD_PROBE | NUD_STALE | NUD_DELAY
NEIGHBOUR_STATES: Final = {
    0x01: "incomplete", 0x02: "reachable", 0x04: "stale", 0x08: "delay", 0x10: "probe", 0x20: "failed",
    0x40: "noarp", 0x80: "permanent",
}  # fmt: skip
NTF_USE: Final = 0x01
NTF_PROXY: Final = 0x08
NTF_ROUTER: Final = 0x80

# Message types (RTM_*), flags (NLM_F_*), and multicast groups (RTNLGRP_*).
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLMSG_OVERRUN: Final = 4
RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21
RTM_GETADDR: Final = 22
RTM_NEWROUTE: Final = 24
RTM_DELROUTE: Final = 25
RTM_GETROUTE: Final = 26
RTM_NEWNEIGH: Final = 28
RTM_DELNEIGH: Final = 29
RTM_GETNEIGH: Final = 30
RTM_NEWRULE: Final = 32
RTM_DELRULE: Final = 33
RTM_GETRULE: Final = 34
RTM_NEWMULTICAST: Final = 56
RTM_DELMULTICAST: Final = 57
RTM_NEWNETCONF: Final = 80
RTM_DELNETCONF: Final = 81
RTM_NEWNEXTHOP: Final = 104
RTM_DELNEXTHOP: Final = 105
RTM_GETNEXTHOP: Final = 106
NLM_F_REQUEST: Final = 0x01
NLM_F_ACK: Final = 0x04
NLM_F_DUMP_INTR: Final = 0x10
NLM_F_DUMP: Final = 0x300
NLM_F_REPLACE: Final = 0x100
NLM_F_CREATE: Final = 0x400
NLM_F_APPEND: Final = 0x800
RTNLGRP_LINK: Final = 1
RTNLGRP_NEIGH: Final = 3
RTNLGRP_IPV4_IFADDR: Final = 5
RTNLGRP_IPV4_ROUTE: Final = 7
RTNLGRP_IPV4_RULE: Final = 8
RTNLGRP_IPV6_IFADDR: Final = 9
RTNLGRP_IPV6_ROUTE: Final = 11
RTNLGRP_IPV6_RULE: Final = 19
RTNLGRP_IPV4_NETCONF: Final = 24
RTNLGRP_IPV6_NETCONF: Final = 25
RTNLGRP_NEXTHOP: Final = 32
RTNLGRP_IPV4_MCADDR: Final = 37
RTNLGRP_IPV6_MCADDR: Final = 38
