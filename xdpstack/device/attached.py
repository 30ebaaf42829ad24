"""Which XDP programs an interface has, and who holds them there.

Only queries, in the calling thread's network namespace. Names and holders need privileges; without, they are left out.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdpstack.errors import NoSuchInterface, ProgramAttached
from xdpstack.native import check, ffi, lib

#: The name of libxdp's dispatcher, as the kernel cuts it.
DISPATCHER = "xdp_dispatcher"
#: Held while descriptors of others' programs are open for a moment (libxdp.py closes those that it finds open).
program_descriptors = threading.RLock()


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has a file descriptor of the link, or of the program where there is no link."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{'this process' if self.pid == os.getpid() else self.name} (pid {self.pid})"


@dataclass(frozen=True, slots=True)
class AttachedProgram:
    """An XDP program on an interface. `link_id` None: attached through netlink (as by `ip link set ... xdp`)."""

    interface: str
    mode: str
    program_id: int
    name: str
    link_id: int | None
    holders: tuple[Holder, ...]

    def __str__(self) -> str:
        how = "through netlink" if self.link_id is None else f"by link {self.link_id}"
        held = f", held by {', '.join(map(str, self.holders))}" if self.holders else ""
        return f"program {self.name or '?'} (id {self.program_id}), {self.mode} mode, attached {how}{held}"

    def cure(self) -> tuple[str, str]:
        """How it goes: what to do (empty where there is nothing better than the command), and a command."""
        if self.link_id is None:
            keyword = {"native": "xdpdrv", "generic": "xdpgeneric", "offloaded": "xdpoffload"}[self.mode]
            return "", f"ip link set dev {self.interface} {keyword} off"
        if any(holder.pid == os.getpid() for holder in self.holders):
            words = f"Close the stack that this process has on {self.interface}: one takes several interfaces"
        elif self.holders:
            words = "End the process that holds its link"
        else:
            words = "It is pinned: xdpstack unpin, if xdpstack pin did it"
        return words, f"bpftool link detach id {self.link_id}"


def interface_index(interface: str) -> int:
    """The ifindex, in the calling thread's network namespace. Raises NoSuchInterface."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        names = ", ".join(name for _, name in socket.if_nameindex())
        raise NoSuchInterface(
            f"no interface {interface!r} in this network namespace",
            f"It has: {names or 'none'}.",
            "Check the name (ip link), and the namespace (netns=...).",
        ) from None


def program_ids(interface: str) -> dict[str, int]:
    """Mode -> program id, of all that is attached. Raises NoSuchInterface."""
    programs = ffi.new("struct xs_bpf_xdp_programs *")
    result = lib.xs_bpf_xdp_query(interface_index(interface), programs)
    if result == -errno.ENODEV:
        raise NoSuchInterface(f"interface {interface!r} went away")
    check(result, f"XDP programs of {interface}")
    ids = {"native": programs.native_id, "generic": programs.generic_id, "offloaded": programs.offloaded_id}
    return {mode: program_id for mode, program_id in ids.items() if program_id}


def attached_programs(interface: str) -> list[AttachedProgram]:
    """All XDP programs of an interface, with names, links and holders where they can be known. Raises NoSuchInterface."""
    ids = program_ids(interface)
    ifindex = interface_index(interface)
    links = {link.program_id: link.id for link in _links() if link.ifindex == ifindex} if ids else {}
    return [
        AttachedProgram(
            interface,
            mode,
            program_id,
            program_name(program_id),
            links.get(program_id),
            tuple(_holders("link_id", links[program_id]) if program_id in links else _holders("prog_id", program_id)),
        )
        for mode, program_id in ids.items()
    ]


def already_attached(interface: str, others: Sequence[AttachedProgram]) -> ProgramAttached:
    """What to raise for programs that are in the way, one or more."""
    other = others[0]
    if other.name == DISPATCHER:
        return ProgramAttached(
            f"{interface} has other XDP programs: {'; '.join(map(str, others))}",
            "They are called by libxdp's dispatcher; without your word none is joined.",
            "coexist=True joins them; xdp-loader status lists them.",
        )
    words, command = other.cure()
    return ProgramAttached(
        f"{interface} has another XDP program: {'; '.join(map(str, others))}",
        "An interface runs one XDP program; it is never replaced without your word. Others are joined only where libxdp's "
        "dispatcher calls them (coexist=True).",
        "; or: ".join(filter(None, (words, command))),
    )


def refuse_others(interface: str, mode: str) -> None:
    """Say beforehand what attaching in `mode` would. Raises ProgramAttached and NoSuchInterface.

    Native and generic exclude each other, a program in the NIC is for itself: the kernel's dev_xdp_attach().
    """
    others = [each for each in attached_programs(interface) if (each.mode == "offloaded") == (mode == "offloaded")]
    if others:
        raise already_attached(interface, others)


def link_info(link_fd: int) -> Any:
    """A struct xs_bpf_link_info."""
    info = ffi.new("struct xs_bpf_link_info *")
    check(lib.xs_bpf_link_info(link_fd, info), "BPF link")
    return info


def program_name(program_id: int) -> str:
    """The name of a BPF program, as the kernel cuts it; empty if it may not be known."""
    with program_descriptors:
        fd = lib.bpf_prog_get_fd_by_id(program_id)
        if fd < 0:  # no privilege, or gone meanwhile
            return ""
        try:
            info = ffi.new("struct xs_bpf_program_info *")
            check(lib.xs_bpf_program_info(fd, info), f"BPF program {program_id}")
            return str(ffi.string(info.name).decode())
        finally:
            os.close(fd)


def _links() -> Iterator[Any]:
    """Every XDP link of the machine that we may look at."""
    next_id = ffi.new("uint32_t *")
    while lib.bpf_link_get_next_id(next_id[0], next_id) == 0:
        fd = lib.bpf_link_get_fd_by_id(next_id[0])
        if fd < 0:
            continue
        try:
            info = link_info(fd)
        finally:
            os.close(fd)
        if info.type == lib.XS_BPF_LINK_XDP:
            yield info


def _holders(what: str, number: int) -> Iterator[Holder]:
    """The processes with a file descriptor whose fdinfo has the line `what: number`."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            for entry in process.joinpath("fdinfo").iterdir():
                if any(line.split() == [f"{what}:", str(number)] for line in entry.read_text().splitlines()):
                    yield Holder(int(process.name), process.joinpath("comm").read_text().strip())
                    break
        except OSError:  # it ended meanwhile, or is another user's
            continue
