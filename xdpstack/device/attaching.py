"""Which program an interface of a stack gets: its own, alone or beside others; a broker's; one that is pinned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from xdpstack.device import netdev
from xdpstack.device.attached import refuse_others
from xdpstack.device.broker.client import BrokerClient, BrokeredProgram
from xdpstack.device.hints import open_attached
from xdpstack.device.joined import JoinedProgram, check_there
from xdpstack.device.options import Options
from xdpstack.device.pinned import PinnedProgram
from xdpstack.device.redirect_err import CountsRedirects, RedirectErrors
from xdpstack.device.tuning.asked import Tuning
from xdpstack.device.tuning.facts import read_facts
from xdpstack.device.tuning.plan import plan_after
from xdpstack.device.xdp import Granted, Mode, XdpProgram
from xdpstack.netlink import Link

UNTOLD = (
    "Since Linux 6.13 no program that a dispatcher of libxdp from before May 2025 calls may put metadata before a frame: "
    "the claim that lifted it is not known."
)
#: What an interface has: these do the same.
Program = XdpProgram | BrokeredProgram | PinnedProgram | JoinedProgram


@dataclass(frozen=True, slots=True)
class Attachment:
    """A program that is attached. `why` says of metadata why it was not granted, `tuning` the same of what others tune.

    `untold`: why it does not say by which claim it has lifted a frame; empty: it does. `redirects`: its frames that did not
    get to a socket.
    """

    program: Program
    granted: Granted
    redirects: CountsRedirects
    why: str = ""
    tuning: Mapping[str, str] = field(default_factory=dict)
    untold: str = ""


def check_others(name: str, options: Options, broker: BrokerClient | None) -> None:
    """Refuse an interface with another program, as far as that is ours to say. Raises ProgramAttached, NoSuchInterface."""
    if options.coexist:
        check_there(name)
    elif not options.transmit_only and not options.pinned and broker is None:  # a broker says so when it attaches
        refuse_others(name, options.mode)


def attach(
    link: Link, mode: Mode, options: Options, redirects: RedirectErrors, broker: BrokerClient | None
) -> Attachment:
    """In the calling thread's namespace. Raises what XdpProgram, a broker and PinnedProgram raise."""
    if broker is not None:
        mine = broker.attach(link.name, mode, options.metadata)
        return Attachment(mine, mine.granted, mine.redirects, mine.why, mine.tuning)
    if options.pinned is not None:
        pinned = PinnedProgram(Path(options.pinned), link.name, options.mode)
        lost = redirects.watch(pinned.maps["xs_xsks"])
        return Attachment(pinned, pinned.granted, lost, tuning=_not_tuned(link, pinned.granted.mode))
    if options.coexist:
        joined = JoinedProgram(link.name, link.rx_queues, mode)
        lost = redirects.watch(joined.maps["xs_xsks"])
        why = "A program that a dispatcher calls cannot ask its device." if options.metadata else ""
        return Attachment(joined, joined.granted, lost, why, untold="" if joined.tells_claims else UNTOLD)
    attached = open_attached(link.name, link.rx_queues, mode, options.metadata, netdev.features(link.index))
    lost = redirects.watch(attached.program.maps["xs_xsks"])
    return Attachment(attached.program, attached.granted, lost, attached.why)


def _not_tuned(link: Link, mode: str) -> dict[str, str]:
    """What a program in `mode` wants of the device, and who uses a pinned one may not change."""
    wanted = plan_after(Tuning(), read_facts(link.name, link.index), mode, link.rx_queues)
    on = [name.removeprefix("feature ") for name, _ in wanted.steps if name.startswith("feature ")]
    if not on:
        return wanted.why
    because = f"On, and only root can switch them off: ethtool -K {link.name} {' '.join(f'{each} off' for each in on)}."
    return wanted.why | {"merging": because}
