"""The doctor's look at one interface: driver, queues, MTU, offloads, foreign programs, holders of its queues, SSH, firewall.

Everything here only looks, in the calling thread's network namespace.
"""

from __future__ import annotations

from collections.abc import Iterator

from xdpstack.device import ethtool, firewall, netdev
from xdpstack.device.attached import DISPATCHER, attached_programs
from xdpstack.device.drivers import GENERIC_ONLY, RESETS, added_queues, native_lacks, zero_copy_lacks
from xdpstack.device.finding import Finding, error, note, ok, warning
from xdpstack.device.holders import Holders, bound_inodes, holders
from xdpstack.device.kernel import kernel_version
from xdpstack.device.netdev import RxMetadata, XdpFeature
from xdpstack.device.plan import PARAVIRTUAL, SG_KERNEL, largest_mtu, zero_copy_obstacle
from xdpstack.device.queues import active_queues
from xdpstack.device.session import sessions_through
from xdpstack.device.stripping import STRIPPING
from xdpstack.netlink import Link, Snapshot
from xdpstack.netlink.uapi import ARPHRD_ETHER


def link_findings(link: Link) -> Iterator[Finding]:
    """Whether the interface is one that can be used, and is up."""
    name = link.name
    if link.type != ARPHRD_ETHER and not link.is_loopback:
        yield error(
            "interface", f"{name} does not carry Ethernet frames", "AF_XDP hands over frames, and here are none."
        )
    if not link.is_up:
        yield error("interface", f"{name} is down", "", "Set it up.", f"ip link set {name} up")
    elif not link.has_carrier:
        yield warning("interface", f"{name} has no carrier", "No cable, or the other end is down.")
    else:
        yield ok("interface", f"{name} is up, MAC {link.address.hex(':')}")
    if link.master:
        yield warning(
            "interface",
            f"{name} belongs to another device (index {link.master})",
            "A bridge's or bond's own addresses are on the master; what is lifted here the master does not see.",
            "Open the device that has the addresses, or take this one out of the master.",
            f"ip link set {name} nomaster",
        )


def driver_findings(link: Link, mode: str, frame_bytes: int) -> Iterator[Finding]:
    """Which XDP modes and whether zero-copy can be had."""
    name = link.name
    driver = ethtool.driver(name)
    kind = "loopback" if link.is_loopback else (driver.name if driver else link.kind or "unknown")
    features = netdev.features(link.index)
    native = kind not in GENERIC_ONLY if features is None else XdpFeature.BASIC | XdpFeature.REDIRECT in features.xdp
    said = "" if features is not None else " as far as is known: this kernel does not say"
    if native and (lacks := native_lacks(name)):
        native = False
        level = error if mode == "native" else warning
        yield level("driver", f"{kind}: native XDP is of no use here", lacks, "mode='auto' takes generic mode.")
    elif native:
        yield ok("driver", f"{kind}: native XDP{said}")
    else:
        level = error if mode == "native" else warning
        yield level(
            "driver",
            f"{kind} has no native XDP{said}",
            "Generic mode runs after the kernel has made an skb: about ten times dearer for each frame.",
            "Use a device whose driver has native XDP, or mode='generic' (mode='auto' takes it).",
        )
    if features is not None and XdpFeature.HW_OFFLOAD in features.xdp:
        yield ok("driver", f"{kind}: the NIC runs XDP programs itself, so a pre-filter can be had")
    added = added_queues(name, len(active_queues(name, link.index))) if native else ()
    expected = "native" if native else "generic"
    obstacle = zero_copy_obstacle(name, expected, features, False, link.mtu, frame_bytes, kind, added)
    if obstacle:
        yield note("driver", "copy mode", obstacle)
    elif lacks := zero_copy_lacks(name):
        yield note("driver", "copy mode: zero-copy is asked for, and will be refused", lacks)
    elif features is None:
        yield note("driver", "zero-copy is asked for; whether it is granted shows when the queues are bound")
    else:
        yield ok("driver", "zero-copy")
    if kind in RESETS and native:
        yield note(
            "driver",
            f"attaching takes the link down for {RESETS[kind]}",
            f"{kind} resets when an XDP program is attached or detached. Opening waits for the carrier.",
        )
    if link.kind == "veth" or kind == "veth":
        yield from _veth(link)


def _veth(link: Link) -> Iterator[Finding]:
    yield note(
        "driver",
        f"{link.name} is one end of a veth pair, whose other end has index {link.lower}",
        "What a stack sends arrives there. What XDP programs redirect to this end, or send back from it (XDP_TX), is lost "
        "unless the other end has an XDP program, or GRO on.",
        "If there are such programs: attach one that passes everything at the other end, or switch GRO on there.",
        "ethtool -K PEER gro on",
    )


def queue_findings(link: Link, mode: str) -> Iterator[Finding]:
    """How many queues there are, and whether somebody has one."""
    name = link.name
    queues = active_queues(name, link.index)
    channels = ethtool.channels(name)
    driver = ethtool.driver(name)
    yield ok("queues", f"{len(queues)} active; all are bound unless queues=[...] names some")
    if mode == "generic" and len(queues) > 1 and link.kind == "veth":
        yield note(
            "queues",
            "all packets will come in on queue 0",
            "In generic mode veth does not say which queue a packet came by.",
            "Use native mode.",
        )
    if driver and driver.name == "virtio_net" and channels and channels.combined_max > channels.combined:
        yield warning(
            "queues",
            f"virtio_net has {channels.combined_max - channels.combined} spare queue pairs",
            "With XDP attached the driver takes pairs for sending and may spread what it receives over them too.",
            "Queues are counted again after attaching; to be sure, use all pairs before.",
            f"ethtool -L {name} combined {channels.combined_max}",
        )
    if len(queues) > 1 and ethtool.hashes_udp_ports(name) is False:
        yield note(
            "queues",
            "UDP between two hosts comes in on one queue",
            f"{driver.name if driver else name} hashes UDP on the addresses alone.",
            "Hash on the ports too.",
            f"ethtool -N {name} rx-flow-hash udp4 sdfn; ethtool -N {name} rx-flow-hash udp6 sdfn",
        )
    told = {queue.number for queue in netdev.rx_queues(link.index) or () if queue.xsk}
    taken = [queue for queue in queues if queue in told or bound_inodes(link.index, queue)]
    for queue in taken:
        yield error(
            "queues",
            f"queue {queue} has an AF_XDP socket already",
            f"{holders(link.index, queue)}.",
            "End that process, or take other queues: queues=[...].",
        )
    if not taken and bound_inodes(link.index, 0) is None:
        yield from _unknown_holders(holders(link.index, 0))


def _unknown_holders(found: Holders) -> Iterator[Finding]:
    if found.processes:
        yield note(
            "queues",
            f"{found}",
            "This kernel (without CONFIG_XDP_SOCKETS_DIAG) does not tell which queues they have.",
        )


def mtu_findings(link: Link, frame_bytes: int) -> Iterator[Finding]:
    """Whether a packet of the MTU's size fits one frame, and what it means if not."""
    largest, name = largest_mtu(frame_bytes), link.name
    if link.mtu <= largest:
        yield ok("MTU", f"{link.mtu}; frames of {frame_bytes} bytes take up to {largest}")
        return
    larger = f" frame_bytes=4096 takes up to {largest_mtu(4096)}." if frame_bytes < 4096 else ""
    if kernel_version() < SG_KERNEL:
        yield error(
            "MTU",
            f"{link.mtu} is too large: frames of {frame_bytes} bytes take up to {largest}",
            "A packet over several frames needs Linux 6.6.",
            f"Make it smaller.{larger}",
            f"ip link set {name} mtu {largest}",
        )
        return
    yield note("MTU", f"{link.mtu}: packets come over several frames of {frame_bytes} bytes", larger.strip())
    features = netdev.features(link.index)
    if features is not None and XdpFeature.RX_SG not in features.xdp and XdpFeature.BASIC in features.xdp:
        yield warning(
            "MTU",
            f"the driver of {name} may refuse an XDP program at MTU {link.mtu}",
            "It does not declare frames of several buffers (NETDEV_XDP_ACT_RX_SG) in native mode.",
            "Make the MTU smaller, or use mode='generic'.",
            f"ip link set {name} mtu 1500",
        )
    elif features is not None and XdpFeature.XSK_ZEROCOPY in features.xdp and features.zc_max_segs <= 1:
        yield warning(
            "MTU",
            "no zero-copy at this MTU",
            f"The driver of {name} takes zero-copy packets in one frame only.",
            f"Make the MTU {largest} or smaller.{larger}",
            f"ip link set {name} mtu {largest}",
        )


def offload_findings(link: Link, mode: str) -> Iterator[Finding]:
    """Offloads that change what a program or a stack sees."""
    name = link.name
    offloads = ethtool.offloads(name) or {}
    driver = ethtool.driver(name)
    kind = driver.name if driver else link.kind

    def is_on(*features: str) -> list[str]:
        return [each for each in features if each in offloads and offloads[each].on]

    clean = True
    if mode == "generic" and (merging := is_on("rx-gro", "rx-lro", "rx-gro-hw")):
        clean = False
        yield warning(
            "offloads",
            f"{', '.join(merging)} on, and generic mode",
            "Generic XDP runs after them: it sees merged packets, larger than the MTU, which fit no frame and are dropped.",
            "Switch them off, or use native mode.",
            f"ethtool -K {name} " + " ".join(f"{each} off" for each in merging),
        )
    if mode == "generic" and kind == "veth":
        clean = False
        yield warning(
            "offloads",
            "what a kernel sender behind veth has not cut yet comes as it is",
            "Generic XDP sees many datagrams of UDP_SEGMENT as one, and nothing in the frame tells.",
            "Switch segmentation off at the other end, or use native mode, for which veth has them cut.",
            "ethtool -K PEER tso off gso off tx-udp-segmentation off",
        )
    if mode != "generic" and (merging := is_on("rx-lro", "rx-gro-hw")):
        clean = False
        yield note(
            "offloads",
            f"{', '.join(merging)} on",
            "Most drivers switch it off, or refuse the XDP program, when one is attached in native mode.",
            "Switch it off before.",
            f"ethtool -K {name} " + " ".join(f"{each} off" for each in merging),
        )
    features = netdev.features(link.index)
    gives = features.rx_metadata if features is not None and mode != "generic" else None
    if gives:
        yield note(
            "metadata",
            f"the device gives {', '.join(str(each.name).lower() for each in gives)}",
            'open(..., metadata=("hash", ...)) asks for it.',
        )
    if kind == "veth" or (stripping := is_on(*STRIPPING)):
        clean = False
        yield warning(
            "offloads",
            "VLAN tags are stripped on receive",
            "A tagged frame then looks like an untagged one to XDP, and is lifted by claims on untagged frames.",
            ("Ask for it: metadata=('vlan',). Or: " if gives and RxMetadata.VLAN_TAG in gives else "")
            + "If there are tagged frames: switch it off. On veth the peer has to send the tag in the frame.",
            "ethtool -K PEER tx-vlan-hw-insert off"
            if kind == "veth"
            else f"ethtool -K {name} " + " ".join(f"{each} off" for each in stripping),
        )
    if kind in PARAVIRTUAL:
        clean = False
        yield note(
            "offloads",
            "checksums may come partial",
            f"Senders behind {kind} leave them to hardware that there is not. They are recognised and taken as correct.",
        )
    if clean:
        yield ok("offloads", "none that change what is seen")


def program_findings(name: str) -> Iterator[Finding]:
    """Other XDP programs on the interface."""
    others = attached_programs(name)
    if not others:
        yield ok("XDP program", "none attached")
    for other in others:
        if other.name == DISPATCHER:
            yield warning(
                "XDP program",
                f"others are attached, by libxdp: {other}",
                "Its dispatcher calls several programs one after the other.",
                "open(..., coexist=True) joins them; else the interface is refused. `xdp-loader status` lists them.",
            )
            continue
        words, command = other.cure()
        yield error(
            "XDP program",
            f"another one is attached: {other}",
            "An interface runs one XDP program; it is never replaced without your word.",
            f"{words}, or detach the link." if words else "Detach it.",
            command,
        )


def session_findings(link: Link, snapshot: Snapshot) -> Iterator[Finding]:
    """Whether SSH comes in on this interface, and what attaching does to it."""
    sessions = sessions_through(link, snapshot)
    if not sessions:
        yield ok("SSH", "no session comes in on this interface")
        return
    driver = ethtool.driver(link.name)
    resets = RESETS.get(driver.name if driver else "")
    what = f"{', '.join(sorted(sessions))} comes in on {link.name}"
    stays = "SSH, ARP and ND stay with the kernel unless a claim names them."
    if resets:
        yield warning(
            "SSH",
            what,
            f"{stays} But {driver.name if driver else ''} takes the link down for {resets} when a program is attached.",
            "Expect a pause; or run it from a console, in tmux or screen.",
        )
    else:
        yield note("SSH", what, f"{stays} The kernel has all traffic back when the process ends, however it ends.")


def firewall_findings(name: str, port: int | None) -> Iterator[Finding]:
    """Rules that lifted packets pass by, and that would have dropped them."""
    objects = firewall.ruleset()
    if tables := firewall.legacy_tables():
        yield note(
            "firewall",
            f"iptables-legacy has tables ({', '.join(tables)})",
            "Lifted packets pass them by; their rules are not looked at here.",
            "Look yourself.",
            "iptables-legacy-save; ip6tables-legacy-save",
        )
    if objects is None:
        yield note("firewall", "nftables' rules could not be listed", "nft is not there, or this is not root.")
        return
    rules = firewall.dropping(objects, name, port)
    to = f"UDP to port {port}" if port else "UDP"
    if not rules:
        yield ok("firewall", f"no nftables rule would drop {to} on {name}")
        return
    shown = "; ".join(map(str, rules[:5])) + (f"; and {len(rules) - 5} more" if len(rules) > 5 else "")
    yield warning(
        "firewall",
        f"{len(rules)} nftables rule(s) may drop {to} on {name}, and lifted packets pass them by",
        f"{shown}.",
        "Claim only what may come in, or put the rule into the stack's own netfilter.",
        "nft -a list ruleset",
    )
