"""The doctor's look at the machine: privileges, kernel, memory."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

from xdpstack.device import privileges, redirect_err
from xdpstack.device.finding import Finding, error, note, ok, warning
from xdpstack.device.holders import AF_XDP
from xdpstack.device.kernel import kernel_version
from xdpstack.device.plan import SG_KERNEL
from xdpstack.errors import VerifierError, XdpstackError
from xdpstack.native.huge_pages import huge_pages, pages_for, shortage

#: What each capability is for.
NEEDED = {
    "CAP_NET_RAW": "AF_XDP sockets",
    "CAP_BPF": "loading the XDP program and its maps",
    "CAP_NET_ADMIN": "attaching the program",
}
#: The first kernel with what is always needed: a bpf_link for XDP.
OLDEST_KERNEL = (5, 11)
#: And what newer ones add.
SINCE = {
    (5, 13): "counting of redirects that fail",
    (5, 18): "XDP programs for frames of several buffers",
    (6, 3): "drivers that say what they can",
    SG_KERNEL: "packets over several AF_XDP frames (jumbo)",
    (6, 17): "sending a whole ring with one system call in copy mode",
}


def privilege_findings() -> Iterator[Finding]:
    """Which capabilities are missing, each with what it is for."""
    held = privileges.effective()
    lacking = [name for name in NEEDED if name not in held]
    if not lacking:
        yield ok("privileges", ", ".join(NEEDED))
        return
    for name in lacking:
        yield error(
            "privileges",
            f"{name} is missing",
            f"The kernel wants it for {NEEDED[name]}.",
            "Run as root, or give the capabilities to the interpreter.",
            f"setcap {','.join(each.lower() for each in NEEDED)}+ep $(readlink -f $(command -v python3))",
        )


def kernel_findings() -> Iterator[Finding]:
    """Whether this kernel can, and what it lacks that newer ones have."""
    release, version = os.uname().release, kernel_version()
    if version < OLDEST_KERNEL:
        yield error(
            "kernel",
            f"{release} is too old",
            "The XDP program reads the clock of the last tick (bpf_ktime_get_coarse_ns), which came with Linux 5.11.",
            "Boot a newer kernel; 6.6 or later has all of it.",
        )
    elif lacking := [f"{what} ({major}.{minor})" for (major, minor), what in SINCE.items() if version < (major, minor)]:
        yield note("kernel", f"{release}; newer ones have: {', '.join(lacking)}")
    else:
        yield ok("kernel", release)
    try:
        socket.socket(AF_XDP, socket.SOCK_RAW | socket.SOCK_CLOEXEC).close()
    except OSError as failure:
        if failure.errno == errno.EAFNOSUPPORT:
            yield error(
                "kernel",
                "there is no AF_XDP",
                "The kernel was built without CONFIG_XDP_SOCKETS.",
                "Boot a kernel that has it; all large distributions' do.",
                "zgrep XDP_SOCKETS /proc/config.gz /boot/config-$(uname -r)",
            )
    yield from _jit()


def _jit() -> Iterator[Finding]:
    try:
        on = Path("/proc/sys/net/core/bpf_jit_enable").read_text().strip() != "0"
    except OSError:  # always on in kernels built so, or hidden
        return
    if not on:
        yield warning(
            "kernel",
            "BPF programs are interpreted",
            "net.core.bpf_jit_enable is 0: the XDP program costs several times more for every frame.",
            "Switch the compiler on.",
            "sysctl net.core.bpf_jit_enable=1",
        )


def load_findings(name: str) -> Iterator[Finding]:
    """Whether the XDP program loads; it is not attached. Needs the privileges."""
    from xdpstack.device.xdp import XdpProgram  # its ELF is only there when the package was built

    if set(NEEDED) - privileges.effective():
        return
    try:
        XdpProgram.open(name, 1).close()
    except VerifierError as refused:
        yield error("program", refused.message, refused.log[-300:] or refused.cause, refused.fix)
    except (XdpstackError, OSError) as failure:
        yield error(
            "program", str(failure).partition("\n")[0], getattr(failure, "cause", ""), getattr(failure, "fix", "")
        )
    else:
        yield ok("program", "the verifier takes it")


def redirect_findings() -> Iterator[Finding]:
    """Whether redirects that fail can be counted: the program loads; it is not attached."""
    why = redirect_err.lacking()
    try:
        if not why:
            redirect_err.loaded(1).close()
    except (XdpstackError, OSError) as refused:
        why = redirect_err.because(refused)
    if why:
        yield note("redirects", "those that fail are not counted", why, "Nothing else needs it (docs/device.md).")
    else:
        yield ok("redirects", "those that fail can be counted")


def memory_findings(frame_bytes_total: int) -> Iterator[Finding]:
    """Whether `frame_bytes_total` bytes of frames can be had and pinned."""
    size = _mib(frame_bytes_total)
    available = _available_bytes()
    if available is not None and available < 2 * frame_bytes_total:
        level = error if available < frame_bytes_total else warning
        yield level(
            "memory",
            f"{_mib(available)} are available, and the frames take {size}",
            "All frames are pinned as long as the stack is open.",
            "Ask for fewer frames: frames=...",
        )
    _, limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)  # a soft limit is raised to the hard one
    if "CAP_IPC_LOCK" not in privileges.effective() and limit != resource.RLIM_INFINITY and limit < frame_bytes_total:
        yield error(
            "memory",
            f"{_mib(limit)} may be locked, and the frames take {size}",
            "AF_XDP pins its frames, and that counts against RLIMIT_MEMLOCK for who has no CAP_IPC_LOCK.",
            "Raise the limit (as root; LimitMEMLOCK= of systemd), give CAP_IPC_LOCK, or ask for fewer frames: frames=...",
            "prlimit --pid $$ --memlock=unlimited",
        )
    else:
        yield ok("memory", f"{size} of frames can be pinned")
    needed, found = pages_for(frame_bytes_total), huge_pages()
    if found is not None and found.free >= needed:
        yield ok("memory", f"{found.free} huge pages are free, and the frames would take {needed}: huge_pages=True")
    else:
        cause, command = shortage(frame_bytes_total, found)
        yield note("memory", "no huge pages for the frames: huge_pages=True would be refused", cause, "", command)


def _available_bytes() -> int | None:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB" if size >= 1 << 20 else f"{size} bytes"
