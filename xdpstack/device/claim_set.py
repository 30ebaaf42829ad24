"""The claims of one device, and the tables of its XDP program that say the same.

Every change is a diff: the entries that the new state needs are computed as plain values (claim_tables.py), compared with
those that are installed, and the difference is written (table_diff.py).
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping

from xdpstack.device import claim_tables as tables
from xdpstack.device.claims import Claim, Endpoint, IPNetwork, LocalAddress, SocketClaim, WideClaim
from xdpstack.device.table_diff import TableWriter, apply
from xdpstack.errors import ClaimTaken, ConfigurationError

#: A part of the entries that is computed at once: ("port", IP version, UDP port), ("wide",), ("local",) or ("forward",).
Unit = tuple[str | int, ...]


class Claims:
    """What is claimed on a device. Any thread may call; a call returns when the program has it, and changes all or nothing.

    `mac`: the device's, 6 bytes. `ssh`: the ports that wide claims leave to the host unless they name SSH.
    """

    def __init__(self, writer: TableWriter, mac: bytes, ssh: Collection[Endpoint] = ()) -> None:
        self._writer = writer
        self._lock = threading.Lock()
        self._mac = mac
        self._ssh = frozenset(ssh)
        self._local: tables.Local | None = None
        self._last_id = 0
        self._ids: dict[Claim, int] = {}
        # The same claims by unit: socket claims may be many, and adding one must not look at all the others.
        self._ports: dict[Unit, dict[SocketClaim, int]] = {}
        self._wide: dict[WideClaim, int] = {}
        self._tagged = 0  # how many name a VLAN
        # What the program has.
        self._installed: dict[Unit, tables.Entries] = {}
        self._device: tables.Entries = {}
        self._awake_ports = 0  # units of ports that have entries
        self._install({})

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, claim: Claim) -> bool:
        return claim in self._ids

    def list(self) -> Mapping[Claim, int]:
        """All claims with their ids, in the order in which they were made."""
        with self._lock:
            return dict(self._ids)

    def asleep(self) -> frozenset[SocketClaim]:
        """The socket claims whose address the host does not have: they lift nothing until it does."""
        with self._lock:
            local = self._local or {}
            return frozenset(
                each for each in self._ids if isinstance(each, SocketClaim) and not tables.awake(each, local)
            )

    def add(self, *claims: Claim) -> tuple[int, ...]:
        """Claim. Returns an id for each, never used before.

        Raises ClaimTaken when the same frames are claimed already, TableFull, and ConfigurationError for a wide claim before
        `set_local` was called: the program could not tell the host's SSH from others'.
        """
        return self.replace((), claims)

    def remove(self, *claims: Claim) -> None:
        """Claim no more. Raises ConfigurationError for what is not claimed."""
        self.replace(claims, ())

    def clear(self) -> None:
        """All claims out: from now on every frame is the kernel's."""
        with self._lock:
            self._replace(tuple(self._ids), ())

    def replace(self, old: Collection[Claim], new: Collection[Claim]) -> tuple[int, ...]:
        """Claim `new` and no longer `old`; raises and returns as `add` and `remove` do."""
        with self._lock:
            return self._replace(old, new)

    def set_local(self, addresses: Iterable[LocalAddress]) -> None:
        """The host's addresses are these, and no others. An address given both as unicast and as group is unicast."""
        local = {(each.address, each.vlan): each.group for each in sorted(addresses, key=lambda each: not each.group)}
        with self._lock:
            units: dict[Unit, tables.Entries] = {("local",): tables.local_entries(local)}
            for unit, claims in self._ports.items():
                units[unit] = tables.port_entries(claims, local)
            self._install(units, local=local)

    def set_forwardable(self, routes: Mapping[IPNetwork, bool]) -> None:
        """Where the routes of the host lead: True, to a device of this stack, so that forwarding may lift; False, elsewhere.

        The longest prefix decides. A ForwardClaim lifts nothing to a destination without a route here.
        """
        with self._lock:
            self._install({("forward",): tables.forward_entries(routes)})

    def set_mac(self, mac: bytes) -> None:
        """The device's MAC address, 6 bytes, is now this."""
        with self._lock:
            self._install({}, mac=mac)

    def set_ssh(self, ssh: Collection[Endpoint]) -> None:
        """The ports that wide claims leave to the host unless they name SSH are now these."""
        with self._lock:
            self._install({("wide",): tables.wide_entries(self._wide, ssh)})
            self._ssh = frozenset(ssh)

    def _replace(self, old: Collection[Claim], new: Collection[Claim]) -> tuple[int, ...]:
        ids = {claim: number for number, claim in enumerate(new, self._last_id + 1)}
        self._check(old, new)
        wide = dict(self._wide)
        ports: dict[Unit, dict[SocketClaim, int]] = {}
        for claim in (*old, *new):
            if isinstance(claim, SocketClaim):
                unit: Unit = ("port", claim.address.version, claim.port)
                at = ports.setdefault(unit, dict(self._ports.get(unit, {})))
                at.pop(claim, None)
                if claim in ids:
                    at[claim] = ids[claim]
            else:
                wide.pop(claim, None)
                if claim in ids:
                    wide[claim] = ids[claim]
        units = {unit: tables.port_entries(claims, self._local or {}) for unit, claims in ports.items()}
        units["wide",] = tables.wide_entries(wide, self._ssh)
        tagged = (
            self._tagged + sum(claim.vlan is not None for claim in new) - sum(claim.vlan is not None for claim in old)
        )
        self._install(units, wide=wide, tagged=tagged)

        for claim in old:
            del self._ids[claim]
        self._ids |= ids
        self._last_id += len(ids)
        for unit, claims in ports.items():
            if claims:
                self._ports[unit] = claims
            else:
                self._ports.pop(unit, None)
        return tuple(ids.values())

    def _check(self, old: Collection[Claim], new: Collection[Claim]) -> None:
        if missing := [claim for claim in old if claim not in self._ids]:
            raise ConfigurationError(f"not claimed: {missing[0]}")
        left = set(old)
        seen: set[Claim] = set()
        for claim in new:
            if claim in seen or (claim in self._ids and claim not in left):
                raise ClaimTaken(
                    f"claimed already: {claim}",
                    "A frame has one receiver in the program, and another of this stack's has made the same claim.",
                    "Close the other receiver first, or claim something else.",
                )
            seen.add(claim)
            if not isinstance(claim, SocketClaim) and self._local is None:
                raise ConfigurationError(
                    f"too early: {claim}",
                    "The host's addresses are not known yet, so its SSH could not be left alone.",
                    "Call set_local first.",
                )

    def _install(
        self,
        units: Mapping[Unit, tables.Entries],
        *,
        mac: bytes | None = None,
        local: tables.Local | None = None,
        wide: dict[WideClaim, int] | None = None,
        tagged: int | None = None,
    ) -> None:
        """Replace these units in the program, and what is given besides; what is not given stays."""
        mac = self._mac if mac is None else mac
        local = self._local if local is None else local
        wide = self._wide if wide is None else wide
        tagged = self._tagged if tagged is None else tagged
        awake_ports = self._awake_ports
        before: tables.Entries = dict(self._device)
        after: tables.Entries = {}
        for unit, entries in units.items():
            installed = self._installed.get(unit, {})
            before |= installed
            after |= entries
            if unit[0] == "port":
                awake_ports += bool(entries) - bool(installed)
        wide_entries = units.get(("wide",), self._installed.get(("wide",), {}))
        kinds = tables.kinds_of(wide_entries, wide, awake_ports > 0, tagged > 0)
        device = tables.device_entry(mac, kinds, local or {})
        apply(self._writer, before, after | device)

        self._mac, self._local, self._wide, self._tagged = mac, local, wide, tagged
        self._awake_ports, self._device = awake_ports, device
        for unit, entries in units.items():
            if entries:
                self._installed[unit] = entries
            else:
                self._installed.pop(unit, None)
