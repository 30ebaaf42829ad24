"""Random rules and frames that have to do with each other: the literal cases, mixed, and changed in a few places."""

from ipaddress import ip_address

from hypothesis import strategies as st

from tests.device.xdp_cases import BROADCAST, CASES, HOST, MAC, MULTICAST, OTHER, ROUTES, SSH, Case
from xdpstack.device.claim_set import Claims
from xdpstack.device.claims import (
    Claim,
    Endpoint,
    Essential,
    EthertypeClaim,
    EverythingBut,
    ForwardClaim,
    PrefixClaim,
    ProtocolClaim,
    SocketClaim,
    Vlan,
)
from xdpstack.device.verdict import Rules
from xdpstack.errors import ClaimTaken

MACS = [bytes.fromhex(each.replace(":", "")) for each in (MAC, OTHER, BROADCAST, MULTICAST)]
V4 = ["10.0.0.2", "10.0.0.3", "10.0.0.255", "10.5.0.2", "239.1.2.3", "172.16.5.1", "0.0.0.0"]
V6 = ["fd00::2", "fd00::3", "fd00:1::1", "ff02::1", "::"]
ADDRESSES = [ip_address(each).packed for each in [*V4, *V6]]
PREFIXES = ["10.0.0.0/8", "10.0.0.2/32", "192.0.2.0/24", "0.0.0.0/0", "fd00::/8", "fd00::2/128", "::/0"]
PORTS = [7, 22, 443]
PROTOCOLS = [1, 6, 17, 44, 58, 60, 132]
ETHERTYPES = [0x0800, 0x0806, 0x86DD, 0x88CC]
CHANGES = ["mac", "tag", "service tag", "address", "byte", "byte", "cut"]

essentials = st.sampled_from([*Essential, Essential.NOTHING, Essential.ARP | Essential.ND | Essential.SSH])
endpoints = st.builds(Endpoint, st.sampled_from([6, 17]), st.sampled_from(PORTS))


def sockets(vlan: Vlan | None) -> st.SearchStrategy[SocketClaim]:
    addresses = ["10.0.0.2", "10.0.0.3", "10.0.0.255", "239.1.2.3", "10.5.0.2", "fd00::2", "0.0.0.0", "::"]
    return st.builds(SocketClaim, st.sampled_from(addresses), st.sampled_from(PORTS), st.just(vlan), st.booleans())


def wide(vlan: Vlan | None) -> list[st.SearchStrategy[PrefixClaim | ProtocolClaim | EthertypeClaim]]:
    own = st.just(vlan), st.booleans(), essentials
    return [
        st.builds(PrefixClaim, st.sampled_from(PREFIXES), *own),
        st.builds(ProtocolClaim, st.sampled_from(PROTOCOLS), st.sampled_from([None, 4, 6]), *own),
        st.builds(EthertypeClaim, st.sampled_from(ETHERTYPES), *own),
    ]


def everything(vlan: Vlan | None) -> st.SearchStrategy[EverythingBut]:
    exceptions = st.lists(st.one_of(endpoints, *wide(vlan)), max_size=3)
    return st.builds(EverythingBut, exceptions, st.just(vlan), st.booleans(), essentials)


# Made once: hypothesis is slow at making strategies.
claims: st.SearchStrategy[Claim] = st.one_of(
    [
        each
        for vlan in (None, 5, (9, 5))
        for each in (sockets(vlan), *wide(vlan), st.builds(ForwardClaim, st.just(vlan)), everything(vlan))
    ]
)


class Nowhere:
    """Takes entries and forgets them."""

    def update(self, table: str, entries: object) -> None: ...
    def delete(self, table: str, keys: object) -> None: ...


def compatible(wanted: list[Claim]) -> tuple[Claim, ...]:
    """Those of the claims that take no frames from one before them."""
    accepted = Claims(Nowhere(), bytes(6))
    accepted.set_local(HOST)
    for claim in wanted:
        try:
            accepted.add(claim)
        except ClaimTaken:
            continue
    return tuple(accepted.list())


@st.composite
def situations(draw: st.DrawFn) -> tuple[Rules, list[bytes]]:
    """Rules, and frames most of which some claim is about."""
    cases: list[Case] = draw(st.lists(st.sampled_from(CASES), min_size=1, max_size=4))
    wanted = [claim for case in cases for claim in case.claims] + draw(st.lists(claims, max_size=4))
    local = HOST if draw(st.booleans()) else tuple(draw(st.sets(st.sampled_from(HOST))))
    rules = Rules(MACS[0], compatible(wanted), local, ROUTES, draw(st.sampled_from([(SSH,), ()])))
    frames = [case.frame for case in [*cases, *draw(st.lists(st.sampled_from(CASES), max_size=8))]]
    return rules, [each for frame in frames for each in (frame, draw(changed(frame)))]


@st.composite
def changed(draw: st.DrawFn, original: bytes) -> bytes:
    """The frame with one to three changes; at least 14 bytes of it are left, which the kernel asks for."""
    frame = bytearray(original)
    for change in draw(st.lists(st.sampled_from(CHANGES), min_size=1, max_size=3)):
        if change == "mac":
            frame[:6] = draw(st.sampled_from(MACS))
        elif change == "tag":
            frame[12:12] = b"\x81\x00\x00" + bytes([draw(st.sampled_from([5, 5, 6]))])
        elif change == "service tag":
            frame[12:12] = b"\x88\xa8\x00" + bytes([draw(st.sampled_from([9, 9, 8, 0]))])
        elif change == "address" and len(frame) >= 54:
            address = draw(st.sampled_from(ADDRESSES))
            at = (30 if len(address) == 4 else 38) + (4 if frame[12:14] == b"\x81\x00" else 0)
            frame[at : at + len(address)] = address
        elif change == "byte":
            frame[draw(st.integers(0, min(len(frame), 80) - 1))] = draw(st.integers(0, 255))
        elif change == "cut":
            del frame[draw(st.integers(14, max(14, len(frame) - 1))) :]
    return bytes(frame)


noise = st.binary(min_size=14, max_size=200)
