"""Holds the C stages' decisions against the Python semantics: the same snapshot, the same flows."""

import errno
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from xdpstack.native import check, ffi, lib, text
from xdpstack.native.core import Core
from xdpstack.netlink import Snapshot
from xdpstack.netlink.ip import ANY
from xdpstack.netlink.uapi import AF_INET, AF_INET6
from xdpstack.routing.flow import Flow, Verdict, is_loopback, is_multicast
from xdpstack.routing.multipath import halves
from xdpstack.routing.native import NativeRouting, device_flags
from xdpstack.routing.reasons import SEND_ERRNO
from xdpstack.routing.semantics import find_device, route_input, route_output
from xdpstack.routing.tables import Tables, compile_tables

#: Drop reasons by number.
NAMES = list(itertools.takewhile(bool, (text(lib.xs_reason_name(i)) for i in itertools.count())))

#: Next-hop object of native_strategies.
BLACKHOLE_OBJECT = 7


class Case:
    """One stack without queues, whose tables are published from one snapshot after the other."""

    def __init__(self, devices: Mapping[int, int]) -> None:
        self.core = Core(frames=64, manual_clock=True)
        self.devices = devices
        self.routing = NativeRouting(self.core.pointer)
        self.tables = Tables()

    def publish(self, snapshot: Snapshot) -> None:
        """Publish the device table and the routing tables."""
        self.tables = compile_tables(snapshot)
        values = ffi.new("struct xs_device_values[]", len(self.devices))
        for ifindex, index in self.devices.items():
            device = self.tables.devices[ifindex]
            values[index].ifindex = ifindex
            values[index].mtu = device.mtu[AF_INET]
            values[index].flags = device_flags(device)
            values[index].rp_filter = device.rp_filter
        check(lib.xs_stack_set_devices(self.core.pointer, values, len(self.devices)), "devices")
        self.routing.publish(snapshot, self.devices)

    def ask(self, device: int, flows: Iterable[Flow]) -> list[dict[str, Any]]:
        """What C decides: of packets that came in by stack device `device`, or (XS_NO_DEVICE) of what is sent."""
        asked = list(flows)
        keys = ffi.new("struct xs_fib_key[]", [self.key(flow) for flow in asked])
        out = ffi.new("struct xs_routed[]", len(asked))
        lib.xs_routing_ask(self.core.pointer, device, keys, len(asked), out)
        return [self.decoded(answer, flow) for answer, flow in zip(out, asked, strict=True)]

    def key(self, flow: Flow) -> dict[str, object]:
        """`flow` as struct xs_fib_key."""
        return {
            "dst": halves(flow.destination),
            "src": halves(flow.source_or_any),
            "oif": flow.oif,
            "mark": flow.mark,
            "flow_label": flow.flow_label,
            "user": flow.user,
            "hash": flow.hash,
            "sport": flow.source_port,
            "dport": flow.destination_port,
            "proto": flow.protocol,
            "tos": flow.tos,
            "flags": lib.XS_FIB_HASHED | (lib.XS_FIB_IPV6 if flow.family == AF_INET6 else 0),
        }

    def decoded(self, answer: Any, flow: Flow) -> dict[str, Any]:
        """Struct xs_routed in words."""
        if answer.next == lib.XS_DROP:
            return {"drop": NAMES[answer.reason]}
        slot = answer.nexthop & lib.XS_NEXTHOP_SLOT_MASK
        hop = self.routing.ids.slots[slot]
        assert self.routing.ids.ids[slot] == answer.nexthop
        source = bytes(answer.src.hi.to_bytes(8) + answer.src.lo.to_bytes(8))
        return {
            "next": answer.next,
            "id": answer.nexthop,
            "flags": answer.flags,
            "device": answer.device,
            "hop": (hop.ifindex, hop.gateway, hop.mtu, hop.hop_limit) if hop else None,
            "source": source[12:] if flow.family == AF_INET else source,
        }

    # ---- what semantics.py says, as C would say it ----

    def expect_input(self, flow: Flow) -> dict[str, object]:
        """The decision of route_input()."""
        verdict = route_input(self.tables, flow)
        flag = {
            "local": lib.XS_PKT_ROUTED_LOCAL,
            "broadcast": lib.XS_PKT_ROUTED_BROADCAST,
            "multicast": lib.XS_PKT_ROUTED_MULTICAST,
        }.get(verdict.action)
        if flag is not None:
            return {"next": 0, "flags": flag, "hop": None}
        if verdict.action == "forward":
            if verdict.encap or verdict.oif not in self.devices:
                return {"drop": "NOT_CLAIMED"}
            return {"next": 1, "flags": 0, "hop": hop_of(verdict)}
        return {"drop": verdict.reason}

    def check_input(self, device: int, flows: list[Flow]) -> None:
        """C decides as semantics.py about packets that came in by stack device `device`."""
        ifindex = next(i for i, index in self.devices.items() if index == device)
        for flow, got in zip(flows, self.ask(device, flows), strict=True):
            want = self.expect_input(flow.but(iif=ifindex))
            assert {key: got.get(key) for key in want} == want, (got, want, flow)

    def check_output(self, flows: list[Flow]) -> None:
        """C decides as semantics.py about what this host sends."""
        for flow, got in zip(flows, self.ask(lib.XS_NO_DEVICE, flows), strict=True):
            verdict = route_output(self.tables, flow)
            if got.get("drop") == "TX_SLOW":
                assert self.is_the_kernels(verdict, flow), (flow, verdict)
            elif verdict.action == "drop":
                assert got == {"drop": verdict.reason}, (flow, verdict, got)
                assert SEND_ERRNO[verdict.reason] == verdict.errno, verdict
            else:
                assert not self.is_the_kernels(verdict, flow), (flow, verdict, got)
                multicast = lib.XS_PKT_ROUTED_MULTICAST if verdict.action == "multicast" else 0
                want = {"next": 0, "flags": multicast, "device": self.devices[verdict.oif], "hop": hop_of(verdict),
                        "source": verdict.source or ANY[flow.family]}  # fmt: skip
                assert {key: got.get(key) for key in want} == want, (got, want, flow)

    def is_the_kernels(self, verdict: Verdict, flow: Flow) -> bool:
        """A packet that the stack leaves to the kernel, with whatever error that has for it."""
        if flow.oif and flow.oif not in self.devices:
            return True
        if flow.destination == ANY[AF_INET6]:
            return True
        to_all = is_multicast(flow.destination) or flow.destination == b"\xff" * 4
        by_source = flow.family == AF_INET and to_all and flow.source not in (b"", ANY[AF_INET]) and not flow.oif
        if by_source and find_device(self.tables, flow.source) not in self.devices:
            return True
        if verdict.action == "drop":  # of what is the kernel's, the kernel says what is wrong with it: here its source
            return verdict.errno == errno.EINVAL and any(map(is_loopback, (flow.source or b"\0", *self.tables.local)))
        if verdict.action in ("local", "broadcast") or verdict.oif not in self.devices or verdict.encap:
            return True
        joined = (verdict.oif, flow.destination) in self.tables.groups
        here_only = flow.family == AF_INET6 and flow.destination[1] & 0xF <= 1
        return verdict.action == "multicast" and (joined or here_only)


def hop_of(verdict: Verdict) -> tuple[int, bytes, int, int]:
    """The next hop of a verdict, as NextHopIds has it."""
    return verdict.oif, verdict.gateway, verdict.mtu, verdict.hop_limit
