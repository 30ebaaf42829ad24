"""The guest's initramfs: busybox, the kernel modules in an order in which each finds what it needs, and an init.

Its init mounts the host's root, read-only, under an overlay in memory: compilers, Python and the tree are in the guest
where they are on the host, and what the guest writes is gone with it.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tools.nic_lab.packages import Cache, LabError

#: Beside the NIC's driver: the shared folders, the overlay, the terminal, the kernel's word on who has a queue, veth pairs.
MODULES = ("9p", "9pnet_virtio", "overlay", "virtio_console", "xsk_diag", "veth")

#: {python} is the host's interpreter. Whatever fails ends the guest.
INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sysfs /sys; $b mount -t devtmpfs dev /dev
for module in /modules/*; do $b insmod $module; done
shared=trans=virtio,version=9p2000.L,msize=262144
$b mount -t 9p -o ro,cache=loose,$shared root /lower && $b mount -t tmpfs -o size=75% ram /ram &&
    $b mkdir /ram/up /ram/work &&
    $b mount -t overlay -o lowerdir=/lower,upperdir=/ram/up,workdir=/ram/work all /new ||
    {{ echo "nic-lab: the host's root cannot be mounted"; $b reboot -f; }}
for each in proc sys dev; do $b mount --move /$each /new/$each; done
$b mkdir -p /new/dev/pts /new/dev/shm /new/run /new/nic-lab
$b mount -t devpts devpts /new/dev/pts; $b mount -t tmpfs shm /new/dev/shm; $b mount -t tmpfs run /new/run
$b mount -t bpf bpf /new/sys/fs/bpf; $b mount -t cgroup2 cgroup /new/sys/fs/cgroup
$b mount -t 9p -o $shared exchange /new/nic-lab
exec $b switch_root /new {python} -I /nic-lab/guest.py
"""


def make(cache: Cache, driver: str, python: str) -> Path:
    """The initramfs for a NIC's driver; kept in the cache."""
    modules = [*MODULES, driver]
    init = INIT.format(python=python)
    key = hashlib.sha256("\0".join([cache.kernel_version, *modules, init, __doc__ or ""]).encode()).hexdigest()[:12]
    path = cache.folder / f"initramfs-{driver}-{key}"
    if path.exists():
        return path
    entries: list[tuple[str, int, bytes]] = [
        (folder, 0o040755, b"") for folder in ("bin", "modules", "proc", "sys", "dev", "lower", "ram", "new")
    ]
    entries += [
        ("bin/busybox", 0o100755, (cache.qemu / "usr/bin/busybox").read_bytes()),
        ("init", 0o100755, init.encode()),
    ]
    entries += [
        (f"modules/{number:03}-{name}.ko", 0o100644, data)
        for number, (name, data) in enumerate(in_load_order(cache.kernel, modules))
    ]
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(gzip.compress(b"".join(newc(entries)), 1))
    return new.rename(path)


def in_load_order(root: Path, wanted: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Name and contents of the modules and of what they need, what is needed first. What is built in is left out."""
    there = {path.name.partition(".ko")[0].replace("-", "_"): path for path in root.rglob("*.ko*")}
    seen: set[str] = set()

    def walk(name: str) -> Iterator[tuple[str, bytes]]:
        if name in seen or name not in there:
            return
        seen.add(name)
        data = contents(there[name])
        for needs in re.findall(rb"(?:^|\0)depends=([^\0]*)", data):
            for each in needs.decode().split(","):
                yield from walk(each.replace("-", "_"))
        yield name, data

    for name in wanted:
        yield from walk(name)


def contents(path: Path) -> bytes:
    """A module, decompressed."""
    match path.suffix:
        case ".ko":
            return path.read_bytes()
        case ".xz":
            return lzma.decompress(path.read_bytes())
    raise LabError(f"{path}: modules are expected plain or as .xz")


def newc(entries: Iterable[tuple[str, int, bytes]]) -> Iterator[bytes]:
    """A cpio archive as the kernel takes it (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    for number, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        yield head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
