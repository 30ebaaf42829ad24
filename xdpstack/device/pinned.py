"""Using a program that is pinned, without the privilege to attach one: open("eth1", pinned=DIRECTORY).

    take the lock -> the maps, by their pins -> deadline over, what was claimed before out -> claims as ever

The program outlives the process. If that is killed, its sockets are gone from the program's map at once, the deadline is
over soon, and its claims are taken out by who comes next.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Mapping
from pathlib import Path

from xdpstack.device.attached import interface_index, program_ids
from xdpstack.device.claim_set import Claims
from xdpstack.device.deadman import Deadman
from xdpstack.device.libbpf import BpfMap, PinnedMap
from xdpstack.device.pins import ABOUT, KEY, LOCK, About, read_about, take
from xdpstack.device.ssh import ssh_endpoints
from xdpstack.device.table_diff import ARRAYS, TABLES
from xdpstack.device.tuning.journal import namespace
from xdpstack.device.xdp import Granted, Hint, MapWriter, Mode, XdpCounters, hardware_address, read_counters
from xdpstack.errors import ClosedError, ConfigurationError, ForkedError, ModeRefused, PinError, PrivilegeError
from xdpstack.native import lib

#: Those that claims are written to, and those that they are not.
MAPS = (*TABLES, "xs_xsks", "xs_deadman", "xs_counters")
NO_DEVICE = bytes(16)


class PinnedProgram:
    """A pinned program while this process uses it: what an Interface asks of its XdpProgram.

    Raises PinError (there is none, another process uses it, another release pinned it, it is not attached any more),
    PrivilegeError (its maps are not for this user), ModeRefused, ConfigurationError (it is another interface's).
    """

    def __init__(self, directory: Path, interface: str, mode: Mode) -> None:
        self.hints: tuple[Hint, ...] = ()
        self._interface = interface
        self._pid = os.getpid()
        with contextlib.ExitStack() as undo:
            _lock(directory, undo)  # first: what is looked at then stays
            about = PinnedMap(ABOUT, _get(directory, ABOUT, undo))
            self.about = _checked(about, directory, interface)
            if mode not in ("auto", self.about.mode):
                raise ModeRefused(
                    f"{interface} is not taken in {mode} mode",
                    f"The program pinned at {directory} is attached in {self.about.mode} mode.",
                    "mode='auto' takes what there is.",
                )
            self._maps = {name: PinnedMap(name, _get(directory, name, undo)) for name in MAPS}
            self.deadman = Deadman(self._maps["xs_deadman"].fd)
            undo.callback(self.deadman.close)
            self._forget_claims()
            self.claims = Claims(MapWriter(self._maps), hardware_address(interface), ssh_endpoints())
            self._undo = undo.pop_all()

    @property
    def granted(self) -> Granted:
        """What whoever pinned it was granted."""
        said = self.about
        return Granted(said.interface, "auto", said.mode, said.frags, said.program_id, said.link_id)

    def _forget_claims(self) -> None:
        """Those of a process that was killed. First that nothing is looked for any more, then what it was."""
        self.deadman.deadline_ns = 0
        self._maps["xs_device"].update({KEY: NO_DEVICE})
        for name in TABLES:
            table = self._maps[name]
            if name not in ARRAYS:
                table.delete(list(table.keys()))
            elif name != "xs_device":
                nothing = bytes(table.value_bytes)
                table.update({struct.pack("=I", index): nothing for index in range(table.max_entries)})

    @property
    def maps(self) -> Mapping[str, BpfMap]:
        """As XdpProgram.maps."""
        self._check()
        return self._maps

    def set_socket(self, queue: int, socket_fd: int) -> None:
        """As XdpProgram.set_socket."""
        self._check()
        self._maps["xs_xsks"].update({struct.pack("=I", queue): struct.pack("=i", socket_fd)})

    def counters(self) -> XdpCounters:
        """As XdpProgram.counters; since the program was pinned, whoever used it."""
        self._check()
        return read_counters(self._maps["xs_counters"])

    def close(self) -> None:
        """Claims out, deadline over, the lock let go of; the program stays. Idempotent. A forked child lets go alone."""
        undo, self._undo = self._undo, contextlib.ExitStack()
        with undo:
            if self._pid == os.getpid() and self._maps:
                undo.callback(self._end)

    def _end(self) -> None:
        maps, self._maps = self._maps, {}
        if maps:
            self.deadman.deadline_ns = 0
            self.claims.clear()

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise ForkedError(f"the use of the program pinned for {self._interface} belongs to the parent process")
        if not self._maps:
            raise ClosedError(f"the program pinned for {self._interface} is used no longer")


def _checked(about: PinnedMap, directory: Path, interface: str) -> About:
    said = read_about(about)
    if said.get("layout") != lib.XS_XDP_LAYOUT:
        raise PinError(
            f"the program pinned at {directory} is of another release of xdpstack",
            f"The layout of its maps is number {said.get('layout')}; this release has number {lib.XS_XDP_LAYOUT}.",
            f"xdpstack unpin {directory}, and pin it with this release.",
            errno.EPROTO,
        )
    try:
        found = About(**{**said, "netns": tuple(said["netns"])})
    except (TypeError, KeyError):
        raise PinError(
            f"what is pinned at {directory} is not said as this release says it",
            "Somebody has written into its map `about`.",
            f"xdpstack unpin {directory}, and pin it again.",
        ) from None
    if (found.netns, found.ifindex) != (namespace(), interface_index(interface)):
        raise ConfigurationError(
            f"the program pinned at {directory} is not {interface}'s",
            f"It was attached to {found.interface}, number {found.ifindex} in the network namespace {found.netns[0]}.",
            "Name that interface, and be in that namespace; if it is gone, unpin.",
        )
    if found.program_id not in program_ids(interface).values():
        raise PinError(
            f"the program pinned at {directory} is not attached any more",
            "Somebody has detached its link.",
            f"xdpstack unpin {directory}, and pin it again.",
            errno.ENOLINK,
        )
    return found


def _lock(directory: Path, undo: contextlib.ExitStack) -> None:
    """Use it until `undo`."""
    try:
        undo.callback(os.close, take(directory))
    except PinError:
        raise
    except PermissionError as error:
        raise _not_allowed(directory, error.errno or errno.EACCES) from None
    except OSError as error:
        raise _not_there(directory, LOCK, error.errno or errno.ENOENT) from None


def _get(directory: Path, name: str, undo: contextlib.ExitStack) -> int:
    """A descriptor of what is pinned, closed with `undo`."""
    descriptor = lib.bpf_obj_get(bytes(directory / name))
    if descriptor in (-errno.ENOENT, -errno.ENOTDIR, -errno.EINVAL):
        raise _not_there(directory, name, -descriptor)
    if descriptor in (-errno.EACCES, -errno.EPERM):
        raise _not_allowed(directory, -descriptor)
    if descriptor < 0:
        raise OSError(-descriptor, f"{directory / name}: {os.strerror(-descriptor)}")
    undo.callback(os.close, descriptor)
    return int(descriptor)


def _not_there(directory: Path, name: str, number: int) -> PinError:
    return PinError(
        f"no program is pinned at {directory}",
        f"{directory / name}: {os.strerror(number)}.",
        "xdpstack pin INTERFACE DIRECTORY, as root.",
    )


def _not_allowed(directory: Path, number: int) -> PrivilegeError:
    why = "Its pins are another user's, or a directory on the way to them is closed"
    if number == errno.EPERM:
        why = "Before Linux 5.19 the kernel wants CAP_BPF, unless kernel.unprivileged_bpf_disabled is 0"
    return PrivilegeError(
        f"not permitted to use the program pinned at {directory}",
        f"{why}.",
        "xdpstack pin --user or --group says who may; `chmod 0711 /sys/fs/bpf` lets users into the BPF file system.",
        number,
    )
