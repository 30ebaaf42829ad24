"""The interface of a name, if it can be opened."""

from __future__ import annotations

from xdpstack.errors import InterfaceDown, NoSuchInterface
from xdpstack.netlink import Link, Snapshot


def find_link(snapshot: Snapshot, name: str) -> Link:
    """The interface, if it can be opened. Raises NoSuchInterface, InterfaceDown."""
    link = snapshot.link(name)
    if link is None:
        names = ", ".join(sorted(each.name for each in snapshot.links.values()))
        raise NoSuchInterface(
            f"no interface {name!r} in this network namespace",
            f"It has: {names}.",
            "Check the name (ip link), and the namespace (netns=...).",
        )
    if not link.is_up:
        raise InterfaceDown(f"{name} is down", "It was never set up, or was set down.", f"ip link set {name} up")
    return link
