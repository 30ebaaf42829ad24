"""Our program beside those of others: one of several that libxdp's dispatcher calls, open("eth1", coexist=True).

    frame -> xdp_dispatcher: program 0 (priority 10) --XDP_PASS--> ours (50) --XDP_PASS--> program 2 (60) ... -> kernel
                                  | any other verdict                | XDP_REDIRECT: lifted

The dispatcher is attached by netlink, and what it calls is pinned in a BPF file system (/sys/fs/bpf, or LIBXDP_BPFFS), so
that all who use libxdp find it. Closing takes out ours alone, and with the last program goes the dispatcher. A process that
is killed leaves its program there, which passes everything: its sockets are gone, its deadline over. It is taken out by who
joins next.
"""

from __future__ import annotations

import errno
import importlib.resources
import itertools
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from xdpstack.device import libxdp
from xdpstack.device.attached import DISPATCHER, already_attached, attached_programs, interface_index
from xdpstack.device.claim_set import Claims
from xdpstack.device.deadman import Deadman
from xdpstack.device.libbpf import BpfMap, BpfObject
from xdpstack.device.libxdp import MODES, Dispatcher, dispatcher
from xdpstack.device.pins import is_bpf
from xdpstack.device.ssh import ssh_endpoints
from xdpstack.device.xdp import (
    Granted,
    Hint,
    MapWriter,
    Mode,
    XdpCounters,
    hardware_address,
    read_counters,
    unloaded,
)
from xdpstack.errors import ClosedError, ForkedError, ModeRefused, VerifierError, XdpstackError
from xdpstack.native import check, ffi, lib

#: Sections of the object with the program for frames of several buffers, and with the one for single ones.
TWINS = {"xdp.frags": "xs_xdp_frags", "xdp": "xs_xdp_plain"}
#: The object that says of each frame by which claim it was lifted, and the one that does not (bpf/xdpstack_joined.bpf.c).
PLAIN, UNTOLD = "xdpstack", "xdpstack_joined"
#: What the verifier says where the second is needed.
CHANGES = "changes packet data"
#: How long another stack may take to join the same interface, in seconds.
JOINING_SECONDS = 30.0
#: Words of what libxdp and libbpf say when something fails.
FAILURES = ("ail", "rror", "can't", "not permitted", "Falling back")


class JoinedProgram:
    """A program that the dispatcher calls: what an Interface asks of its XdpProgram.

    Made and closed in the interface's namespace. Raises ModeRefused (no libxdp, no dispatcher on this kernel, no BPF file
    system), ProgramAttached (what is attached is no dispatcher), PrivilegeError, OutOfMemory, NoSuchInterface.
    """

    def __init__(self, interface: str, queues: int, mode: Mode) -> None:
        self.interface = interface
        self.hints: tuple[Hint, ...] = ()
        self._ifindex = interface_index(interface)
        self._pid = os.getpid()
        self._closed = False
        check_there(interface)
        with _alone(interface):
            _take_out_the_dead(interface)
            self._join(mode, queues)

    def _join(self, mode: Mode, queues: int) -> None:
        interface, there = self.interface, dispatcher(self.interface)
        self._refused: list[str] = []
        objects = [PLAIN, UNTOLD]
        for self._mode in _modes(mode, there):
            for name, (section, twin) in itertools.product(list(objects), TWINS.items()):
                if name in objects and (made := self._attached(name, section, twin, queues)) is not None:
                    self._keep(made, twin, mode)
                    self.tells_claims = name == PLAIN
                    return
                if CHANGES in self._refused[-1] and name in objects:
                    objects.remove(name)
        raise ModeRefused(
            f"{interface} takes no dispatcher of libxdp in {mode} mode",
            f"Tried: {'; '.join(self._refused)}."
            if self._refused
            else "The one that is there is in another mode, which is that of all its programs.",
            "mode='auto' takes that of a dispatcher that is there."
            if not self._refused
            else "Leave coexist out: alone the program needs none.",
        )

    def _attached(self, name: str, section: str, twin: str, queues: int) -> BpfObject | None:
        """The object, loaded and called by the dispatcher; None if it is refused, and then `_refused` says why."""
        made = unloaded(name, queues, lib.XS_XDP_OPTION_METADATA)
        with ExitStack() as undo:
            undo.callback(made.close)
            try:
                libxdp.attach(made, twin, section, self.interface, self._mode)
            except XdpstackError as refused:
                if not isinstance(refused, VerifierError):
                    raise
                self._refused.append(f"{self._mode} mode, {twin}: {refused.cause}")
                return None
            except OSError as refused:
                said = [line for line in str(refused).splitlines()[1:] if any(word in line for word in FAILURES)]
                self._refused.append(
                    f"{self._mode} mode, {twin}: {', '.join(said[:4]) or os.strerror(refused.errno or 0)}"
                )
                return None
            undo.pop_all()
        return made

    def _keep(self, made: BpfObject, twin: str, asked: Mode) -> None:
        self._object = made
        info = ffi.new("struct xs_bpf_program_info *")
        with ExitStack() as undo:
            undo.callback(made.close)
            check(lib.xs_bpf_program_info(made.program_fd(twin), info), twin)
            self._program_id = int(info.id)
            undo.callback(self._take_out)
            self._alive = _named(f"joined-{self._program_id}")
            there = dispatcher(self.interface)
            frags = bool(there is not None and there.frags) and twin == TWINS["xdp.frags"]
            self.granted = Granted(self.interface, asked, self._mode, frags, self._program_id, 0, tuple(self._refused))
            self.deadman = Deadman(made.maps["xs_deadman"].fd)
            undo.callback(self.deadman.close)
            self.claims = Claims(MapWriter(made.maps), hardware_address(self.interface), ssh_endpoints())
            undo.pop_all()

    @property
    def attached(self) -> bool:
        """Whether the dispatcher calls it now."""
        there = dispatcher(self.interface)
        return there is not None and self._program_id in (each.id for each in there.programs)

    @property
    def maps(self) -> Mapping[str, BpfMap]:
        """As XdpProgram.maps."""
        self._check()
        return self._object.maps

    def set_socket(self, queue: int, socket_fd: int) -> None:
        """As XdpProgram.set_socket."""
        self._check()
        self._object.maps["xs_xsks"].update({struct.pack("=I", queue): struct.pack("=i", socket_fd)})

    def counters(self) -> XdpCounters:
        """As XdpProgram.counters: of frames that the programs before it have passed."""
        self._check()
        return read_counters(self._object.maps["xs_counters"])

    def close(self) -> None:
        """Claims out, out of the dispatcher, freed; idempotent. In a forked child descriptors are closed, no more."""
        if self._closed:
            return
        self._closed = True
        with ExitStack() as last_first:
            last_first.callback(self._object.close)
            last_first.callback(self.deadman.close)
            if self._alive is not None:
                last_first.callback(self._alive.close)
            if self._pid == os.getpid():
                last_first.callback(self._take_out)
                last_first.callback(self.claims.clear)

    def _take_out(self) -> None:
        try:
            libxdp.remove(self.interface, self._program_id, self._mode)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):  # another has taken it out, or the interface is gone
                raise
            lib.xs_libxdp_forget(self._ifindex)

    def _check(self) -> None:
        if self._closed:
            raise ClosedError(f"the XDP program of {self.interface} is closed")
        if self._pid != os.getpid():
            raise ForkedError(f"the XDP program of {self.interface} belongs to the parent process")


def check_there(interface: str) -> None:
    """Refuse what can be known beforehand; nothing is changed. Raises ModeRefused, ProgramAttached, NoSuchInterface."""
    if others := [each for each in attached_programs(interface) if each.name != DISPATCHER]:
        raise already_attached(interface, others)
    result = lib.xs_libxdp_load()
    if result:
        why = {
            -errno.ENOENT: "libxdp.so.1 is not installed",
            -errno.ENOSYS: "libxdp.so.1 is older than 1.2",
            -errno.EXDEV: "libxdp.so.1 has another libbpf than this package, and cannot take its programs",
        }
        raise ModeRefused(
            f"{interface} cannot be shared with other XDP programs",
            f"That is libxdp's business, and {why.get(result, os.strerror(-result))}.",
            "apt-get install libxdp1; or leave coexist out.",
        )
    place = Path(os.environ.get("LIBXDP_BPFFS", "/sys/fs/bpf"))
    if not is_bpf(place):
        raise ModeRefused(
            f"{interface} cannot be shared with other XDP programs",
            f"libxdp pins what it attaches, and at {place} there is no BPF file system.",
            f"mount -t bpf bpf {place}; or name another place in LIBXDP_BPFFS, the same for all who are to share.",
        )
    _check_kernel(interface)


def _check_kernel(interface: str) -> None:
    """Raises ModeRefused unless it loads what a dispatcher calls. libxdp would attach the program alone, and not say so."""
    elf = importlib.resources.files("xdpstack.device").joinpath("bpf/xdpstack_replaces.bpf.o").read_bytes()
    with BpfObject("calls", elf) as calls, BpfObject("replaces", elf) as replaces:
        calls.load("xs_calls")
        try:
            replaces.set_target("xs_replaces", calls.program_fd("xs_calls"), "xs_replaced")
            replaces.load("xs_replaces")
        except (OSError, VerifierError) as refused:
            said = refused.strerror if isinstance(refused, OSError) else refused.cause
            raise ModeRefused(
                f"{interface} cannot be shared with other XDP programs on this kernel",
                f"It refuses programs that replace functions of others (BPF_PROG_TYPE_EXT), of which libxdp's dispatcher is "
                f"made: {said}. They need Linux 5.10, and no security module or lockdown against them.",
                "Leave coexist out: alone the program needs no dispatcher.",
            ) from refused


def _modes(asked: Mode, there: Dispatcher | None) -> Iterator[str]:
    """Which to try: that of the dispatcher if there is one, as all its programs have one mode."""
    for name in MODES:
        if asked in ("auto", name) and (there is None or there.mode == name):
            yield name


def _take_out_the_dead(interface: str) -> None:
    """Programs of ours whose process is gone: its socket's name can be had."""
    there = dispatcher(interface)
    if there is None:
        return
    for each in there.programs:
        if each.name in TWINS.values() and (name := _named(f"joined-{each.id}")) is not None:
            with name:
                libxdp.remove(interface, each.id, there.mode)


def _named(what: str) -> socket.socket | None:
    """A socket with an abstract name, which are the namespace's; None if somebody has it. It goes with its process."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        made.bind(f"\0xdpstack-{what}")
    except OSError as error:
        made.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return made


def _alone(interface: str) -> socket.socket:
    """Held while a program joins: until it is known for a living one. Raises ProgramAttached after JOINING_SECONDS."""
    deadline = time.monotonic() + JOINING_SECONDS
    while (held := _named(f"joining-{interface_index(interface)}")) is None:
        if time.monotonic() >= deadline:
            raise already_attached(interface, attached_programs(interface))
        time.sleep(0.01)
    return held
