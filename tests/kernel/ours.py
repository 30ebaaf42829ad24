"""Our receive path as the oracle tests of IP see it: ip.rx, a stand-in for routing, ip.local; one frame at a time."""

from dataclasses import dataclass

from xdpstack.hook import HookBatch
from xdpstack.native import lib
from xdpstack.testing.memory_walk import MemoryWalk, TestDevice
from xdpstack.walk import reasons

BROADCAST4 = b"\xff" * 4


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` of a drop; else where it went: "routed" (away from here), or "input" with the UDP payload."""

    where: str
    reason: str = ""
    datagram: bytes = b""


class OurReceiver:
    """`local` are the host's addresses, `groups` what it has joined, `broadcasts` its subnets' broadcast addresses."""

    def __init__(self, mac: bytes, mtu: int, local: set[bytes], groups: set[bytes], broadcasts: set[bytes]) -> None:
        self.routed = dict.fromkeys(local, lib.XS_PKT_ROUTED_LOCAL)
        self.routed |= dict.fromkeys(groups, lib.XS_PKT_ROUTED_MULTICAST)
        self.routed |= dict.fromkeys({*broadcasts, BROADCAST4}, lib.XS_PKT_ROUTED_BROADCAST)
        self.walk = MemoryWalk(
            TestDevice("a0", mac=mac, mtu=mtu),
            present={"napi.rx", "ip.rx", "ip.local"},
            catch={"routing.rx", "netfilter.input"},
            frame_bytes=4096,
        )
        self.walk.walk.hooks = [hook for hook in self.walk.walk.hooks if hook.row != "routing.rx"]
        self.walk.hook("routing.rx", self._route, {"local": "ip.local"})
        self.went_away = False
        self.names = reasons()
        self.nodes = [at for at, node in enumerate(self.walk.walk.nodes) if node.name in ("ip.rx", "ip.local")]
        self.seen = self._drops()

    def flags(self, flags: int) -> None:
        """Change the device's XS_DEV_* flags."""
        self.walk.set_devices(a0=lib.XS_DEV_UP | flags)

    def _route(self, batch: HookBatch) -> None:
        for i, packet in enumerate(batch):
            pkt = batch.pkts[batch.frames[i]]
            data = packet.tobytes()[pkt.l3_off - pkt.data_off :]
            destination = data[24:40] if pkt.flags & lib.XS_PKT_IPV6 else data[16:20]
            routed = self.routed.get(destination)
            if not pkt.flags & lib.XS_PKT_IPV6 and data[12:20] == b"\0" * 8:  # from no address to none: a broadcast
                routed = lib.XS_PKT_ROUTED_BROADCAST
            if routed is None:
                self.went_away = True
                packet.drop("HOOK")
            else:
                pkt.flags |= routed

    def _drops(self) -> list[int]:
        worker = self.walk.core.workers[0]
        return [lib.xs_node_drops(worker, at, i) for at in self.nodes for i in range(len(self.names))]

    def receive(self, frame: bytes) -> Verdict:
        self.went_away = False
        assert self.walk.inject("a0", frame) == 1, frame.hex()
        self.walk.step()
        caught = self.walk.caught["netfilter.input"]
        if caught:
            packet = caught.pop()
            datagram = packet.data[packet.l4_off - packet.data_off :]
            length = int.from_bytes(datagram[4:6], "big")
            return Verdict("input", datagram=datagram[8 : length or None])
        if self.went_away:
            return Verdict("routed")
        before, self.seen = self.seen, self._drops()
        (at,) = [i for i, (old, new) in enumerate(zip(before, self.seen, strict=True)) if old != new]
        return Verdict("dropped", self.names[at % len(self.names)])

    def close(self) -> None:
        self.walk.check()
        self.walk.close()
