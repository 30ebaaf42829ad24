"""A pre-filter in the NIC: frames from denied addresses are dropped before the kernel, and before the program that lifts.

    with xdpstack.open("eth1", prefilter=Prefilter(["192.0.2.1", "2001:db8::1"])) as stack: ...

It is an XDP program that the NIC itself runs (XDP_FLAGS_HW_MODE), beside the native one on the host. Of the drivers in
Linux, nfp takes such programs, and netdevsim, which is for tests. Others refuse it when it is loaded, before anything is
changed; nothing is filtered on the host instead.
"""

from __future__ import annotations

import errno
import importlib.resources
import ipaddress
import os
import struct
from collections.abc import Iterable

from xdpstack.device.attached import interface_index
from xdpstack.device.libbpf import BpfObject
from xdpstack.errors import ConfigurationError, ModeRefused, VerifierError, XdpstackError
from xdpstack.native import check, ffi, lib

PROGRAM = "xs_prefilter"
PASSED, DROPPED = 0, 1


class Prefilter:
    """Which frames the NIC is to drop: those from `sources`, addresses as text of either family, with VLAN tags or without.

    Raises ConfigurationError for what is no address, or for none.
    """

    def __init__(self, sources: Iterable[str]) -> None:
        if isinstance(sources, str):
            raise ConfigurationError(
                f"a pre-filter of {sources!r}", "It takes a list of addresses.", f"Prefilter([{sources!r}])"
            )
        try:
            self._keys = {address_key(each): each for each in sources}
        except ValueError as wrong:
            raise ConfigurationError(f"a pre-filter takes single addresses: {wrong}") from None
        if not self._keys:
            raise ConfigurationError("a pre-filter of no addresses", fix="Leave prefilter out.")

    @property
    def sources(self) -> tuple[str, ...]:
        """The addresses, each once."""
        return tuple(self._keys.values())

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The same as 16 bytes each, IPv4 mapped."""
        return tuple(self._keys)

    def __repr__(self) -> str:
        return f"Prefilter({list(self.sources)})"


class PrefilterProgram:
    """A pre-filter that is loaded; made by `load`, ended by `close`. Of the thread that is in the interface's namespace."""

    def __init__(self, interface: str, program: BpfObject) -> None:
        self.interface = interface
        self._object = program
        self._link_fd = -1
        self._pid = os.getpid()

    @classmethod
    def load(cls, interface: str, asked: Prefilter, *, offload: bool = True) -> PrefilterProgram:
        """Into the NIC; without `offload` into the kernel, to be tested. Changes nothing that anybody sees.

        Raises ModeRefused with the reason, NoSuchInterface, PrivilegeError, OutOfMemory.
        """
        ifindex = interface_index(interface) if offload else 0
        program = BpfObject("prefilter", _elf())
        try:
            program.maps["xs_denied"].set_max_entries(len(asked.keys))
            program.load(PROGRAM, offload_ifindex=ifindex)
            for key in asked.keys:  # one by one: the kernel has no batches for tables in a NIC
                program.maps["xs_denied"].update({key: struct.pack("=I", 1)})
        except (VerifierError, OSError) as error:
            program.close()
            if not offload or (isinstance(error, XdpstackError) and not isinstance(error, VerifierError)):
                raise
            raise _refused(interface, error) from None
        except BaseException:
            program.close()
            raise
        return cls(interface, program)

    def attach(self) -> None:
        """Beside the native program. Raises ModeRefused."""
        ifindex = interface_index(self.interface)
        result = lib.xs_bpf_xdp_attach(self._object.program_fd(PROGRAM), ifindex, lib.XS_BPF_XDP_OFFLOADED)
        if result < 0:
            raise _refused(self.interface, OSError(-result, os.strerror(-result)))
        self._link_fd = result

    def counts(self) -> dict[str, int]:
        """Frames `passed` and `dropped` since it was loaded."""
        table = self._object.maps["xs_counts"]
        values = {name: table.lookup(struct.pack("=I", at)) for name, at in (("passed", PASSED), ("dropped", DROPPED))}
        return {name: int.from_bytes(value or b"", "little") for name, value in values.items()}

    def test_run(self, frame: bytes) -> int:
        """The verdict on a frame of 14 bytes or more: XDP_DROP (1) or XDP_PASS (2). Not of one in the NIC."""
        out, run = ffi.new("char[]", len(frame)), ffi.new("struct xs_bpf_test_run *")
        data = ffi.from_buffer(frame)
        run.frame, run.frame_bytes, run.out, run.out_bytes, run.repeat = data, len(frame), out, len(frame), 1
        check(lib.xs_bpf_test_run(self._object.program_fd(PROGRAM), run), "BPF_PROG_TEST_RUN")
        return int(run.verdict)

    def close(self) -> None:
        """Detached and freed; idempotent."""
        if self._link_fd >= 0:
            link_fd, self._link_fd = self._link_fd, -1
            if self._pid == os.getpid():
                lib.bpf_link_detach(link_fd)
            os.close(link_fd)
        self._object.close()


def address_key(text: str) -> bytes:
    """16 bytes, IPv4 mapped. ValueError for what is no address."""
    address = ipaddress.ip_address(text)
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


def _elf() -> bytes:
    return importlib.resources.files("xdpstack.device").joinpath("bpf/xdpstack_prefilter.bpf.o").read_bytes()


def _refused(interface: str, error: OSError | VerifierError) -> ModeRefused:
    number = error.errno if isinstance(error, OSError) and error.errno else errno.EOPNOTSUPP
    said = os.strerror(number) if isinstance(error, OSError) else str(error)
    return ModeRefused(
        f"{interface} takes no pre-filter",
        f"Loading it into the NIC failed: {said}. It runs in the NIC itself, and of the drivers in Linux nfp has that.",
        "Leave prefilter out; on the host a hook on tc.rx drops what it likes (docs/hooks.md).",
        number=number,
    )
