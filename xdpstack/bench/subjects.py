"""Who is measured: each subject by its name, with what it needs and the command that runs it in each case."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

from xdpstack.bench import testpmd
from xdpstack.bench.peers import SCAPY, TESTPMD, Need
from xdpstack.bench.wire import JUMBO_BYTES, USUAL_BYTES

CASES = ("rx", "rx-one-core", "tx", "forward", "echo", "latency", "rfc2544")
#: Cases that are another, with what feeds the subject on the subject's core.
ONE_CORE = {"rx-one-core": "rx"}
#: Those that differ for a subject.
DISTINCT = tuple(case for case in CASES if case not in ONE_CORE)
#: Those that one does not have to ask for.
USUAL = CASES[:-1]
#: What C programs call the cases.
MODES = {"latency": "echo", "rfc2544": "echo"}


@dataclass(frozen=True, slots=True)
class Spot:
    """What a subject is told. Paths are absolute; `other` is the interface to forward to, `peer` the far end's address."""

    interface: str
    address: str
    peer: str
    port: int
    queues: int
    ring: int
    frame_bytes: int
    payload_bytes: int
    cpu: int
    count: str
    frame: str
    build: str
    other: str = ""


Words = Callable[[Spot], list[str]]


@dataclass(frozen=True, slots=True)
class Subject:
    """One way to do it, in the cases that `commands` has.

    `raw`: it takes whole frames, of any address. `kernel`: it hears of them through the kernel; then an XDP program that
    passes everything has to be on the receiving veth, for the generator. `routed`: the kernel does it, and no process: its
    costs are in nobody's figure. `telemetry`: counts through testpmd's socket. `slow`: too slow to be counted by callgrind.
    `alike`: runs only when it is asked for; another subject says most of it. `largest`: the largest frame that it takes.
    """

    name: str
    commands: dict[str, Words]
    needs: tuple[Need, ...] = ()
    raw: bool = False
    kernel: bool = False
    routed: bool = False
    telemetry: bool = False
    alike: bool = False
    slow: bool = False
    largest: int = JUMBO_BYTES

    def can(self, case: str) -> bool:
        """Whether it runs in a case."""
        return ONE_CORE.get(case, case) in self.commands

    @property
    def missing(self) -> str:
        """The command that installs what it needs and is not there; empty if all is."""
        return " && ".join(need.install for need in self.needs if not need.met)


def _python(name: str, *cases: str) -> dict[str, Words]:
    def command(case: str) -> Words:
        return lambda spot: [sys.executable, "-m", "xdpstack.bench.programs", name, case, json.dumps(asdict(spot))]

    return {case: command(case) for case in cases}


def _rings() -> dict[str, Words]:
    def command(case: str) -> Words:
        mode = MODES.get(case, case)
        return lambda spot: [
            f"{spot.build}/rings",
            mode,
            spot.interface,
            str(spot.queues),
            str(spot.ring),
            spot.count,
            *([spot.frame] if case == "tx" else [spot.other] if case == "forward" else []),
        ]

    return {case: command(case) for case in DISTINCT}


def _kernel(how: str, *cases: str) -> dict[str, Words]:
    def command(case: str) -> Words:
        mode = MODES.get(case, case)
        return lambda spot: [
            f"{spot.build}/kernel_udp",
            mode,
            str(spot.port),
            spot.count,
            how,
            *([spot.peer, str(spot.payload_bytes)] if case == "tx" else []),
        ]

    return {case: command(case) for case in cases}


def _nobody(_: Spot) -> list[str]:
    """Nothing has to run."""
    return ["sh", "-c", "echo ready; exec sleep infinity"]


def _testpmd(driver: str) -> dict[str, Words]:
    def command(case: str) -> Words:
        return lambda spot: testpmd.words(
            driver,
            case,
            [name for name in (spot.interface, spot.other) if name],
            spot.queues,
            spot.ring,
            spot.frame_bytes,
            spot.cpu,
        )

    return {case: command(case) for case in DISTINCT}


SUBJECTS = (
    Subject("xdpstack", _python("xdpstack", *DISTINCT)),
    Subject("xdpstack-udp", _python("xdpstack-udp", "rx")),
    Subject("xdpstack-spin", _python("xdpstack-spin", "rx", "echo", "latency"), alike=True),
    Subject("xdpstack-recvfrom", _python("xdpstack-recvfrom", "rx", "echo"), alike=True),
    Subject("rings", _rings(), raw=True),
    Subject("testpmd-af_xdp", _testpmd("af_xdp"), (TESTPMD,), raw=True, telemetry=True, largest=USUAL_BYTES),
    Subject(
        "testpmd-af_packet",
        _testpmd("af_packet"),
        (TESTPMD,),
        raw=True,
        kernel=True,
        telemetry=True,
        largest=USUAL_BYTES,
    ),
    Subject("kernel-udp-c", _kernel("plain", "rx", "echo", "latency", "tx", "rfc2544"), kernel=True),
    Subject("kernel-udp-gso-gro", _kernel("offload", "rx", "echo", "tx", "rfc2544"), kernel=True),
    Subject("python-socket", _python("python-socket", "rx", "echo", "latency", "tx", "rfc2544"), kernel=True),
    Subject("kernel-routing", {"forward": _nobody}, kernel=True, routed=True),
    Subject("scapy", _python("scapy", *DISTINCT), (SCAPY,), raw=True, kernel=True, slow=True),
)
BY_NAME = {subject.name: subject for subject in SUBJECTS}
