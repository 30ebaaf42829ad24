"""What can be turned on a device, each by a name that a journal keeps: read it, write it.

    channels              [rx, tx, combined]
    rings                 [rx, tx]
    feature NAME          true or false: a feature of `ethtool -k` by the kernel's name
    rss table, rss key    list of queues; hexadecimal
    hash FLOW             bits of ethtool_set.FIELDS
    steer LOCATION        an n-tuple rule in hexadecimal, or null
    irq NUMBER            its CPUs, as /proc/irq/NUMBER/smp_affinity_list has them
    affinities            the same of all interrupts of the device, by name (irqs.py)
    napi_defer_hard_irqs, gro_flush_timeout    numbers

Values are as JSON has them. In the calling thread's network namespace; OSError where the device or the kernel refuses.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from xdpstack.device import ethtool, ethtool_set
from xdpstack.device.sysfs import class_net
from xdpstack.device.tuning.irqs import interrupts

Value = None | bool | int | str | list[int] | dict[str, str]

#: Where interrupts are; not of a namespace.
PROC_IRQ = Path("/proc/irq")
#: Files of /sys/class/net/NAME, each with a number.
FILES = ("napi_defer_hard_irqs", "gro_flush_timeout")


@dataclass(frozen=True, slots=True)
class Knob:
    """One of them, of one interface."""

    name: str
    read: Callable[[], Value]
    write: Callable[[Value], None]


def knob(interface: str, name: str) -> Knob:
    """The knob of that name. Raises ValueError for a name that is none."""
    kind, _, rest = name.partition(" ")
    made: tuple[Callable[[], Value], Callable[[Value], None]] | None = None
    if name == "channels":
        made = (lambda: _channels(interface)), (lambda value: ethtool_set.set_channels(interface, *_numbers(value, 3)))
    elif name == "rings":
        made = (lambda: _rings(interface)), (lambda value: ethtool_set.set_ring_sizes(interface, *_numbers(value, 2)))
    elif kind == "feature" and rest:
        made = (
            (lambda: _feature(interface, rest)),
            (lambda value: ethtool_set.set_feature(interface, rest, bool(value))),
        )
    elif name == "rss table":
        made = (lambda: list(ethtool_set.rss(interface).table)), (lambda value: _set_table(interface, value))
    elif name == "rss key":
        made = (
            (lambda: ethtool_set.rss(interface).key.hex()),
            (lambda value: ethtool_set.set_rss(interface, key=bytes.fromhex(str(value)))),
        )
    elif kind == "hash" and rest in ethtool_set.FLOWS:
        made = (
            (lambda: ethtool_set.hash_fields(interface, rest)),
            (lambda value: ethtool_set.set_hash_fields(interface, rest, _number(value))),
        )
    elif kind == "steer" and rest.isdecimal():
        made = (lambda: _rule(interface, int(rest))), (lambda value: _set_rule(interface, int(rest), value))
    elif kind == "irq" and rest.isdecimal():
        file = _affinity(int(rest))
        made = (lambda: file.read_text().strip()), (lambda value: _write(file, str(value)))
    elif name == "affinities":
        made = (lambda: _affinities(interface)), (lambda value: _set_affinities(interface, value))
    elif name in FILES:
        made = (lambda: _file(interface, name)), (lambda value: _set_file(interface, name, _number(value)))
    if made is None:
        raise ValueError(f"no knob {name!r}")
    return Knob(name, *made)


def _channels(interface: str) -> Value:
    found = ethtool.channels(interface)
    if found is None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    return [found.rx, found.tx, found.combined]


def _rings(interface: str) -> Value:
    found = ethtool.ring_sizes(interface)
    if found is None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    return [found.rx, found.tx]


def _feature(interface: str, name: str) -> Value:
    found = (ethtool.offloads(interface) or {}).get(name)
    if found is None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    return found.on


def _set_table(interface: str, value: Value) -> None:
    """The table; where the driver's default is the same, that one, which follows the number of queues by itself."""
    table = tuple(_numbers(value))
    if table == spread(len(table), len(set(table))):
        ethtool_set.set_rss(interface, ())
        if ethtool_set.rss(interface).table == table:
            return
    ethtool_set.set_rss(interface, table)


def spread(size: int, queues: int) -> tuple[int, ...]:
    """A table's default: ethtool_rxfh_indir_default()."""
    return tuple(i % max(1, queues) for i in range(size))


def _rule(interface: str, location: int) -> Value:
    found = ethtool_set.rule(interface, location)
    return None if found is None else found.hex()


def _set_rule(interface: str, location: int, value: Value) -> None:
    if value is None:
        ethtool_set.delete_rule(interface, location)
    else:
        ethtool_set.insert_rule(interface, bytes.fromhex(str(value)))


def _affinity(number: int) -> Path:
    return PROC_IRQ / str(number) / "smp_affinity_list"


def _affinities(interface: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, number in interrupts(interface).items():
        with contextlib.suppress(FileNotFoundError):
            found[name] = _affinity(number).read_text().strip()
    return found


def _set_affinities(interface: str, value: Value) -> None:
    """All that can be; what the kernel manages itself it refuses, with an errno that is raised when the others are set."""
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} has no names")
    numbers, now = interrupts(interface), _affinities(interface)
    refused: OSError | None = None
    for name, cpus in value.items():
        if now.get(name, cpus) == cpus:
            continue
        try:
            _write(_affinity(numbers[name]), cpus)
        except OSError as error:
            refused = error
    if refused is not None:
        raise refused


def _file(interface: str, name: str) -> int:
    return int(_in_class_net(interface, name, os.O_RDONLY, lambda file: os.read(file, 64)))


def _set_file(interface: str, name: str, value: int) -> None:
    _in_class_net(interface, name, os.O_WRONLY, lambda file: os.write(file, str(value).encode()))


def _in_class_net(interface: str, name: str, flags: int, use: Callable[[int], bytes | int]) -> bytes | int:
    with class_net() as folder:
        if folder is None:
            raise PermissionError(errno.EPERM, "sysfs cannot be mounted: CAP_SYS_ADMIN is missing")
        file = os.open(f"{interface}/{name}", flags | os.O_CLOEXEC, dir_fd=folder)
        try:
            return use(file)
        finally:
            os.close(file)


def _write(file: Path, value: str) -> None:
    """In one write(2), whose errno is the kernel's answer."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _number(value: Value) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is no number")
    return value


def _numbers(value: Value, count: int | None = None) -> list[int]:
    if not isinstance(value, list) or (count is not None and len(value) != count):
        raise ValueError(f"{value!r} is no list of {count or 'some'} numbers")
    return [_number(each) for each in value]
