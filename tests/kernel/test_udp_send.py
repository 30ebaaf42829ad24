"""What is sent, against Linux: a kernel socket and one of ours have the same options and send the same; both are compared.

Two devices lead out of the host, `near0`, which is the stack's, and `other0`, which is not. Compared are what the call said
(a length or an errno) and the IP packets at the far ends, but for ids and flow labels, which are random on both sides: of an
id, whether it is zero.
"""

import errno
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import pytest

from tests.kernel import effort
from tests.paths.world import SMALL
from tests.stages.packets import csum, ethernet, ipv4, ipv6, udp
from xdpstack import open as open_stack
from xdpstack.stack import Stack
from xdpstack.testing.veth import Veth

pytestmark = pytest.mark.root

IP, IP6, SOL = socket.IPPROTO_IP, socket.IPPROTO_IPV6, socket.SOL_SOCKET
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER = 10, 23
KERNEL_PORT, OUR_PORT, TO = 1000, 1001, 7
#: Each with the values that setsockopt() is tried with; some are refused.
OPTIONS: dict[int, list[tuple[int, int, list[Any]]]] = {
    4: [
        (IP, socket.IP_TTL, [-1, 0, 1, 7, 255, 256]),
        (IP, socket.IP_TOS, [0, 1, 0x10, 0xB8, 0xFF]),
        (IP, socket.IP_MULTICAST_TTL, [-1, 0, 1, 5, 255, 256]),
        (IP, IP_MTU_DISCOVER, [-1, 0, 1, 2, 3, 4, 5, 6]),
        (IP, socket.IP_MULTICAST_LOOP, [0, 1]),
        (IP, socket.IP_MULTICAST_IF, [socket.inet_aton("10.0.1.1"), socket.inet_aton("10.0.0.1")]),
        (SOL, socket.SO_BROADCAST, [0, 1]),
        (SOL, socket.SO_MARK, [0, 1, 5, 0x7FFFFFFF]),
        (SOL, socket.SO_PRIORITY, [0, 6]),
        (SOL, socket.SO_SNDBUF, [1000, 5000, 200000]),
    ],
    6: [
        (IP6, socket.IPV6_UNICAST_HOPS, [-1, 0, 1, 7, 255, 256]),
        (IP6, socket.IPV6_TCLASS, [-1, 0, 0x10, 0xB8, 255, 256]),
        (IP6, socket.IPV6_MULTICAST_HOPS, [-1, 0, 1, 5, 255, 256]),
        (IP6, IPV6_MTU_DISCOVER, [0, 1, 2, 3, 4, 5, 6]),
        (IP6, socket.IPV6_MULTICAST_LOOP, [0, 1]),
    ],
}
HOSTS4 = [
    "10.0.0.2",
    "10.0.1.2",
    "10.7.0.1",
    "10.7.1.1",
    "10.7.2.1",
    "10.7.3.1",
    "10.8.0.1",
    "10.9.0.1",
    "10.20.0.1",
    "10.21.0.1",
    "10.22.0.1",
    "192.0.2.1",
    "10.0.0.1",
    "127.0.0.1",
    "0.0.0.0",
    "10.0.0.255",
    "255.255.255.255",
    "224.0.0.9",
    "224.0.0.1",
    "239.1.2.3",
]
HOSTS6 = [
    "fd00::2",
    "fd00:1::2",
    "fd00:7::1",
    "fd00:7:1::1",
    "fd00:7:2::1",
    "fd00:8::1",
    "fd00:20::1",
    "fd00:21::1",
    "fd00:22::1",
    "2001:db8::1",
    "fd00::1",
    "::1",
    "::",
    "ff02::9",
    "ff02::1",
    "ff05::9",
    "ff01::9",
    "fe80::2",
]
SETUP = (
    "link add other0 type veth peer name far1 netns FAR",
    "link set other0 up",
    "address add 10.0.1.1/24 dev other0",
    "address add fd00:1::1/64 dev other0 nodad",
    "route add 10.7.0.0/24 via 10.0.0.2 mtu 1000",
    "route add 10.7.1.0/24 via 10.0.0.2 mtu lock 1000",
    "route add 10.7.2.0/24 via 10.0.0.2 hoplimit 9",
    "route add 10.7.3.0/24 via 10.0.0.2 mtu 600 hoplimit 200",
    "route add 10.8.0.0/24 via 10.0.1.2",
    "route add 10.9.0.0/24 via inet6 fd00::2 dev near0",
    "route add blackhole 10.20.0.0/24",
    "route add unreachable 10.21.0.0/24",
    "route add prohibit 10.22.0.0/24",
    "route add 224.0.0.0/4 dev near0",
    "route add fd00:7::/48 via fd00::2 mtu 1300",
    "route add fd00:7:1::/48 via fd00::2 mtu lock 1300",
    "route add fd00:7:2::/48 via fd00::2 hoplimit 9",
    "route add fd00:8::/48 via fd00:1::2",
    "route add blackhole fd00:20::/48",
    "route add unreachable fd00:21::/48",
    "route add prohibit fd00:22::/48",
    "rule add fwmark 5 to 10.7.0.0/16 prohibit",
)


@dataclass
class Lab:
    pair: Veth
    stack: Stack
    taps: dict[str, socket.socket]

    def packets(self, port: int, want: int = 0) -> list[tuple[str, bytes]]:
        """(far device, IP packet) of what came from `port`; waits until there are `want`, but not for ever."""
        deadline = time.monotonic() + (0.3 if want else 0)
        found: list[tuple[str, bytes]] = []
        while True:
            for device, tap in self.taps.items():
                while (packet := _next(tap)) is not None:
                    found += [(device, packet)] if _is_ours(packet, port, found) else []
            if len(found) >= want or time.monotonic() > deadline:
                return found


def _next(tap: socket.socket) -> bytes | None:
    try:
        return tap.recv(1 << 16)
    except BlockingIOError:
        return None


def _is_ours(packet: bytes, port: int, before: list[tuple[str, bytes]]) -> bool:
    """A datagram from `port`, or a further fragment of one."""
    if packet[0] >> 4 == 4:
        if packet[9] != 17:
            return False
        if int.from_bytes(packet[6:8]) & 0x1FFF:
            return any(packet[4:6] == other[4:6] for _, other in before)
        return int.from_bytes(packet[20:22]) == port
    if packet[6] == 44:
        if int.from_bytes(packet[42:44]) & 0xFFF8:
            return any(packet[44:48] == other[44:48] for _, other in before)
        return int.from_bytes(packet[48:50]) == port
    return packet[6] == 17 and int.from_bytes(packet[40:42]) == port


@pytest.fixture(scope="module")
def lab(veth_module: Callable[..., Veth]) -> Iterator[Lab]:
    pair = veth_module(near=["10.0.0.1/24", "fd00::1/64"], far=["10.0.0.2/24", "fd00::2/64"])
    near, far = pair.near.netns, pair.far.netns
    near.ip(*(line.replace("FAR", far.name) for line in SETUP))
    far.ip("link set far1 up", "address add 10.0.1.2/24 dev far1", "address add fd00:1::2/64 dev far1 nodad")
    mac = far.show("link", "show", "dev", "far1")[0]["address"]
    for device, lladdr, hosts in (
        ("near0", pair.far.mac, ("10.0.0.2", "fd00::2", "fe80::2")),
        ("other0", mac, ("10.0.1.2", "fd00:1::2", "fe80::2")),
    ):
        near.ip(*(f"neighbour replace {host} lladdr {lladdr} dev {device}" for host in hosts))
    far.call(lambda: None)
    taps = {name: far.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)) for name in
            ("far0", "far1")}  # fmt: skip
    for name, tap in taps.items():
        tap.bind((name, 3))
        tap.setsockopt(SOL, socket.SO_RCVBUF, 1 << 22)
    with open_stack("near0", netns=near.name, **SMALL) as stack:
        yield Lab(pair, stack, taps)
    for tap in taps.values():
        tap.close()


@pytest.fixture(scope="module")
def veth_module() -> Iterator[Callable[..., Veth]]:
    from xdpstack.testing.namespace import Namespace
    from xdpstack.testing.veth import make_veth

    made: list[Namespace] = []

    def make(**options: Any) -> Veth:
        made.extend((Namespace("near"), Namespace("far")))
        return make_veth(made[-2], made[-1], **options)

    yield make
    for each in made:
        each.delete()


Tell = tuple[str, Any]


def outcome(call: Callable[..., Any], *arguments: Any) -> Tell:
    try:
        return "said", call(*arguments)
    except OSError as error:
        return "errno", errno.errorcode.get(error.errno or 0, str(error))


def comparable(device: str, packet: bytes, connected: bool) -> tuple[Any, ...]:
    """What of a packet must be the same. Ids of connected sockets: see the contract of ip.tx."""
    if packet[0] >> 4 == 4:
        total, ident, frag = struct.unpack_from(">HHH", packet, 2)
        payload = packet[20:total] if frag & 0x1FFF else packet[28:total]
        return (
            device,
            packet[:2],
            total,
            not connected and ident == 0,
            hex(frag),
            packet[8:10],
            packet[12:20],
            payload[:8],
            len(payload),
        )
    offset = 48 if packet[6] == 44 else 40
    first = not (packet[6] == 44 and int.from_bytes(packet[42:44]) & 0xFFF8)
    word = int.from_bytes(packet[:4]) >> 20
    payload = packet[offset + (8 if first else 0) :]
    return (
        device,
        hex(word),
        packet[4:8],
        packet[8:40],
        packet[40:44] if offset == 48 else b"",
        payload[:8],
        len(payload),
    )


@dataclass
class Case:
    family: int
    bind: tuple[Any, ...]
    options: list[tuple[int, int, Any]]
    sends: list[tuple[int, tuple[Any, ...]]]
    connect: tuple[Any, ...] | None
    device: str | None

    def address(self, port: int) -> tuple[Any, ...]:
        return (self.bind[0], port, *self.bind[2:])


def case(rng: Random, lab: Lab) -> Case:
    family = rng.choice((4, 6))
    near = lab.pair.near.netns
    index = {name: near.call(partial(socket.if_nametoindex, name)) for name in ("near0", "other0", "lo")}

    def target() -> tuple[Any, ...]:
        if family == 4:
            return rng.choice(HOSTS4), rng.choice((TO, TO, TO, TO, TO, 0))
        host, port = (
            rng.choice(HOSTS6) if rng.random() < 0.8 else "::ffff:" + rng.choice(HOSTS4),
            rng.choice((TO, TO, TO, TO, 0)),
        )
        scope = rng.choice((0, 0, index["near0"], index["other0"], index["lo"], 999)) if rng.random() < 0.5 else 0
        if host.startswith("fe80") and not scope:
            scope = index[rng.choice(("near0", "other0"))]
        return host, port, 0, scope

    if family == 4:
        bind: tuple[Any, ...] = (
            rng.choice(("0.0.0.0", "0.0.0.0", "10.0.0.1", "10.0.1.1", "224.0.0.9", "10.0.0.255")),
            0,
        )
    else:
        bind = (rng.choice(("::", "::", "fd00::1", "fd00:1::1", "::ffff:10.0.0.1", "ff05::9")), 0, 0, 0)
    pool = OPTIONS[4] + (OPTIONS[6] if family == 6 else [])
    options = [
        (level, name, rng.choice(values)) for level, name, values in rng.sample(pool, rng.choice((0, 0, 1, 1, 2, 4)))
    ]
    sizes = [
        0,
        1,
        100,
        571,
        572,
        573,
        972,
        973,
        1252,
        1253,
        1424,
        1425,
        1452,
        1453,
        1472,
        1473,
        1900,
        5000,
        65507,
        65508,
        65535,
        65536,
        70000,
    ]
    connect = target() if rng.random() < 0.2 else None
    device = rng.choice(("near0", None, None, None))
    return Case(family, bind, options, [(rng.choice(sizes), target()) for _ in range(6)], connect, device)


def sent_by_kernel(lab: Lab, one: Case) -> list[Tell | list[Any]]:
    kind = socket.AF_INET if one.family == 4 else socket.AF_INET6
    sock = lab.pair.near.netns.call(lambda: socket.socket(kind, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
    with sock:
        if one.device:
            sock.setsockopt(SOL, socket.SO_BINDTODEVICE, one.device.encode())
        # as every shadow has it
        sock.setsockopt(IP, 11, 1)
        sock.bind(one.address(KERNEL_PORT))
        return sent_by(lab, one, sock, KERNEL_PORT, None)


def sent_by_us(lab: Lab, one: Case, like: list[Any]) -> list[Tell | list[Any]]:
    family = socket.AF_INET if one.family == 4 else socket.AF_INET6
    with lab.stack.udp(one.address(OUR_PORT), family=family, device=one.device) as sock:
        sock.setblocking(False)
        return sent_by(lab, one, sock, OUR_PORT, like)


def sent_by(lab: Lab, one: Case, sock: Any, port: int, like: list[Any] | None) -> list[Any]:
    told: list[Any] = []
    for level, name, value in one.options:
        told.append(outcome(sock.setsockopt, level, name, value))
        if not isinstance(value, bytes) and name != socket.SO_RCVBUF:
            told.append(outcome(sock.getsockopt, level, name))
    if one.connect:
        told.append(outcome(sock.connect, one.connect))
        if told[-1][0] == "said":
            told.append((sock.getsockname()[0], outcome(sock.getpeername)))
    connected = one.connect is not None
    for number, (size, to) in enumerate(one.sends):
        data = number.to_bytes(4, "big") * (size // 4 + 1)
        told.append(outcome(sock.sendto, data[:size], to))
        want = len(like[len(told)]) if like else 0
        found = lab.packets(port, want)
        told.append(sorted(comparable(*packet, connected) for packet in found))
        # an ICMP error that has come meanwhile is another matter (test_udp_shadow.py)
        outcome(sock.getsockopt, SOL, socket.SO_ERROR)
    if one.connect:  # to port 0, too
        told.append(outcome(sock.send, b"connected"))
        want = len(like[len(told)]) if like else 0
        told.append(sorted(comparable(*packet, True) for packet in lab.packets(port, want)))
    return told


@pytest.mark.parametrize("discover", [1, 2, 3, 5])
@pytest.mark.parametrize("family", [4, 6])
def test_a_path_mtu_that_icmp_tells_of(lab: Lab, family: int, discover: int) -> None:
    """The same before and after the message. Each socket has a peer of its own: Linux keeps what it learns for all."""
    told = []
    for who, port in enumerate((KERNEL_PORT, OUR_PORT)):
        last = 2 * (10 * family + discover) + who
        host = f"10.7.2.{last}" if family == 4 else f"fd00:7:2::{last:x}"
        bind = ("10.0.0.1", port) if family == 4 else ("fd00::1", port, 0, 0)
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        near = lab.pair.near.netns
        sock: Any = lab.stack.udp(bind) if who else near.call(partial(socket.socket, kind, socket.SOCK_DGRAM))
        with sock:
            sock.setsockopt(IP if family == 4 else IP6, IP_MTU_DISCOVER if family == 4 else IPV6_MTU_DISCOVER, discover)
            if not who:
                sock.bind(bind)
            sock.setblocking(False)
            found = [sizes(lab, sock, port, host)]
            icmp = too_big(bind[0], host, port, 1290)
            lab.pair.far.netns.call(partial(send_frame, "far0", lab.pair, icmp))
            outcome(sock.recvfrom, 1)  # drives ours; the kernel's has no error to tell
            outcome(sock.recvfrom, 1)
            found.append(sizes(lab, sock, port, host))
        told.append(found)
    assert told[0] == told[1]
    assert (told[0][0] == told[0][1]) == (discover in (3, 5))


def sizes(lab: Lab, sock: Any, port: int, host: str) -> list[Any]:
    """What becomes of datagrams around the path's MTU: the answer, and the lengths of the packets."""
    found: list[Any] = []
    for size in (1000, 1242, 1243, 1262, 1263, 1400):
        answer = outcome(sock.sendto, bytes(size), (host, TO))
        packets = lab.packets(port, 1 if answer[0] == "said" else 0)
        time.sleep(0)
        found.append((answer, sorted(len(packet) for _, packet in packets + lab.packets(port))))
    return found


def too_big(here: str, host: str, port: int, mtu: int) -> bytes:
    """What a router between says of a datagram from `here` to `host`: an IP packet."""
    four = ":" not in host
    src, dst = (socket.inet_pton(socket.AF_INET if four else socket.AF_INET6, each) for each in (here, host))
    datagram = udp(bytes(1400), port, TO)
    if four:
        inner = ipv4(datagram, src=src, dst=dst, frag=0x4000)[:48]
        body = struct.pack(">BBHHH", 3, 4, 0, 0, mtu) + inner
        body = body[:2] + csum(body).to_bytes(2, "big") + body[4:]
        return ipv4(body, proto=1, src=socket.inet_aton("10.0.0.2"), dst=src)
    router = socket.inet_pton(socket.AF_INET6, "fd00::2")
    body = struct.pack(">BBHI", 2, 0, 0, mtu) + ipv6(datagram, src=src, dst=dst)[:1200]
    pseudo = router + src + struct.pack(">II", len(body), 58)
    body = body[:2] + csum(pseudo + body).to_bytes(2, "big") + body[4:]
    return ipv6(body, 58, src=router, dst=src)


def send_frame(device: str, pair: Veth, packet: bytes) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((device, 0))
        wire.send(ethernet(packet, dst=bytes.fromhex(pair.near.mac.replace(":", ""))))


def test_what_is_sent(lab: Lab) -> None:
    rng = effort.rng("send")
    wrong = []
    count = effort.cases(500)
    end = time.monotonic() + 10 * effort.TIMES
    done = 0
    for _ in range(count):
        one = case(rng, lab)
        for _ in range(3):  # what is random (an id that happens to be 0) or comes late (an error) differs once
            theirs = sent_by_kernel(lab, one)
            ours = sent_by_us(lab, one, theirs)
            if theirs == ours:
                break
        if ("errno", "EAGAIN") in theirs or ("errno", "ENOBUFS") in theirs:
            continue  # datagrams that wait for a neighbour count against SO_SNDBUF there
        done += 1
        if theirs != ours:
            lines = [f"    Linux {a}\n    ours  {b}" for a, b in zip(theirs, ours, strict=False) if a != b]
            wrong.append(f"{one}\n" + "\n".join(lines))
        if time.monotonic() > end:
            break
    assert not wrong, f"{len(wrong)} of {done} differ:\n" + "\n".join(wrong[:12])
