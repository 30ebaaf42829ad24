"""BPF objects, maps and links: libbpf in Python's terms.

A `BpfObject` owns the programs and maps of one ELF file; a link owns an attachment. All of it is file descriptors of this
process and nothing is pinned, so that the kernel frees everything when the process dies, however it dies.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from xdpstack.device import privileges
from xdpstack.errors import OutOfMemory, TableFull, VerifierError, XdpstackError
from xdpstack.native import check, ffi, lib

#: The verifier says most at the end of its log, which is what the kernel keeps when there is too much (since 6.4).
LOG_BYTES = 1 << 20


class BpfObject:
    """An ELF file of BPF programs, opened; `load` brings it into the kernel. Close it, or use it as a context manager."""

    def __init__(self, name: str, elf: bytes) -> None:
        """Parse. Raises OutOfMemory, or XdpstackError with what libbpf says of a file that is not one."""
        self._object = ffi.NULL
        pointer = ffi.new("struct bpf_object **")
        with collected_log() as log:
            result = lib.xs_bpf_open(name.encode(), elf, len(elf), pointer)
        if result == -errno.ENOMEM:
            raise _no_memory(name, log())
        if result < 0:
            raise XdpstackError(f"{name}: not a BPF object that libbpf can open: {os.strerror(-result)}", log())
        self.name = name
        self._object = pointer[0]
        self._programs: dict[str, Any] = dict(_named(lib.bpf_object__next_program, self._object, lib.bpf_program__name))
        maps = dict(_named(lib.bpf_object__next_map, self._object, lib.bpf_map__name))
        self._data = {each: pointer for each, pointer in maps.items() if lib.bpf_map__is_internal(pointer)}
        self.maps = {each: BpfMap(each, pointer) for each, pointer in maps.items() if each not in self._data}

    def set_read_only(self, data: bytes) -> None:
        """Set the program's constants, all of .rodata, before `load`: the verifier removes what they make unreachable."""
        pointer = next(pointer for each, pointer in self._data.items() if each.endswith(".rodata"))
        check(lib.bpf_map__set_initial_value(pointer, data, len(data)), f"{self.name}: .rodata")

    def set_target(self, program: str, target_fd: int, function: str) -> None:
        """The program is to replace this function of the program of that descriptor. Before `load`. Raises OSError."""
        result = lib.bpf_program__set_attach_target(self._programs[program], target_fd, function.encode())
        check(result, f"{program}: replace {function}")

    def load(
        self,
        *programs: str,
        offload_ifindex: int = 0,
        bound_ifindex: int = 0,
        by: Callable[[Any], int] = lib.bpf_object__load,
    ) -> None:
        """Load these programs, and all maps: into the NIC (`offload_ifindex`), or for one device (`bound_ifindex`).

        `by` does it, given the object. Raises PrivilegeError, OutOfMemory, VerifierError, or OSError.
        """
        logs = {each: ffi.new("char[]", LOG_BYTES) for each in programs}
        for each, pointer in self._programs.items():
            check(lib.bpf_program__set_autoload(pointer, each in logs), each)
            if each in logs:
                check(lib.bpf_program__set_log_buf(pointer, logs[each], LOG_BYTES), each)
                lib.bpf_program__set_ifindex(pointer, offload_ifindex or bound_ifindex)
                if bound_ifindex:
                    check(lib.bpf_program__set_flags(pointer, lib.XS_BPF_XDP_DEV_BOUND_ONLY), each)
        if offload_ifindex:
            for table in self.maps.values():
                check(lib.bpf_map__set_ifindex(table.pointer, offload_ifindex), table.name)
        with collected_log() as said:
            result = by(self._object)
        if result >= 0:
            return
        if result == -errno.EPERM:
            raise privileges.missing("load an XDP program", ("CAP_BPF", "CAP_NET_ADMIN"))
        if result == -errno.ENOMEM:
            raise _no_memory(self.name, said())
        for each, log in logs.items() if result not in (-errno.EMFILE, -errno.ENFILE) else ():
            if verifier := ffi.string(log).decode(errors="replace").strip():
                last = [line for line in verifier.splitlines() if not line.startswith(("processed ", "verification "))][
                    -1:
                ]
                raise VerifierError(
                    f"the kernel refused the BPF program {each}: {os.strerror(-result)}",
                    verifier,
                    f"The verifier's last words: {''.join(last)}",
                    "The whole log is in the exception's `log`. Kernels differ: say which one this is, if you report it.",
                )
        raise OSError(-result, f"cannot load {self.name}: {os.strerror(-result)}\n{said()}")

    def program_fd(self, program: str) -> int:
        """The file descriptor of a loaded program; it belongs to the object."""
        return check(lib.bpf_program__fd(self._programs[program]), program)

    def close(self) -> None:
        """Free programs and maps, but for what a link still holds; idempotent."""
        if self._object != ffi.NULL:
            pointer, self._object = self._object, ffi.NULL
            lib.bpf_object__close(pointer)

    def __enter__(self) -> BpfObject:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BpfMap:
    """A map of an object, usable once the object is loaded. Keys and values are bytes as the kernel stores them."""

    def __init__(self, name: str, pointer: Any) -> None:
        self.name = name
        self.pointer = pointer
        self.key_bytes: int = lib.bpf_map__key_size(pointer)
        self.value_bytes: int = lib.bpf_map__value_size(pointer)

    @property
    def fd(self) -> int:
        """The file descriptor; it belongs to the object."""
        return check(lib.bpf_map__fd(self.pointer), self.name)

    @property
    def max_entries(self) -> int:
        """How many entries there is room for."""
        return int(lib.bpf_map__max_entries(self.pointer))

    def set_max_entries(self, entries: int) -> None:
        """Size the map, before the object is loaded."""
        check(lib.bpf_map__set_max_entries(self.pointer, entries), self.name)

    def lookup(self, key: bytes) -> bytes | None:
        """The value; None where there is none."""
        value = ffi.new("char[]", self.value_bytes)
        return (
            bytes(ffi.buffer(value)) if self._found(lib.bpf_map_lookup_elem(self.fd, self._key(key), value)) else None
        )

    def lookup_per_cpu(self, key: bytes) -> list[bytes]:
        """The values of a per-CPU map, one for each possible CPU."""
        stride = (self.value_bytes + 7) & ~7
        cpus = check(lib.libbpf_num_possible_cpus(), "possible CPUs")
        values = ffi.new("char[]", stride * cpus)
        check(lib.bpf_map_lookup_elem(self.fd, self._key(key), values), self.name)
        return [bytes(ffi.buffer(values)[cpu * stride : cpu * stride + self.value_bytes]) for cpu in range(cpus)]

    def zero_per_cpu(self, key: bytes) -> None:
        """Insert or replace by zeros, for every possible CPU; of a per-CPU map. Raises TableFull when there is no room."""
        cpus = check(lib.libbpf_num_possible_cpus(), "possible CPUs")
        zeros = bytes(((self.value_bytes + 7) & ~7) * cpus)
        self._written(lib.bpf_map_update_elem(self.fd, self._key(key), zeros, 0))

    @property
    def id(self) -> int:
        """What the kernel calls it. Raises OSError."""
        info = ffi.new("struct xs_bpf_map_info *")
        check(lib.xs_bpf_map_info(self.fd, info), self.name)
        return int(info.id)

    def keys(self) -> Iterator[bytes]:
        """All keys; of a map that changes meanwhile, some may be left out or come twice."""
        before: Any = ffi.NULL
        key = ffi.new("char[]", self.key_bytes)
        while self._found(lib.bpf_map_get_next_key(self.fd, before, key)):
            yield bytes(ffi.buffer(key))
            before = key

    def update(self, entries: Mapping[bytes, bytes]) -> None:
        """Insert or replace. Raises TableFull when there is no room; some of the entries may be in then."""
        if len(entries) == 1:
            ((key, value),) = entries.items()
            result = lib.bpf_map_update_elem(self.fd, self._key(key), self._value(value), 0)
        elif entries:
            keys, values = b"".join(map(self._key, entries)), b"".join(map(self._value, entries.values()))
            count = ffi.new("uint32_t *", len(entries))
            result = lib.bpf_map_update_batch(self.fd, keys, values, count, ffi.NULL)
        else:
            return
        self._written(result)

    def delete(self, keys: Collection[bytes]) -> None:
        """Remove; keys that are not there are no error."""
        for key in keys:
            self._found(lib.bpf_map_delete_elem(self.fd, self._key(key)))

    def _written(self, result: int) -> None:
        if result in (-errno.E2BIG, -errno.ENOSPC):
            raise TableFull(f"the BPF map {self.name} has room for {self.max_entries} entries")
        check(result, self.name)

    def _found(self, result: int) -> bool:
        return result != -errno.ENOENT and check(result, self.name) >= 0

    def _key(self, key: bytes) -> bytes:
        if len(key) != self.key_bytes:
            raise ValueError(f"keys of {self.name} have {self.key_bytes} bytes, not {len(key)}")
        return key

    def _value(self, value: bytes) -> bytes:
        if len(value) != self.value_bytes:
            raise ValueError(f"values of {self.name} have {self.value_bytes} bytes, not {len(value)}")
        return value


class PinnedMap(BpfMap):
    """A map by a descriptor of it, which is the caller's."""

    def __init__(self, name: str, descriptor: int) -> None:
        info = ffi.new("struct xs_bpf_map_info *")
        check(lib.xs_bpf_map_info(descriptor, info), name)
        self.name = name
        self.key_bytes = info.key_bytes
        self.value_bytes = info.value_bytes
        self._fd = descriptor
        self._max_entries = int(info.max_entries)

    @property
    def fd(self) -> int:
        """The descriptor."""
        return self._fd

    @property
    def max_entries(self) -> int:
        """How many entries there is room for."""
        return self._max_entries


def _no_memory(name: str, said: str) -> OutOfMemory:
    cause = said or "libbpf could not allocate its own copy of it."
    return OutOfMemory(f"no memory for the BPF object {name}", cause, "Free memory, or make its tables smaller.")


@contextmanager
def collected_log() -> Iterator[Any]:
    """Collects what libbpf says on this thread; yields a function that returns it."""
    buffer = ffi.new("char[]", 1 << 16)
    lib.xs_bpf_log_begin(buffer, len(buffer))
    try:
        yield lambda: ffi.string(buffer).decode(errors="replace").strip()
    finally:
        lib.xs_bpf_log_end()


def _named(after: Any, parent: Any, name: Any) -> Iterator[tuple[str, Any]]:
    """The members of an object by name; `after` is libbpf's iterator."""
    member = after(parent, ffi.NULL)
    while member != ffi.NULL:
        yield ffi.string(name(member)).decode(), member
        member = after(parent, member)
