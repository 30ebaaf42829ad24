"""A program that stays attached without a process: its link and its maps pinned in a directory of a BPF file system.

    DIRECTORY        root's, anybody may look
      link           root's alone: whoever may open it can detach the program
      about          what is pinned, JSON (About): layout, namespace, interface, mode
      xs_*           the program's maps: the user's and the group's, who may write them
      lock           a directory, theirs to open: who holds a lock on it (flock) uses the program

`pin` and `unpin` are for root. Who may write the maps uses the program by pinned.py. While nobody does, the deadline is
over and no queue has a socket, so that the kernel has all traffic.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import json
import os
import pwd
import shutil
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xdpstack.device import netdev, privileges
from xdpstack.device.attached import Holder
from xdpstack.device.drivers import native_lacks
from xdpstack.device.hints import open_attached
from xdpstack.device.libbpf import PinnedMap
from xdpstack.device.tuning.journal import namespace
from xdpstack.device.xdp import Mode, XdpProgram
from xdpstack.errors import ConfigurationError, ModeRefused, PinError
from xdpstack.native import check, lib
from xdpstack.netlink import Link

LINK, ABOUT, LOCK = "link", "about", "lock"
#: Bytes of `about`, an array map of one element.
ABOUT_BYTES = 1024
KEY = struct.pack("=I", 0)


@dataclass(frozen=True, slots=True)
class About:
    """What is pinned. `layout` is XS_XDP_LAYOUT of who pinned it; `netns` inode and cookie of the interface's namespace."""

    layout: int
    netns: tuple[int, int]
    interface: str
    ifindex: int
    mode: str
    frags: bool
    program_id: int
    link_id: int


def pin(link: Link, directory: Path, mode: Mode = "auto", user: str = "", group: str = "") -> About:
    """Attach the program to an interface of the calling thread's namespace and pin it; it stays when this process ends.

    `user` and `group`, names or numbers: who may use it; root alone if both are left out. Raises what
    XdpProgram.open and attach raise, PinError (no BPF file system there, something is there already), ConfigurationError;
    then nothing is left.
    """
    uid, gid = _number(user, "user"), _number(group, "group")
    if lacking := {"CAP_BPF", "CAP_NET_ADMIN"} - privileges.effective():
        raise privileges.missing("pin an XDP program", lacking)
    _check_place(directory)
    lacks = native_lacks(link.name) if mode in ("auto", "native") else ""
    if lacks and mode == "native":
        raise ModeRefused(f"native mode is of no use on {link.name}", lacks, "mode='auto' takes what there is.")
    attached = open_attached(link.name, link.rx_queues, "generic" if lacks else mode, (), netdev.features(link.index))
    granted = attached.granted
    said = About(
        lib.XS_XDP_LAYOUT,
        namespace(),
        link.name,
        link.index,
        granted.mode,
        granted.frags,
        granted.program_id,
        granted.link_id,
    )
    with attached.program as program, contextlib.ExitStack() as undo:
        directory.mkdir(mode=0o700)
        undo.callback(_remove, directory)
        _pin_all(program, directory, said, -1 if uid is None else uid, -1 if gid is None else gid)
        directory.chmod(0o755)
        undo.pop_all()
        program.leave_attached()
    return said


def _pin_all(program: XdpProgram, directory: Path, said: About, uid: int, gid: int) -> None:
    """Everything but the link, whose pin keeps the program, is there when that is."""
    about = check(lib.xs_bpf_create_array(b"about_pinned", ABOUT_BYTES), "a map for what is pinned")
    try:
        PinnedMap(ABOUT, about).update({KEY: json.dumps(asdict(said)).encode().ljust(ABOUT_BYTES, b"\0")})
        _pin(about, directory / ABOUT)
    finally:
        os.close(about)
    for name, table in program.maps.items():
        _pin(table.fd, directory / name)
    lock = directory / LOCK
    lock.mkdir(mode=0o500)
    writers = 0o600 | (0o060 if gid >= 0 else 0)
    for path in directory.iterdir():
        os.chown(path, uid, gid)
        path.chmod(writers & 0o440 if path == lock else writers)
    _pin(program.link_fd, directory / LINK)
    (directory / LINK).chmod(0o600)


def unpin(directory: Path) -> None:
    """Detach what is pinned there and remove it. Raises PrivilegeError; PinError: there is none, or somebody uses it."""
    if lacking := {"CAP_BPF", "CAP_NET_ADMIN"} - privileges.effective():
        raise privileges.missing("unpin an XDP program", lacking)
    if not _is_pin(directory):
        raise PinError(f"no program is pinned at {directory}", fix="`find /sys/fs/bpf` lists what is pinned.")
    with contextlib.ExitStack() as undo:
        with contextlib.suppress(FileNotFoundError):  # pinning was interrupted before there was one
            undo.callback(os.close, take(directory))  # and kept until nothing is left
        _remove(directory)


def take(directory: Path) -> int:
    """The lock of who uses the program, a descriptor; closing it lets go of it. Raises PinError, OSError."""
    path = directory / LOCK
    with contextlib.ExitStack() as undo:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        undo.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PinError(
                f"the program pinned at {directory} is used by {_holder(descriptor) or 'another process'}",
                "It has one deadline and one set of claims, so one process at a time.",
                "End that process; or pin another interface's program, and use that.",
                errno.EBUSY,
            ) from None
        if not os.path.samestat(os.fstat(descriptor), path.stat()):
            raise FileNotFoundError(errno.ENOENT, "unpinned meanwhile", str(path))
        undo.pop_all()
    return descriptor


def read_about(about: PinnedMap) -> dict[str, Any]:
    """What `about` says; empty if that is not JSON: its user can write it."""
    try:
        said = json.loads((about.lookup(KEY) or b"").rstrip(b"\0"))
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _holder(descriptor: int) -> Holder | None:
    status = os.fstat(descriptor)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[1] == "FLOCK" and place in words:
            with contextlib.suppress(OSError):
                pid = int(words[4])
                return Holder(pid, Path(f"/proc/{pid}/comm").read_text().strip())
    return None


def _check_place(directory: Path) -> None:
    """Raises PinError unless something can be pinned there."""
    if "." in directory.name:
        raise ConfigurationError(f"{directory} has a dot in its name", "A BPF file system takes none.")
    if directory.exists():
        raise PinError(
            f"there is something at {directory}", "", f"xdpstack unpin {directory}, if it is a pin.", errno.EEXIST
        )
    if not is_bpf(directory.parent):
        raise PinError(
            f"{directory.parent} is not in a BPF file system",
            "Programs can be pinned there alone.",
            "mount -t bpf bpf /sys/fs/bpf",
        )


def is_bpf(directory: Path) -> bool:
    """Whether it is in a BPF file system."""
    try:
        status = directory.stat()
    except OSError:
        return False
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, kind = line.partition(" - ")
        if mount.split()[2] == device and kind.split()[0] == "bpf":
            return True
    return False


def _is_pin(directory: Path) -> bool:
    """Whether all of it is ours; also what is left where pinning was interrupted, which is never a link alone."""
    if not directory.is_dir() or not is_bpf(directory):
        return False
    names = {path.name for path in directory.iterdir()}
    ours = all(name in (LINK, ABOUT, LOCK) or name.startswith("xs_") for name in names)
    return bool(names) and ours and (LINK not in names or {ABOUT, LOCK} <= names)


def _remove(directory: Path) -> None:
    """The link first: with it the program is detached, whoever has a descriptor of it. Raises PinError, OSError."""
    link = directory / LINK
    if link.exists():
        descriptor = check(lib.bpf_obj_get(bytes(link)), str(link))
        lib.bpf_link_detach(descriptor)
        os.close(descriptor)
        link.unlink()
    try:
        shutil.rmtree(directory)  # in `lock` its owner may have made others
    except OSError as error:
        raise PinError(
            f"not all of {directory} is gone: {error.strerror}",
            "The program is detached, and something is in the way of the rest.",
            f"rm -r {directory}",
            error.errno,
        ) from error


def _pin(descriptor: int, path: Path) -> None:
    check(lib.bpf_obj_pin(descriptor, bytes(path)), f"pin {path}")


def _number(name: str, what: str) -> int | None:
    if not name:
        return None
    find: Any = pwd.getpwnam if what == "user" else grp.getgrnam
    try:
        return int(name) if name.isdecimal() else int(find(name)[2])
    except KeyError:
        raise ConfigurationError(f"there is no {what} {name!r}") from None
