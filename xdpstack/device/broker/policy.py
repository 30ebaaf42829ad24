"""Who may have what of a broker: rules, in a file of TOML. What no rule allows is refused.

[[allow]]
users = ["dns", 1001]          # by name or number; or groups = [...]
interfaces = ["eth1"]
queues = [0, 1]                # "all" if left out
ports = [53, "8000-8099"]      # UDP ports that may be claimed; none if left out
addresses = ["10.0.0.0/24"]    # and only there; a claim on all addresses needs none to be named
vlans = [0, 5, "100-199"]      # VLANs whose frames may be claimed; 0 is untagged, which it is alone if left out;
                               # "7.20-29": VLANs 20 to 29 within the service VLAN 7
wide = false                   # claims beyond sockets: prefixes, protocols, everything
"""

from __future__ import annotations

import grp
import pwd
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from xdpstack.device.claims import Claim, IPNetwork, SocketClaim, vlan_number
from xdpstack.errors import ConfigurationError, PrivilegeError


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as the kernel says (SO_PEERCRED, SO_PEERGROUPS): when it connected.

    `groups` are the supplementary ones.
    """

    pid: int
    uid: int
    gid: int
    groups: frozenset[int] = frozenset()

    def __str__(self) -> str:
        return f"process {self.pid} of user {self.uid}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One `[[allow]]`. `queues` None: all. `ports`, `vlans`: ranges, both ends included. `addresses` empty: any.

    VLAN 0 is untagged frames, as which those whose tag has a priority alone count. VLANs are numbers as of `vlan_number()`.
    """

    users: frozenset[int]
    groups: frozenset[int]
    interfaces: frozenset[str]
    queues: frozenset[int] | None = None
    ports: tuple[tuple[int, int], ...] = ()
    addresses: tuple[IPNetwork, ...] = ()
    wide: bool = False
    vlans: tuple[tuple[int, int], ...] = ((0, 0),)

    def names(self, peer: Peer) -> bool:
        """Whether it speaks of the peer."""
        return peer.uid in self.users or not self.groups.isdisjoint({peer.gid, *peer.groups})

    def is_for(self, peer: Peer, interface: str) -> bool:
        """Whether it speaks of the two."""
        return self.names(peer) and interface in self.interfaces

    def allows(self, claim: Claim) -> bool:
        """Whether the claim may be made."""
        if not _within(vlan_number(claim.vlan), self.vlans):
            return False
        if not isinstance(claim, SocketClaim):
            return self.wide
        if not _within(claim.port, self.ports):
            return False
        return not self.addresses or any(
            claim.address.version == each.version and claim.address in each for each in self.addresses
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """All rules."""

    rules: tuple[Rule, ...]

    def _of(self, peer: Peer, interface: str) -> list[Rule]:
        return [rule for rule in self.rules if rule.is_for(peer, interface)]

    def check_peer(self, peer: Peer) -> None:
        """Raises PrivilegeError if no rule speaks of the peer."""
        if not any(rule.names(peer) for rule in self.rules):
            raise _refused(peer, "have anything", "No rule of its policy names this user or group.")

    def check_interface(self, peer: Peer, interface: str) -> None:
        """Raises PrivilegeError if the peer may not have the interface."""
        if not self._of(peer, interface):
            raise _refused(peer, f"have {interface}", "No rule of its policy names both.")

    def check_queue(self, peer: Peer, interface: str, queue: int) -> None:
        """Raises PrivilegeError if the peer may not have the queue."""
        rules = self._of(peer, interface)
        if not any(rule.queues is None or queue in rule.queues for rule in rules):
            allowed = sorted({each for rule in rules for each in rule.queues or ()})
            raise _refused(
                peer,
                f"have queue {queue} of {interface}",
                f"Its policy allows queues {', '.join(map(str, allowed)) or 'none'}: queues=[...].",
            )

    def check_claim(self, peer: Peer, interface: str, claim: Claim) -> None:
        """Raises PrivilegeError if the peer may not claim that."""
        rules = self._of(peer, interface)
        if not any(rule.allows(claim) for rule in rules):
            ports = _shown({each for rule in rules for each in rule.ports})
            vlans = _shown({each for rule in rules for each in rule.vlans})
            cause = f"Its policy allows UDP ports {ports}; VLANs {vlans} (0: untagged)."
            raise _refused(peer, f"claim {claim} on {interface}", cause)


def _vlans(said: int | str | float) -> tuple[int, int]:
    if isinstance(said, float):
        raise ValueError(f"a VLAN within another is in quotes: {said}")
    service, dot, vlans = str(said).rpartition(".")
    low, high = _range(vlans, 1 if dot else 0, 4094)
    base = _vlan(service) << 16 if dot else 0
    return base | low, base | high


def _vlan(said: str) -> int:
    number = int(said)
    if not 1 <= number <= 4094:
        raise ValueError(f"no VLAN: {said}")
    return number


def _within(number: int, ranges: Iterable[tuple[int, int]]) -> bool:
    return any(first <= number <= last for first, last in ranges)


def _shown(ranges: Iterable[tuple[int, int]]) -> str:
    return ", ".join(map(_span, sorted(ranges))) or "none"


def _span(numbers: tuple[int, int]) -> str:
    first, last = (each & 0xFFFF for each in numbers)
    within = f"{numbers[0] >> 16}." if numbers[0] >> 16 else ""
    return within + (str(first) if first == last else f"{first}-{last}")


def _refused(peer: Peer, what: str, cause: str) -> PrivilegeError:
    return PrivilegeError(f"the broker does not let {peer} {what}", cause, "Ask whoever runs the broker for a rule.")


def load(path: Path) -> Policy:
    """The policy of a file. Raises OSError, and ConfigurationError that says what is wrong in it."""
    try:
        return parse(tomllib.loads(path.read_text()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from None


def parse(said: dict[str, Any]) -> Policy:
    """A policy from values as TOML has them. Raises ConfigurationError."""
    if set(said) - {"allow"}:
        raise ConfigurationError(
            f"a policy has no {', '.join(sorted(set(said) - {'allow'}))}", fix="Rules are [[allow]]."
        )
    rules = said.get("allow", [])
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise ConfigurationError("allow is no list of rules", fix="Rules are [[allow]].")
    return Policy(tuple(_rule(rule) for rule in rules))


def _rule(said: dict[str, Any]) -> Rule:
    known = {"users", "groups", "interfaces", "queues", "ports", "addresses", "vlans", "wide"}
    if unknown := set(said) - known:
        raise ConfigurationError(
            f"a rule has no {', '.join(sorted(unknown))}", fix=f"It can have {', '.join(sorted(known))}."
        )
    try:
        queues = said.get("queues", "all")
        made = Rule(
            frozenset(each if isinstance(each, int) else pwd.getpwnam(each).pw_uid for each in _list(said, "users")),
            frozenset(each if isinstance(each, int) else grp.getgrnam(each).gr_gid for each in _list(said, "groups")),
            frozenset(map(str, _list(said, "interfaces"))),
            None if queues == "all" else frozenset(int(each) for each in _list(said, "queues")),
            tuple(_range(each, 1, 65535) for each in _list(said, "ports")),
            tuple(ip_network(each) for each in _list(said, "addresses")),
            said.get("wide", False) is True,
            tuple(_vlans(each) for each in _list(said, "vlans")) if "vlans" in said else ((0, 0),),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigurationError(f"a rule cannot be {said}: {error}") from None
    if not (made.users or made.groups) or not made.interfaces:
        raise ConfigurationError(
            f"a rule says for nobody, or of no interface: {said}", fix="Name users or groups, and interfaces."
        )
    return made


def _list(said: dict[str, Any], key: str) -> Sequence[Any]:
    found = said.get(key, [])
    if not isinstance(found, list):
        raise TypeError(f"{key} is no list")
    return found


def _range(said: int | str, low: int, high: int) -> tuple[int, int]:
    first, _, last = str(said).partition("-")
    found = int(first), int(last or first)
    if not low <= found[0] <= found[1] <= high:
        raise ValueError(f"no number or range of {low} to {high}: {said}")
    return found
