"""The kernel's networking switches (/proc/sys/net), read once and held as plain numbers.

Names are the kernel's, dotted, without the leading `net.`: `ipv4.ip_forward`, `ipv4.conf.eth0.rp_filter`.
A switch of a device often combines with that of `all`; `Sysctls.conf_*` combine them as the kernel's macros do.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from xdpstack.netlink.uapi import AF_INET

GLOBAL: Final[dict[str, int]] = {
    "core.rmem_default": 212992,
    "core.rmem_max": 212992,
    "core.wmem_default": 212992,
    "core.wmem_max": 212992,
    "core.optmem_max": 131072,
    "core.netdev_max_backlog": 1000,
    "ipv4.ip_forward": 0,
    "ipv4.ip_default_ttl": 64,
    "ipv4.ip_no_pmtu_disc": 0,
    "ipv4.ip_forward_use_pmtu": 0,
    "ipv4.ip_forward_update_priority": 1,
    "ipv4.ip_nonlocal_bind": 0,
    "ipv4.ip_unprivileged_port_start": 1024,
    "ipv4.fwmark_reflect": 0,
    "ipv4.fib_multipath_use_neigh": 0,
    "ipv4.fib_multipath_hash_policy": 0,
    "ipv4.fib_multipath_hash_fields": 7,
    "ipv4.icmp_echo_ignore_all": 0,
    "ipv4.icmp_echo_ignore_broadcasts": 1,
    "ipv4.icmp_ratelimit": 1000,
    "ipv4.icmp_ratemask": 6168,
    "ipv4.icmp_msgs_per_sec": 1000,
    "ipv4.icmp_msgs_burst": 50,
    "ipv4.icmp_errors_use_inbound_ifaddr": 0,
    "ipv4.ipfrag_high_thresh": 4194304,
    "ipv4.ipfrag_low_thresh": 3145728,
    "ipv4.ipfrag_time": 30,
    "ipv4.ipfrag_max_dist": 64,
    "ipv4.udp_rmem_min": 4096,
    "ipv4.udp_wmem_min": 4096,
    "ipv4.ip_early_demux": 1,
    "ipv4.udp_early_demux": 1,
    "ipv4.route.min_pmtu": 552,
    "ipv4.route.mtu_expires": 600,
    "ipv6.bindv6only": 0,
    "ipv6.ip_nonlocal_bind": 0,
    "ipv6.anycast_src_echo_reply": 0,
    "ipv6.fwmark_reflect": 0,
    "ipv6.auto_flowlabels": 1,
    "ipv6.flowlabel_consistency": 1,
    "ipv6.flowlabel_state_ranges": 0,
    "ipv6.fib_multipath_hash_policy": 0,
    "ipv6.fib_multipath_hash_fields": 7,
    "ipv6.icmp.ratelimit": 1000,
    "ipv6.ip6frag_high_thresh": 4194304,
    "ipv6.ip6frag_low_thresh": 3145728,
    "ipv6.ip6frag_time": 60,
}
"""The switches of a whole namespace that are mirrored, each with the value a fresh namespace has."""

IPV4_CONF: Final[dict[str, int]] = {
    "forwarding": 0,
    "mc_forwarding": 0,
    "bc_forwarding": 0,
    "rp_filter": 0,
    "accept_local": 0,
    "accept_source_route": 1,
    "accept_redirects": 1,
    "send_redirects": 1,
    "secure_redirects": 1,
    "shared_media": 1,
    "route_localnet": 0,
    "src_valid_mark": 0,
    "log_martians": 0,
    "ignore_routes_with_linkdown": 0,
    "disable_policy": 0,
    "disable_xfrm": 0,
    "drop_unicast_in_l2_multicast": 0,
    "arp_ignore": 0,
    "arp_announce": 0,
    "arp_filter": 0,
    "arp_accept": 0,
    "proxy_arp": 0,
    "promote_secondaries": 0,
}
"""IPv4 switches of a device (ipv4_devconf), with the value a new device has."""

IPV6_CONF: Final[dict[str, int]] = {
    "disable_ipv6": 0,
    "forwarding": 0,
    "force_forwarding": 0,
    "mc_forwarding": 0,
    "hop_limit": 64,
    "mtu": 1500,
    "accept_source_route": 0,
    "accept_redirects": 1,
    "accept_ra": 1,
    "accept_dad": 1,
    "addr_gen_mode": 0,
    "ignore_routes_with_linkdown": 0,
    "use_oif_addrs_only": 0,
    "use_optimistic": 0,
    "optimistic_dad": 0,
    "use_tempaddr": 0,
    "drop_unicast_in_l2_multicast": 0,
    "disable_policy": 0,
    "proxy_ndp": 0,
}
"""IPv6 switches of a device (ipv6_devconf), with the value a new device has."""

ALL_DIFFERS: Final = {"accept_source_route": 0, "accept_dad": 0, "mtu": 1280}
"""Where the pseudo-device `all` starts with another value than a new device."""

ROOT: Final = Path("/proc/sys/net")


@dataclass(frozen=True, slots=True)
class Sysctls:
    """One reading of the switches. Immutable; compares by value."""

    values: Mapping[str, int] = field(default_factory=lambda: MappingProxyType(dict(GLOBAL)))
    """Switches of the namespace, by dotted name."""
    ipv4: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: MappingProxyType({}))
    """By device name (`all` and `default` among them), then by switch."""
    ipv6: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def build(cls, given: Mapping[str, int], devices: Iterable[str] = ()) -> "Sysctls":
        """The switches of a fresh namespace with `devices`, then those of `given` as writing to /proc/sys sets them.

        So forwarding of the namespace reaches every device. Names may start with `net.`; one that is not mirrored
        raises KeyError.
        """
        names = ["all", "default", "lo", *(d for d in devices if d not in ("all", "default", "lo"))]
        values = dict(GLOBAL)
        conf = {"ipv4": {name: dict(IPV4_CONF) for name in names}, "ipv6": {name: dict(IPV6_CONF) for name in names}}
        for family in conf.values():
            family["all"].update({k: v for k, v in ALL_DIFFERS.items() if k in family["all"]})
        conf["ipv4"]["lo"].update(disable_policy=1, disable_xfrm=1)
        conf["ipv6"]["lo"].update(mtu=65536, accept_dad=-1, use_tempaddr=-1)
        for full, value in given.items():
            name = full.removeprefix("net.")
            version, _, rest = name.partition(".")
            if not rest.startswith("conf."):
                if name not in values:
                    raise KeyError(f"{full} is not a switch that is mirrored")
                values[name] = value
                if name == "ipv4.ip_forward":
                    set_forwarding(conf["ipv4"], value)
                continue
            device, _, switch = rest.removeprefix("conf.").rpartition(".")
            if version not in conf or device not in conf[version] or switch not in conf[version][device]:
                raise KeyError(f"{full} is not a switch that is mirrored, or names an unknown device")
            conf[version][device][switch] = value
            if switch == "forwarding" and device == "all":
                set_forwarding(conf[version], value)
                if version == "ipv4":
                    values["ipv4.ip_forward"] = value
        return cls(MappingProxyType(values), *(MappingProxyType(conf[v]) for v in ("ipv4", "ipv6")))

    @classmethod
    def read(cls, devices: Iterable[str]) -> "Sysctls":
        """Read /proc/sys/net for `devices`. The kernel shows the switches of the *calling thread's* namespace.

        What a kernel lacks, and what only the first namespace shows (net.core.*), keeps its default.
        """
        names = ["all", "default", *devices]
        return cls(
            MappingProxyType(dict(read_files(ROOT, GLOBAL))),
            MappingProxyType({n: MappingProxyType(dict(read_files(ROOT / "ipv4/conf" / n, IPV4_CONF))) for n in names}),
            MappingProxyType({n: MappingProxyType(dict(read_files(ROOT / "ipv6/conf" / n, IPV6_CONF))) for n in names}),
        )

    def __getitem__(self, name: str) -> int:
        """A switch of the namespace: `sysctls["ipv4.ip_forward"]`."""
        return self.values[name]

    def conf(self, family: int, device: str, switch: str) -> int:
        """The device's own value (IN_DEV_CONF_GET); of `default` if the device is unknown."""
        table = self.ipv4 if family == AF_INET else self.ipv6
        settings = table.get(device) or table.get("default") or (IPV4_CONF if family == AF_INET else IPV6_CONF)
        return settings[switch]

    def conf_or(self, family: int, device: str, switch: str) -> bool:
        """On for the device or for `all` (IN_DEV_ORCONF)."""
        return bool(self.conf(family, "all", switch) or self.conf(family, device, switch))

    def conf_and(self, family: int, device: str, switch: str) -> bool:
        """On for the device and for `all` (IN_DEV_ANDCONF)."""
        return bool(self.conf(family, "all", switch) and self.conf(family, device, switch))

    def conf_max(self, family: int, device: str, switch: str) -> int:
        """The larger of the device's and that of `all` (IN_DEV_MAXCONF)."""
        return max(self.conf(family, "all", switch), self.conf(family, device, switch))


def set_forwarding(conf: dict[str, dict[str, int]], value: int) -> None:
    """Writing forwarding for `all` writes it for every device (inet_forward_change, addrconf_forward_change)."""
    for settings in conf.values():
        settings["forwarding"] = value


def read_files(folder: Path, defaults: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """(name, value) for each switch under `folder`, its default where there is no such file.

    There are some two hundred, read every second: pathlib and file objects would cost as much as a thousand packets each.
    """
    try:
        where = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield from defaults.items()
        return
    try:
        for name, default in defaults.items():
            yield name, _read_number(name.replace(".", "/"), where, default)
    finally:
        os.close(where)


def _read_number(path: str, folder: int, default: int) -> int:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return default
    try:
        return int(os.read(file, 64))
    except (OSError, ValueError):
        return default
    finally:
        os.close(file)
