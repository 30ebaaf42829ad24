"""Frames on huge pages: granted, refused with the number that is missing, or done without, as asked."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths.world import OURS, MakeVeth, exchange, kernel_udp, opened
from xdpstack.native import ffi, lib
from xdpstack.native.core import Core
from xdpstack.native.huge_pages import FOLDER, HugePages, huge_pages, pages_for, shortage, transparent_bytes
from xdpstack.testing.wait import PATIENCE, until


@pytest.fixture(scope="module")
def four_pages() -> Iterator[None]:
    """Four huge pages more, until all memory of these tests is back; skips where the machine has none in one piece."""
    file = FOLDER / "nr_hugepages"
    before, unused = int(file.read_text()), free()
    try:
        file.write_text(str(before + 4))
        if free() < unused + 4:
            pytest.skip("no memory in one piece for huge pages")
        yield
        gc.collect()  # memory goes with the last view of it
        until(lambda: free() == unused + 4)
    finally:
        file.write_text(str(before))


def free() -> int:
    found = huge_pages()
    assert found is not None
    return found.free


def of_mapping(address: int, what: str) -> list[str]:
    """What /proc/self/smaps says of the mapping at an address, in words."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if "-" in first and not first.endswith(":"):
            start, end = (int(part, 16) for part in first.split("-"))
            inside = start <= address < end
        elif inside and first == f"{what}:":
            return rest
    raise AssertionError("no such mapping")


def transparent_mode() -> str:
    """Which of always, madvise and never the kernel has chosen."""
    try:
        modes = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except FileNotFoundError:
        return "never"
    return modes.partition("[")[2].partition("]")[0]


# ---- without a kernel ----


def test_how_much_is_transparent(tmp_path: Path) -> None:
    """Of the mappings that hold some of the memory, and never more than it has."""
    smaps = tmp_path / "smaps"
    kinds = {0x1000: 0, 0x200000: 2048, 0x400000: 4096, 0x800000: 6144}
    ends = dict(zip(kinds, (0x200000, 0x400000, 0x800000, 0x1000000), strict=True))
    smaps.write_text(
        "".join(
            f"{start:x}-{ends[start]:x} rw-p 0 00:00 0\nAnonHugePages: {kib:8} kB\n" for start, kib in kinds.items()
        )
    )
    assert transparent_bytes(0x200000, 0x600000, smaps) == 6 << 20
    assert transparent_bytes(0x400000, 0x100000, smaps) == 1 << 20
    assert transparent_bytes(0x1000, 0x1000, smaps) == 0
    assert transparent_bytes(0x200000, 1, tmp_path / "none") == 0


def test_how_many_pages() -> None:
    assert [pages_for(size) for size in (1, 2 << 20, (2 << 20) + 1, 32 << 20)] == [1, 1, 2, 16]


@pytest.mark.parametrize(
    "found, cause, fix",
    [
        (None, "no huge pages of 2 MiB", ""),
        (HugePages(0, 0), "16 huge pages of 2 MiB, and 0 of 0 are free (vm.nr_hugepages)", "sysctl vm.nr_hugepages=16"),
        (HugePages(20, 5), "16 huge pages of 2 MiB, and 5 of 20 are free", "sysctl vm.nr_hugepages=31"),
        (HugePages(20, 20), "control group", ""),
    ],
)
def test_why_there_are_too_few(found: HugePages | None, cause: str, fix: str) -> None:
    said, command = shortage(32 << 20, found)
    assert cause in said
    assert command == fix


def test_what_the_kernel_says_is_read(tmp_path: Path) -> None:
    assert huge_pages(tmp_path) is None
    for name, value in (("nr_hugepages", 9), ("free_hugepages", 7), ("resv_hugepages", 3)):
        (tmp_path / name).write_text(f"{value}\n")
    assert huge_pages(tmp_path) == HugePages(9, 4)


# ---- with ----


@pytest.mark.root
def test_without_them(veth: MakeVeth) -> None:
    """ "auto" says why not, and goes on."""
    if free() >= 2:
        pytest.skip("this machine has huge pages")
    with opened(veth().near, huge_pages="auto") as stack:
        found = stack.info()["huge_pages"]
        assert (found["asked"], found["granted"]) == ("auto", False)
        assert "vm.nr_hugepages" in found["why"]


@pytest.mark.skipif(transparent_mode() == "never", reason="this kernel was told not to have them")
def test_frames_lie_on_transparent_ones() -> None:
    """They are asked for, from where a huge page can begin. A kernel whose memory is in pieces may have none to give."""
    core = Core(frames=4096)
    address = int(ffi.cast("uintptr_t", lib.xs_stack_umem(core.pointer)))
    assert address % (2 << 20) == 0
    assert "hg" in of_mapping(address, "VmFlags")
    assert 0 <= core.huge_pages_info()["transparent_bytes"] <= 8 << 20
    core.destroy()


@pytest.mark.root
@pytest.mark.usefixtures("four_pages")
@pytest.mark.parametrize("frames, pages", [(64, 1), (1024, 1), (2048, 2)])
def test_frames_lie_on_them_and_give_them_back(frames: int, pages: int) -> None:
    """A mapping of huge pages is as long as whole pages are, whatever the frames take of it."""
    before = free()
    core = Core(frames=frames, huge_pages=True)
    assert (core.huge_pages_asked, core.huge_pages, core.huge_pages_why) == (True, True, "")
    assert of_mapping(int(ffi.cast("uintptr_t", lib.xs_stack_umem(core.pointer))), "KernelPageSize") == ["2048", "kB"]
    assert free() == before - pages
    core.umem[-1] = 7
    core.destroy()
    assert free() == before


@pytest.mark.root
@pytest.mark.usefixtures("four_pages")
@pytest.mark.parametrize("asked", [True, "auto"])
def test_a_stack_on_them(veth: MakeVeth, asked: bool | str) -> None:
    pair = veth()
    with opened(pair.near, huge_pages=asked) as stack, stack.udp(OURS[0]) as sock:
        assert stack.info()["huge_pages"] == {"asked": asked, "granted": True, "why": "", "transparent_bytes": 0}
        sock.settimeout(PATIENCE)
        with kernel_udp(pair.far.netns, to=OURS[0]) as client:
            exchange(sock, client, bytes(1000))
