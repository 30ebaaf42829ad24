"""Network namespaces with random addresses, routes, rules, next-hop objects, neighbours and switches, and random flows."""

import ipaddress
import itertools
import os
import random
import struct
import subprocess
from collections import Counter
from collections.abc import Iterator

from xdpstack.netlink import Address, packed, run_in
from xdpstack.netlink.channel import message, open_socket
from xdpstack.netlink.ip import ANY
from xdpstack.netlink.uapi import NLM_F_REQUEST
from xdpstack.routing.flow import Flow
from xdpstack.routing.tables import Tables

COUNT = itertools.count()
RTM_NEWRULE, NLM_F_ACK, NLM_F_CREATE, FR_ACT_TO_TBL = 32, 4, 0x400, 1
FRA_PRIORITY, FRA_TABLE, FRA_SPORT_RANGE, FRA_DPORT_RANGE, FRA_DSCP = 6, 15, 23, 24, 25
FRA_FLOWLABEL, FRA_FLOWLABEL_MASK, FRA_SPORT_MASK, FRA_DPORT_MASK, FRA_DSCP_MASK = 26, 27, 28, 29, 30
PREFERENCES = ["pref high", "pref medium", "pref low"]
TO_ALL = {packed(each) for each in ("255.255.255.255", "224.0.0.1", "224.0.0.5", "224.1.1.1", "239.1.1.1")}


class World:
    """A namespace with devices, and random commands for it."""

    DEVICES = ("lo", "a0", "b0", "c0", "d0", "e0")

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.origins: set[tuple[str, str, str]] = set()
        self.name = f"mirror-k-{os.getpid()}-{next(COUNT)}"
        subprocess.run(["ip", "netns", "add", self.name], check=True, timeout=30)
        self.sysctl("net.ipv6.conf.default.accept_dad=0")  # the link-local addresses are there at once
        self.ip("link set lo up", "link add a0 type veth peer name b0", "link add c0 type veth peer name d0",
                "link add e0 type veth peer name f0", "link set a0 up", "link set b0 up", "link set c0 up",
                "link set d0 up", "link set e0 up group 7")  # fmt: skip

    def close(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=True, timeout=30)

    def ip(self, *commands: str, options: tuple[str, ...] = ()) -> None:
        """Commands that the kernel may refuse. Some of ip(8)'s end a batch when they are: all come to its end."""
        run = ["ip", "-force", *options, "-n", self.name, "-batch", "-"]
        lines = "".join(f"{command}\n" for command in (*commands, "link show lo"))
        done = subprocess.run(run, input=lines, text=True, capture_output=True, check=False, timeout=60)
        assert "LOOPBACK" in done.stdout, done.stderr

    def sysctl(self, *settings: str) -> None:
        subprocess.run(["ip", "netns", "exec", self.name, "sysctl", "-qw", *settings], check=True, timeout=30)

    # The address plan is narrow, so that prefixes nest and lookups hit.

    def four(self) -> str:
        r = self.rng
        return f"10.{r.randrange(4)}.{r.choice([0, 0, 1, 128])}.{r.choice([0, 1, 2, 3, 5, 127, 254, 255])}"

    def six(self) -> str:
        r = self.rng
        return f"2001:db8:{r.randrange(4)}:{r.choice(['0', '0', '1', 'ff00'])}::{r.choice([0, 1, 2, 3, 5, 0xFF]):x}"

    def prefix(self, address: str, lengths: list[int]) -> str:
        return str(ipaddress.ip_network((address, self.rng.choice(lengths)), strict=False))

    def four_prefix(self) -> str:
        return self.prefix(self.four(), [0, 8, 10, 15, 16, 16, 23, 24, 24, 25, 30, 32, 32])

    def six_prefix(self) -> str:
        return self.prefix(self.six(), [0, 16, 32, 47, 48, 48, 63, 64, 64, 127, 128, 128])

    def device(self) -> str:
        return self.rng.choice(self.DEVICES[1:])

    def table(self) -> str:
        return self.rng.choice(["main"] * 4 + ["100", "100", "101", "101", "local", "default"])

    def metric(self) -> str:
        return self.rng.choice(["", "", "", "metric 5", "metric 50", "metric 2000"])

    def route(self) -> str:
        return self.route4() if self.rng.random() < 0.5 else self.route6()

    def route4(self) -> str:
        r = self.rng
        verb = r.choice(["add", "append", "prepend", "replace"])
        prefix, table, metric = self.four_prefix(), self.table(), self.metric()
        tos = r.choice(["", "", "", "", "tos 0x10", "tos 0x08"])
        source = f"src {r.choice(self.own4)}" if self.own4 and r.random() < 0.2 else ""
        tail = f"table {table} {metric} {tos}"

        def hop() -> str:
            kind = r.random()
            device = self.device()
            if kind < 0.5:
                # Of default gateways that are all dead Linux takes one after the other; so these are alive.
                gateway = f"10.9.9.{r.randrange(9)}" if prefix == "0.0.0.0/0" else self.gateway4(device)
                return f"via {gateway} dev {device} onlink"
            if kind < 0.56 and prefix != "0.0.0.0/0":  # this host itself, as often as not
                return f"via {r.choice(self.own4)}"
            if kind < 0.65:
                return f"via inet6 fe80::{r.randrange(1, 5)} dev {device}"
            return f"dev {r.choice([device, device, device, 'lo'])}"

        kind = r.random()
        if kind < 0.12:
            return f"route {verb} {r.choice(['blackhole', 'unreachable', 'prohibit', 'throw'])} {prefix} {tail}"
        if kind < 0.15:
            wide = self.prefix(self.four(), [8, 10, 16])
            return f"route {verb} local {wide} dev {r.choice(self.DEVICES)} table local {metric}"
        if kind < 0.18:
            of_type = r.choice(["local", "broadcast", "anycast", "multicast"])
            return f"route {verb} {of_type} {prefix} dev {r.choice(self.DEVICES)} {tail}"
        if kind < 0.25:
            return f"route {verb} {prefix} nhid {r.choice([1, 2, 3, 4, 5, 7, 10, 11, 13])} {tail}"
        if kind < 0.4:
            hops = " ".join(f"nexthop {hop()} weight {r.randrange(1, 5)}" for _ in range(r.randrange(2, 4)))
            return f"route {verb} {prefix} {tail} {source} {hops}"
        scope = r.choice(["", "", "", "scope link", "scope global", "scope host"])
        return f"route {verb} {prefix} {hop()} {tail} {source} {scope}"

    def gateway4(self, device: str) -> str:
        return f"10.{self.DEVICES.index(device) % 4}.0.{self.rng.randrange(50, 55)}"

    def route6(self) -> str:
        r = self.rng
        verb = r.choice(["add", "append", "replace"])
        prefix, table, metric = self.six_prefix(), self.table(), self.metric()
        origin = f"from {self.prefix(self.six(), [32, 48, 64])}" if r.random() < 0.12 else ""
        # Nothing twice: an add that Linux refuses can leave its tree with a node that no packet finds any more.
        origin = "" if (prefix, origin, table) in self.origins else origin
        self.origins.add((prefix, origin, table))
        source = f"src {r.choice(self.own6)}" if self.own6 and r.random() < 0.2 else ""
        preference = r.choice(["", "", "", "pref high", "pref low"])
        tail = f"{origin} table {table} {metric}"

        kind = r.random()
        if kind < 0.08:  # the score decides; of another metric than siblings, whose dump hides what is between them
            preference = r.choice(PREFERENCES)
            return f"route append {r.choice(['::/0', '2001:db8::/32'])} dev {self.device()} {preference} metric 88"
        if kind < 0.14:
            return f"route {verb} {r.choice(['blackhole', 'unreachable', 'prohibit', 'throw'])} {prefix} {tail}"
        if kind < 0.18:
            of_type = r.choice(["local", "local", "multicast", "broadcast"])
            return f"route {verb} {of_type} {prefix} dev {r.choice(self.DEVICES)} {tail}"
        if kind < 0.22:
            return f"route {verb} {prefix} {tail} nhid {r.choice([4, 5, 6, 12])}"
        if kind < 0.36:
            hops = " ".join(
                f"nexthop via fe80::{r.randrange(1, 5)} dev {self.device()} weight {r.randrange(1, 5)}"
                for _ in range(r.randrange(2, 4))
            )
            return f"route {verb} {prefix} {tail} {hops}"
        # Routes through gateways become siblings, of which netlink tells the source and preference of the first alone: none
        # for those, but where the metric keeps them apart.
        gateway = f"via fe80::{r.randrange(1, 5)} dev {self.device()}"
        if kind < 0.45:
            return f"route replace {prefix} {gateway} {origin} table {table} metric 77 {source} {preference}"
        if kind < 0.75:
            return f"route {verb} {prefix} {gateway} {tail}"
        return f"route {verb} {prefix} dev {self.device()} {tail} {source} {preference}"

    def rule(self, six: bool) -> str:
        r = self.rng
        words = ["not"] if r.random() < 0.1 else []
        prefix = (lambda: self.prefix(self.six(), [0, 32, 48, 64, 128])) if six else (
            lambda: self.prefix(self.four(), [0, 8, 16, 24, 32]))  # fmt: skip
        words.append(f"from {prefix()}" if r.random() < 0.4 else "from all")
        choices = [
            lambda: f"to {prefix()}",
            lambda: f"iif {r.choice([*self.DEVICES, 'gone0'])}",
            lambda: f"oif {r.choice(self.DEVICES)}",
            lambda: f"fwmark {r.randrange(4)}/{r.choice(['0xffffffff', '0x1', '0x2'])}",
            lambda: f"tos {r.choice(['0x10', '0x08'])}",
            lambda: f"ipproto {r.choice(['udp', 'tcp'])} dport {r.choice(['53', '50-60'])}",
            lambda: f"ipproto udp sport {r.choice(['1000', '900-1100'])}",
            lambda: f"uidrange {r.choice(['0-0', '5-9'])}",
        ]
        for make in choices:
            if r.random() < 0.16:
                words.append(make())
        action = r.random()
        if action < 0.65:
            words.append(f"lookup {r.choice(['100', '101', '102', 'main', 'local', 'default'])}")
            if r.random() < 0.2:
                words.append(f"suppress_prefixlength {r.choice([0, 8, 16, 48])}")
            if r.random() < 0.15:
                words.append("suppress_ifgroup 7")
        elif action < 0.75:
            words.append(f"goto {r.choice([300, 400, 32766])}")
        elif action < 0.8:
            words.append("nop")
        else:
            words.append(r.choice(["blackhole", "unreachable", "prohibit"]))
        return f"rule add {' '.join(words)} priority {r.choice([0, 1, 1, 100, 200, 300, 400, 40000])}"

    def newer_rules(self) -> list[bytes]:
        """RTM_NEWRULE with selectors that ip(8) does not know everywhere: DSCP, masks of ports, flow labels."""
        r, made = self.rng, []
        for sequence in range(r.randrange(2, 7)):
            six = r.random() < 0.5
            selectors = [
                (FRA_PRIORITY, struct.pack("=I", r.choice([50, 150, 250, 350]))),
                (FRA_TABLE, struct.pack("=I", r.choice([100, 101, 102, 254]))),
            ]
            if r.random() < 0.6:
                selectors.append((FRA_DSCP, bytes([r.choice([2, 4, 12, 46])])))
                selectors += [(FRA_DSCP_MASK, bytes([r.choice([0x3F, 0x06, 0x0C])]))] if r.random() < 0.4 else []
                mask = next((value[0] for kind, value in selectors if kind == FRA_DSCP_MASK), 0x3F)
                at = next(i for i, (kind, _) in enumerate(selectors) if kind == FRA_DSCP)
                selectors[at] = (FRA_DSCP, bytes([selectors[at][1][0] & mask]))
            for kind, mask_kind, ports in (
                (FRA_SPORT_RANGE, FRA_SPORT_MASK, (1000, 2000)),
                (FRA_DPORT_RANGE, FRA_DPORT_MASK, (53, 80)),
            ):
                if r.random() < 0.3:
                    mask = r.choice([0xFFF0, 0x00FF, 0x0001])
                    port = r.choice(ports) & mask
                    selectors.append((kind, struct.pack("=HH", port, port)))
                    selectors.append((mask_kind, struct.pack("=H", mask)))
            if six and r.random() < 0.3:
                selectors.append((FRA_FLOWLABEL, struct.pack(">I", 0)))
                selectors.append((FRA_FLOWLABEL_MASK, struct.pack(">I", 0xFF)))
            head = struct.pack("=8BI", 10 if six else 2, 0, 0, 0, 0, 0, 0, FR_ACT_TO_TBL, 2 if r.random() < 0.2 else 0)
            body = head + b"".join(
                struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4) for kind, value in selectors
            )
            made.append(message(RTM_NEWRULE, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK, sequence, body))
        return made

    def add_newer_rules(self) -> None:
        """Kernels before 6.15 refuse some of them."""
        with run_in(self.name, open_socket) as netlink:
            for request in self.newer_rules():
                netlink.send(request)
                netlink.recv(1 << 12)

    def populate(self, rules: bool) -> None:
        r = self.rng
        switches = []
        for device in ("all", "default", *self.DEVICES):
            for switch, chance in (("rp_filter", 0.15), ("accept_local", 0.15), ("route_localnet", 0.1),
                                   ("src_valid_mark", 0.3), ("ignore_routes_with_linkdown", 0.3),
                                   ("send_redirects", 0.5), ("bc_forwarding", 0.1)):  # fmt: skip
                value = r.choice([1, 2]) if switch == "rp_filter" else 1
                switches.append(f"net.ipv4.conf.{device}.{switch}={value if r.random() < chance else 0}")
            if r.random() < 0.3:
                switches.append(f"net.ipv6.conf.{device}.ignore_routes_with_linkdown=1")
            if r.random() < 0.1 and device != "all":
                switches.append(f"net.ipv6.conf.{device}.use_oif_addrs_only=1")
        switches += [f"net.ipv4.ip_forward={r.choice([0, 1, 1])}", f"net.ipv6.conf.all.forwarding={r.choice([0, 1])}",
                     f"net.ipv4.fib_multipath_use_neigh={r.choice([0, 0, 1])}"]  # fmt: skip
        for device in self.DEVICES[1:]:
            if r.random() < 0.3:
                switches.append(f"net.ipv4.conf.{device}.forwarding={r.choice([0, 1])}")
        self.sysctl(*switches)
        self.own4, self.own6 = [], []
        addresses = []
        for _ in range(r.randrange(3, 10)):
            own, six = self.four(), self.six()
            scope = r.choice(["", "", "", "scope link", "scope host"])
            addresses.append(f"address add {own}/{r.choice([16, 24, 24, 32])} dev {r.choice(self.DEVICES)} {scope}")
            flags = r.choice(["", "", "", "preferred_lft 0", "noprefixroute", "mngtmpaddr"])
            addresses.append(
                f"address add {six}/{r.choice([48, 64, 64, 128])} dev {r.choice(self.DEVICES)} nodad {flags}"
            )
            self.own4.append(own)
            self.own6.append(six)
        for other in ("fd00::1", "2002:a00:1::2", "fec0::3", "3ffe::4"):  # of other labels and scopes
            if r.random() < 0.3:
                addresses.append(f"address add {other}/64 dev {r.choice(self.DEVICES)} nodad")
        if r.random() < 0.3:  # before the routes: a multipath route keeps the sources of when it was added
            addresses.append(f"address add 224.1.1.1/32 dev {self.device()} autojoin")
        objects = [f"nexthop add id {n} via 10.{n}.0.50 dev {d} onlink" for n, d in ((1, "a0"), (2, "c0"))]
        objects += ["nexthop add id 3 blackhole", "nexthop add id 10 group 1,3/2,1", "nexthop add id 11 group 2,2",
                    "nexthop add id 4 via fe80::3 dev a0", "nexthop add id 5 via fe80::4 dev c0",
                    "nexthop add id 6 dev d0", "nexthop add id 12 group 4,2/5,5",
                    f"nexthop add id 7 via {self.own4[0]} dev a0", "nexthop add id 13 group 1,2/4"]  # fmt: skip
        dead = [f"neighbour replace fe80::{n} dev {d} nud failed" for n in range(1, 5) for d in self.DEVICES[1:]
                if r.random() < 0.35]  # fmt: skip
        dead += [f"neighbour replace {self.gateway4(d)} dev {d} nud failed" for d in self.DEVICES[1:] for _ in range(2)]
        self.ip(*addresses, *objects, *dead, *(self.route() for _ in range(r.randrange(50, 120))))
        if r.random() < 0.3:
            self.ip(f"link set {self.device()} down")
        if rules:
            self.ip(*(self.rule(six=False) for _ in range(r.randrange(3, 14))))
            self.ip(*(self.rule(six=True) for _ in range(r.randrange(3, 14))), options=("-6",))
            self.add_newer_rules()
            if r.random() < 0.15:
                self.ip("rule del priority 0")

    def flows(self, tables: Tables, addresses: tuple[Address, ...], count: int) -> Iterator[Flow]:
        """Random lookups of both families and directions."""
        r = self.rng
        owners = Counter(address.local for address in addresses)
        shared = {address for address, count in owners.items() if count > 1}
        indices = [*tables.devices, 0, 0, 0, 9999]
        odd4 = ["255.255.255.255", "0.0.0.0", "0.1.2.3", "127.0.0.1", "127.9.9.9", "224.0.0.1", "224.0.0.5", "224.1.1.1",
                "239.1.1.1", "8.8.8.8", "240.0.0.1"]  # fmt: skip
        odd6 = ["::", "::1", "fe80::1", "fe80::5", "ff02::1", "ff02::99", "ff0e::1", "2a00::1", "::ffff:10.0.0.1",
                "fec0::1", "fd00::1", "2002:a00:1::1", "2001::5"]  # fmt: skip
        for _ in range(count):
            six = r.random() < 0.5
            own = self.own6 if six else self.own4
            odd = odd6 if six else odd4

            def pick(chance_odd: float, own: list[str] = own, odd: list[str] = odd, six: bool = six) -> str:
                chance = r.random()
                if chance < chance_odd:
                    return r.choice(odd)
                if chance < chance_odd + 0.25:
                    return r.choice(own)
                return self.six() if six else self.four()

            incoming = r.random() < 0.5
            with_source = incoming or r.random() < 0.4
            protocol = r.choice([0, 17, 17, 6]) if six else r.choice([17, 17, 6])
            source = packed(pick(0.15)) if with_source else b""
            if not incoming and source in ANY.values():
                source = b""  # the same as none
            destination = packed(pick(0.2))
            if source in shared and destination in TO_ALL:
                source = b""  # of an address on two devices Linux takes the newest, which it does not tell
            yield Flow(
                destination,
                source,
                iif=r.choice([*tables.devices]) if incoming else 0,
                oif=0 if incoming else r.choice(indices),
                mark=r.choice([0, 0, 1, 2, 3]),
                tos=r.choice([0, 0, 0x10, 0x08, 0x30, 0xB8]),
                protocol=protocol,
                source_port=r.choice([1000, 2000]) if protocol else 0,
                destination_port=r.choice([53, 55, 80]) if protocol else 0,
                user=0 if incoming else r.choice([0, 0, 7]),
            )
