"""The doctor: will a stack run on this interface, and what will surprise its user? Looks at everything, changes nothing.

Each finding has a cause and, where there is one, the command that mends it. `Report.runs` is whether there is no error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from xdpstack.device import doctor_host, doctor_interface, doctor_tuning
from xdpstack.device.finding import Finding, Level, error, warning
from xdpstack.errors import XdpstackError
from xdpstack.netlink import Mirror, Snapshot, run_in

#: What a stack takes by default.
FRAMES, FRAME_BYTES = 16384, 2048


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, in the order in which they were looked for."""

    interface: str
    findings: tuple[Finding, ...]

    @property
    def runs(self) -> bool:
        """Whether a stack can be opened."""
        return all(finding.level is not Level.ERROR for finding in self.findings)


def examine(
    name: str,
    *,
    netns: str | None = None,
    mode: str = "auto",
    port: int | None = None,
    frames: int = FRAMES,
    frame_bytes: int = FRAME_BYTES,
) -> Report:
    """Look at the interface as `open(name, netns=, mode=, frames=, frame_bytes=)` would take it.

    `port`: a UDP port that is to be claimed; None: any. Raises NamespaceError if there is no such namespace.
    """
    with Mirror(netns) as mirror:
        snapshot = mirror.snapshot
        findings = run_in(netns, lambda: list(_look(name, snapshot, mode, port, frames * frame_bytes, frame_bytes)))
    return Report(name, tuple(findings))


def _look(
    name: str, snapshot: Snapshot, mode: str, port: int | None, memory_bytes: int, frame_bytes: int
) -> Iterator[Finding]:
    yield from doctor_host.kernel_findings()
    yield from doctor_host.privilege_findings()
    yield from doctor_host.memory_findings(memory_bytes)
    link = snapshot.link(name)
    if link is None:
        names = ", ".join(sorted(each.name for each in snapshot.links.values()))
        yield error(
            "interface",
            f"there is no {name} here",
            f"This network namespace has: {names}.",
            "Check the name.",
            "ip link",
        )
        return
    looks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("interface", lambda: doctor_interface.link_findings(link)),
        ("driver", lambda: doctor_interface.driver_findings(link, mode, frame_bytes)),
        ("XDP program", lambda: doctor_interface.program_findings(name)),
        ("program", lambda: doctor_host.load_findings(name)),
        ("redirects", doctor_host.redirect_findings),
        ("queues", lambda: doctor_interface.queue_findings(link, mode)),
        ("MTU", lambda: doctor_interface.mtu_findings(link, frame_bytes)),
        ("offloads", lambda: doctor_interface.offload_findings(link, mode)),
        ("tuning", lambda: doctor_tuning.tuning_findings(link)),
        ("SSH", lambda: doctor_interface.session_findings(link, snapshot)),
        ("firewall", lambda: doctor_interface.firewall_findings(name, port)),
    )
    for subject, look in looks:
        try:
            yield from look()
        except (OSError, XdpstackError) as failure:  # what cannot be looked at is no reason not to look at the rest
            yield warning(subject, "could not be looked at", str(failure))
