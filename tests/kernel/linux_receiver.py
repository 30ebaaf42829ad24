"""Linux as a receiver of frames: a veth pair between two namespaces, UDP sockets, and the tracer of dropped frames."""

import contextlib
import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.kernel.drop_tracer import DropTracer, Fate, tracing
from xdpstack.testing.namespace import Namespace
from xdpstack.testing.veth import Veth, make_veth

#: Frames sent before the trace is read.
CHUNK = 1000
MTU = 9000
#: To send a chunk in which each frame is done with when the next is sent.
ATTEMPTS = 5
#: Kernel functions whose name begins so are UDP's: whoever drops there has been passed the packet by IP.
UDP_FUNCTIONS = ("udp", "__udp")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What Linux did with a frame: `datagram` is the payload that a UDP socket got, `fate` what became of the skb."""

    fate: Fate
    datagram: bytes | None = None

    @property
    def at_udp(self) -> bool:
        """IP has handed it to UDP, whatever UDP thought of it."""
        return self.datagram is not None or self.fate.function.startswith(UDP_FUNCTIONS)


class LinuxReceiver:
    """Sends frames to the device and says what Linux did with each."""

    def __init__(self, pair: Veth, tracer: DropTracer, port: int) -> None:
        self.netns, self.device, self.tracer = pair.near.netns, pair.near.name, tracer
        self.wire = pair.far.netns.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        self.wire.bind((pair.far.name, 0))
        families = (socket.AF_INET, socket.AF_INET6)
        self.sockets = self.netns.call(lambda: [_udp(family, port) for family in families])

    def send(self, frames: Iterable[bytes]) -> list[Outcome]:
        """One outcome a frame. A veth hands a frame over within the sender's own system call, so each is done in turn."""
        frames = list(frames)
        return [outcome for at in range(0, len(frames), CHUNK) for outcome in self._send(frames[at : at + CHUNK])]

    def _send(self, frames: list[bytes]) -> list[Outcome]:
        """A softirq that was put off makes what is seen after a frame another's; then all are sent again."""
        for _ in range(ATTEMPTS):
            self._received()
            self.tracer.clear()
            datagrams = [self._send_one(frame) for frame in frames]
            late = self._received()
            fates = self.tracer.fates(frames)
            dropped_and_received = any(d is not None and f.reason for d, f in zip(datagrams, fates, strict=False))
            if len(fates) == len(frames) and not late and not dropped_and_received:
                return [Outcome(fate, datagram) for fate, datagram in zip(fates, datagrams, strict=True)]
        raise AssertionError(f"in {ATTEMPTS} attempts the trace did not show each frame in its turn")

    def _send_one(self, frame: bytes) -> bytes | None:
        self.wire.send(frame)
        return self._received()

    def _received(self) -> bytes | None:
        """The last of the datagrams that wait, of which there is at most one if all goes well."""
        datagram = None
        for each in self.sockets:
            with contextlib.suppress(BlockingIOError):
                while True:
                    datagram = each.recv(1 << 16)
        return datagram

    def counters(self) -> dict[str, int]:
        """The SNMP counters of IP and UDP: Ip.InHdrErrors, Ip6.InTruncatedPkts, ..."""

        def read() -> dict[str, int]:
            lines = [line.split() for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()]
            pairs = zip(lines[::2], lines[1::2], strict=True)
            found = {f"{k[0][:-1]}.{a}": int(b) for k, v in pairs for a, b in zip(k[1:], v[1:], strict=True)}
            for name, value in (line.split() for line in Path("/proc/thread-self/net/snmp6").read_text().splitlines()):
                found[name.replace("Ip6", "Ip6.", 1)] = int(value)
            return found

        return self.netns.call(read)

    def close(self) -> None:
        for each in (self.wire, *self.sockets):
            each.close()


def _udp(family: int, port: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind(("", port))
    made.setblocking(False)
    return made


@contextlib.contextmanager
def linux_receiver(mac: bytes, peer_mac: bytes, addresses: dict[str, str], port: int = 7) -> Iterator[LinuxReceiver]:
    """Two namespaces with a veth pair; `addresses` of the receiver, each with the neighbour that is known.

    OSError: tracefs cannot be used.
    """
    with contextlib.ExitStack() as undo:
        receiver, peer = Namespace("ip-receiver"), Namespace("ip-peer")
        undo.callback(peer.delete)
        undo.callback(receiver.delete)
        # Tracepoints know devices by name alone, in whichever namespace.
        pair = make_veth(receiver, peer, near=[*addresses], far=[], near_name=f"ip{os.getpid()}", mtu=MTU)
        peer.without_ipv6()
        receiver.ip(
            f"link set {pair.near.name} address {mac.hex(':')}",
            *(f"neighbour add {n} lladdr {peer_mac.hex(':')} dev {pair.near.name}" for n in addresses.values()),
        )
        tracer = undo.enter_context(tracing(pair.near.name))
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(before)})  # one CPU's trace buffer, in order
        undo.callback(os.sched_setaffinity, 0, before)
        linux = LinuxReceiver(pair, tracer, port)
        undo.callback(linux.close)
        yield linux
