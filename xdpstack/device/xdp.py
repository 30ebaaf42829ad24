"""The XDP program of a device: load, attach, claim, count, detach.

    with XdpProgram.open("eth1", queues=4) as program:
        program.set_socket(0, xsk.fileno())
        program.attach()
        program.deadman.deadline_ns = NEVER
        program.claims.add(SocketClaim("10.0.0.2", 7))

Nothing is lifted before a claim is in, a socket is in the queue's slot, and the dead-man deadline is in the future. It is
attached by a link that the kernel removes with the last file descriptor of it: when the process dies, however it dies, the
kernel has all traffic back at once.
"""

from __future__ import annotations

import errno
import fcntl
import importlib.resources
import os
import socket
import struct
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from types import TracebackType
from typing import Literal

from xdpstack.device import privileges
from xdpstack.device.attached import already_attached, attached_programs, interface_index, link_info, program_ids
from xdpstack.device.claim_set import Claims
from xdpstack.device.claims import Endpoint
from xdpstack.device.deadman import Deadman
from xdpstack.device.libbpf import BpfMap, BpfObject
from xdpstack.device.ssh import ssh_endpoints
from xdpstack.device.table_diff import ARRAYS
from xdpstack.device.verdict import Cause
from xdpstack.errors import (
    ClosedError,
    ConfigurationError,
    ForkedError,
    ModeRefused,
    MtuTooLarge,
    NoSuchInterface,
    XdpstackError,
)
from xdpstack.native import check, ffi, lib

Mode = Literal["auto", "native", "generic", "offloaded"]

#: What a device can be asked of each frame: its flow hash, when it came, the VLAN tag that it has taken off.
Hint = Literal["hash", "timestamp", "vlan"]
OPTIONS: Mapping[Hint, int] = {
    "hash": lib.XS_XDP_OPTION_HASH,
    "timestamp": lib.XS_XDP_OPTION_TIMESTAMP,
    "vlan": lib.XS_XDP_OPTION_VLAN,
}

_FLAGS = {"native": lib.XS_BPF_XDP_NATIVE, "generic": lib.XS_BPF_XDP_GENERIC, "offloaded": lib.XS_BPF_XDP_OFFLOADED}
_FRAGS, _PLAIN = "xs_xdp_frags", "xs_xdp_plain"
#: What an errno means that says nothing by itself: veth_xdp_set().
_MEANINGS = {
    errno.ENOSPC: " (a veth whose peer has more transmit queues than it has receive queues: ethtool -L PEER tx N)"
}
_SIOCGIFHWADDR = 0x8927
_ZERO = bytes(4)


@dataclass(frozen=True, slots=True)
class TableSizes:
    """How many entries the program's tables have room for. They take memory as they fill, but for the first: 16 B each."""

    sockets: int = 65536
    local: int = 4096
    prefixes: int = 4096
    selectors: int = 4096
    kept: int = 4096
    forward: int = 65536


@dataclass(frozen=True, slots=True)
class Granted:
    """What was attached. `mode` is read back from the kernel; `refused` says what was tried before it, and the reason."""

    interface: str
    asked: Mode
    mode: str
    frags: bool
    program_id: int
    link_id: int
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class XdpCounters:
    """Frames by cause, over all CPUs, and when (CLOCK_MONOTONIC, ns; 0: never) the last one went each way.

    Times are those of the tick before (xdpstack.device.deadman). `last_pass_ns` is of the last frame that was passed because
    the dead-man deadline was over.
    """

    frames: Mapping[Cause, int]
    last_redirect_ns: int
    last_pass_ns: int


@dataclass(frozen=True, slots=True)
class TestRun:
    """What the program did with a frame: `verdict` is XDP_PASS (2) or XDP_REDIRECT (4); `duration_ns` a mean."""

    __test__ = False  # not pytest's

    verdict: int
    claim_id: int | None
    frame: bytes
    duration_ns: int


@dataclass(eq=False, repr=False)
class XdpProgram:
    """An XDP program in the kernel, with its maps; made by `open`, ended by `close`. Not for a forked child."""

    interface: str
    asked: Mode
    metadata: bool
    claims: Claims
    deadman: Deadman
    hints: tuple[Hint, ...]
    _object: BpfObject
    _twins: tuple[str, ...]
    _refused: list[str] = field(default_factory=list)
    _link_fd: int = -1
    _granted: Granted | None = None
    _closed: bool = False
    _pid: int = field(default_factory=os.getpid)

    @classmethod
    def open(
        cls,
        interface: str,
        queues: int,
        *,
        mode: Mode = "auto",
        frags: bool | None = None,
        metadata: bool = False,
        hints: Collection[Hint] = (),
        sizes: TableSizes | None = None,
        ssh: Collection[Endpoint] | None = None,
    ) -> XdpProgram:
        """Load the program for an interface of the calling thread's network namespace; `attach` then attaches it.

        `queues`: how many receive queues it has. `mode`: "auto" takes native, and generic where native is refused.
        `frags`: whether frames of several buffers (jumbo) are seen; None: if kernel and driver can. `metadata`: put a
        struct xs_xdp_metadata before each lifted frame; `hints`: and, before that, a struct xs_xdp_hints with what the
        device says. A program that asks for hints is bound to its device, which it only goes with in native mode.
        `ssh`: ports that wide claims leave alone; None: `ssh_endpoints()`.

        Raises NoSuchInterface, PrivilegeError, VerifierError, ModeRefused ("offloaded": no NIC of the machine can),
        ConfigurationError.
        """
        if mode != "auto" and mode not in _FLAGS:
            raise ConfigurationError(f"mode is {mode!r}; it can be auto, {', '.join(_FLAGS)}")
        ifindex = interface_index(interface)
        offload = ifindex if mode == "offloaded" else 0
        options = sum(OPTIONS[hint] for hint in set(hints)) | (lib.XS_XDP_OPTION_METADATA if metadata or hints else 0)
        choices = [(_FRAGS,)] if frags else [(_PLAIN,)] if frags is False or offload else [(_FRAGS, _PLAIN), (_PLAIN,)]
        refused: list[str] = []
        for twins in choices:
            with ExitStack() as undo:
                program = undo.enter_context(
                    unloaded("xdpstack_bound" if hints else "xdpstack", queues, options, sizes)
                )
                try:
                    program.load(*twins, offload_ifindex=offload, bound_ifindex=ifindex if hints else 0)
                except OSError as error:
                    if offload:
                        raise _not_offloaded(interface, error) from None
                    if error.errno != errno.EINVAL or twins is choices[-1]:
                        raise
                    least = "none that is bound to a device before 6.14" if hints else "5.18"
                    refused.append(f"frames of several buffers: this kernel has no xdp.frags programs ({least})")
                    continue
                deadman = Deadman(program.maps["xs_deadman"].fd)
                undo.callback(deadman.close)
                kept = ssh_endpoints() if ssh is None else ssh
                claims = Claims(MapWriter(program.maps), hardware_address(interface), kept)
                undo.pop_all()
                return cls(interface, mode, metadata, claims, deadman, tuple(hints), program, twins, refused)
        raise AssertionError("the last choice returns or raises")

    def attach(self) -> Granted:
        """Attach; returns what was granted.

        Raises ProgramAttached naming the program that is there, ModeRefused, MtuTooLarge, PrivilegeError, NoSuchInterface.
        """
        self._check_open()
        if self._granted is not None:
            raise ConfigurationError(f"the program is attached to {self.interface} already")
        refused = list(self._refused)
        ifindex = interface_index(self.interface)
        result = 0
        for mode in ("native", "generic") if self.asked == "auto" else (self.asked,):
            for twin in self._twins:
                result = lib.xs_bpf_xdp_attach(self._object.program_fd(twin), ifindex, _FLAGS[mode])
                if result >= 0:
                    self._link_fd = result
                    self._granted = self._read_granted(twin == _FRAGS, tuple(refused))
                    return self._granted
                self._raise_if_final(result)
                frames = "frames of several buffers" if twin == _FRAGS else "single-buffer frames"
                cause = f"{errno.errorcode.get(-result, result)}, {os.strerror(-result)}{_MEANINGS.get(-result, '')}"
                refused.append(f"{mode} mode, {frames}: {cause}")
        raise self._refusal(result, refused)

    @property
    def granted(self) -> Granted | None:
        """What `attach` was granted; None before."""
        return self._granted

    @property
    def attached(self) -> bool:
        """Whether the program is attached now: an interface that went away, or the administrator, may have detached it."""
        return self._link_fd >= 0 and link_info(self._link_fd).ifindex != 0

    @property
    def link_fd(self) -> int:
        """The file descriptor of the link, -1 when there is none; it belongs to this object."""
        return self._link_fd

    @property
    def maps(self) -> Mapping[str, BpfMap]:
        """Its maps by name; they belong to this object."""
        self._check_open()
        return self._object.maps

    def leave_attached(self) -> None:
        """The link is pinned: `close` is not to detach it."""
        link_fd, self._link_fd = self._link_fd, -1
        os.close(link_fd)

    @property
    def deadman_fd(self) -> int:
        """The descriptor of the map with the deadline, for a process that is to put it off; it belongs to this object."""
        self._check_open()
        return self._object.maps["xs_deadman"].fd

    def set_socket(self, queue: int, socket_fd: int) -> None:
        """Frames of this receive queue that are lifted go to this AF_XDP socket."""
        self._check_open()
        self._object.maps["xs_xsks"].update({struct.pack("=I", queue): struct.pack("=i", socket_fd)})

    def clear_socket(self, queue: int) -> None:
        """Frames of this receive queue are the kernel's."""
        self._check_open()
        self._object.maps["xs_xsks"].delete([struct.pack("=I", queue)])

    def counters(self) -> XdpCounters:
        """Since the program was loaded."""
        self._check_open()
        return read_counters(self._object.maps["xs_counters"])

    def test_run(self, frame: bytes, *, queue: int = 0, repeat: int = 1) -> TestRun:
        """Run the program on a frame of at least 14 bytes. It is counted, and goes nowhere.

        A program bound to its device cannot be run so: OSError(EINVAL). It comes in on queue 0 of the namespace's
        loopback; with `queue`, on that one of the interface, which must be up and have the program attached in native
        mode.
        """
        self._check_open()
        out = ffi.new("char[]", len(frame) + ffi.sizeof("struct xs_xdp_metadata"))
        data = ffi.from_buffer(frame)
        run = ffi.new("struct xs_bpf_test_run *")
        run.frame, run.frame_bytes, run.out, run.out_bytes, run.repeat = data, len(frame), out, len(out), repeat
        if queue:
            run.ifindex, run.queue = interface_index(self.interface), queue
        check(lib.xs_bpf_test_run(self._object.program_fd(self._twins[0]), run), "BPF_PROG_TEST_RUN")
        claim_id = ffi.cast("struct xs_xdp_metadata *", out).claim_id if run.metadata_bytes else None
        after = bytes(ffi.buffer(out, run.out_bytes)[run.metadata_bytes :])
        return TestRun(run.verdict, claim_id, after, run.duration_ns)

    def close(self) -> None:
        """Claims out, program detached, everything freed; idempotent. The frames that are on their way are the sockets'."""
        if self._closed:
            return
        self._closed = True
        with ExitStack() as last_first:
            last_first.callback(self._object.close)
            last_first.callback(self.deadman.close)
            last_first.callback(self._detach)
            if self._pid == os.getpid():  # the maps are the parent's too
                last_first.callback(self.claims.clear)

    def __enter__(self) -> XdpProgram:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _detach(self) -> None:
        if self._link_fd >= 0:
            link_fd, self._link_fd = self._link_fd, -1
            if self._pid == os.getpid():
                lib.bpf_link_detach(link_fd)  # at once, even if a forked child has the descriptor too
            os.close(link_fd)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"the XDP program of {self.interface} is closed")
        if self._pid != os.getpid():
            raise ForkedError(f"the XDP program of {self.interface} belongs to the parent process")

    def _read_granted(self, frags: bool, refused: tuple[str, ...]) -> Granted:
        link = link_info(self._link_fd)
        mode = next(
            (mode for mode, program in program_ids(self.interface).items() if program == link.program_id), "none"
        )
        return Granted(self.interface, self.asked, mode, frags, link.program_id, link.id, refused)

    def _raise_if_final(self, result: int) -> None:
        """Raise for a refusal that no other mode would change."""
        if result == -errno.EPERM:
            raise privileges.missing("attach an XDP program", ("CAP_BPF", "CAP_NET_ADMIN"))
        if result == -errno.ENODEV:
            raise NoSuchInterface(f"interface {self.interface!r} went away")
        if result in (-errno.EBUSY, -errno.EEXIST) and (others := attached_programs(self.interface)):
            raise already_attached(self.interface, others)

    def _refusal(self, result: int, refused: list[str]) -> XdpstackError:
        tried = "Tried: " + "; ".join(refused) + "."
        if result == -errno.ERANGE and self.asked == "native":
            return MtuTooLarge(
                f"the MTU of {self.interface} is too large for native XDP without frames of several buffers",
                f"The driver keeps a frame in one page, with room for headers: often 3506 bytes at most. {tried}",
                f"ip link set dev {self.interface} mtu 3506, or allow frags, or mode='generic'.",
            )
        return ModeRefused(
            f"{self.interface} does not take an XDP program in {self.asked} mode",
            tried,
            "mode='auto' takes what there is." if self.asked != "auto" else "",
            number=-result,
        )


def unloaded(name: str, queues: int, options: int, sizes: TableSizes | None = None) -> BpfObject:
    """The object bpf/`name`.bpf.c with its tables sized; `options` are XS_XDP_OPTION_*. Raises OutOfMemory."""
    elf = importlib.resources.files("xdpstack.device").joinpath("bpf", f"{name}.bpf.o").read_bytes()
    made = BpfObject("xdpstack", elf)
    made.set_read_only(struct.pack("=I", options))
    made.maps["xs_xsks"].set_max_entries(queues)
    for table in fields(TableSizes):
        made.maps[f"xs_{table.name}"].set_max_entries(getattr(sizes or TableSizes(), table.name))
    return made


def read_counters(table: BpfMap) -> XdpCounters:
    """What xs_counters has."""
    layout = struct.Struct(f"={lib.XS_XDP_CAUSES + 2}Q")
    by_cpu = [layout.unpack(value) for value in table.lookup_per_cpu(_ZERO)]
    frames = {cause: sum(cpu[cause] for cpu in by_cpu) for cause in Cause}
    return XdpCounters(frames, max(cpu[-2] for cpu in by_cpu), max(cpu[-1] for cpu in by_cpu))


class MapWriter:
    """Writes entries of claims into the maps of a loaded program."""

    def __init__(self, maps: Mapping[str, BpfMap]) -> None:
        self._maps = maps

    def update(self, table: str, entries: Mapping[bytes, bytes]) -> None:
        """As TableWriter.update."""
        self._maps[table].update(entries)

    def delete(self, table: str, keys: Collection[bytes]) -> None:
        """As TableWriter.delete."""
        if table in ARRAYS:
            self._maps[table].update(dict.fromkeys(keys, bytes(self._maps[table].value_bytes)))
        else:
            self._maps[table].delete(keys)


def hardware_address(interface: str) -> bytes:
    """The MAC address, 6 bytes, of an interface of the calling thread's network namespace. Raises NoSuchInterface."""
    interface_index(interface)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, _SIOCGIFHWADDR, struct.pack("40s", interface.encode()))
    return answer[18:24]


def _not_offloaded(interface: str, error: OSError) -> ModeRefused:
    return ModeRefused(
        f"{interface} does not take an XDP program in offloaded mode",
        f"Loading it into the NIC failed: {os.strerror(error.errno or errno.EOPNOTSUPP)}. Few NICs run BPF, and none "
        "redirects to AF_XDP sockets.",
        "mode='auto' takes what there is; prefilter=Prefilter([...]) has the NIC drop frames, beside it.",
        number=error.errno,
    )
