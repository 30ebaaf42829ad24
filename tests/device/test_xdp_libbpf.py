"""BPF objects: what libbpf and the verifier say reaches the exception; maps hold what was written."""

import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from xdpstack.device.libbpf import BpfObject
from xdpstack.errors import TableFull, VerifierError, XdpstackError

pytestmark = pytest.mark.root

READS_PAST_THE_END = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int careless(struct xdp_md *context) { return *(unsigned char *)(long)context->data; }
char _license[] SEC("license") = "GPL";
"""

TABLES = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct {
    __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1); __type(key, int); __type(value, long);
} a_hash SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, int); __type(value, int);
} per_cpu SEC(".maps");
const volatile int verdict = 0;
SEC("xdp") int pass(struct xdp_md *context) {
    int zero = 0;
    return bpf_map_lookup_elem(&a_hash, &zero) && bpf_map_lookup_elem(&per_cpu, &zero) ? 1 : verdict;
}
char _license[] SEC("license") = "GPL";
"""


def compiled(source: str, folder: Path) -> bytes:
    clang = shutil.which("clang")
    assert clang, "the tests of the XDP program need clang, as building it does"
    out = folder / "object.o"
    include = f"/usr/include/{subprocess.check_output(['uname', '-m'], text=True).strip()}-linux-gnu"
    command = [clang, "-O2", "-g", "-target", "bpf", "-I", include, "-x", "c", "-", "-c", "-o", str(out)]
    subprocess.run(command, input=source, text=True, check=True)
    return out.read_bytes()


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[BpfObject]:
    with BpfObject("tables", compiled(TABLES, tmp_path)) as loaded:
        loaded.maps["a_hash"].set_max_entries(100)
        loaded.set_read_only(struct.pack("=i", 2))
        loaded.load("pass")
        yield loaded


def key(number: int) -> bytes:
    return struct.pack("=i", number)


def value(number: int) -> bytes:
    return struct.pack("=q", number)


def test_a_refused_program_comes_with_the_verifiers_log(tmp_path: Path) -> None:
    with BpfObject("careless", compiled(READS_PAST_THE_END, tmp_path)) as careless:
        with pytest.raises(VerifierError, match="refused the BPF program careless") as raised:
            careless.load("careless")
        assert "invalid access to packet" in raised.value.log
        assert raised.value.cause == "The verifier's last words: R1 offset is outside of the packet"


def test_what_is_no_object_is_named_with_what_libbpf_says() -> None:
    with pytest.raises(XdpstackError, match="rubbish: not a BPF object"):
        BpfObject("rubbish", b"\x7fELF" + bytes(100))


def test_entries_are_written_in_bulk_and_read_back(tables: BpfObject) -> None:
    table = tables.maps["a_hash"]
    table.update({key(number): value(number) for number in range(50)})
    assert set(table.keys()) == {key(number) for number in range(50)}
    assert table.lookup(key(49)) == value(49)
    assert table.lookup(key(50)) is None
    table.delete([key(49), key(50)])
    assert table.lookup(key(49)) is None
    table.update({})


def test_a_full_table_is_named_with_its_size(tables: BpfObject) -> None:
    table = tables.maps["a_hash"]
    with pytest.raises(TableFull, match="a_hash has room for 100 entries"):
        table.update({key(number): value(number) for number in range(101)})
    with pytest.raises(TableFull):
        table.update({key(200): value(200)})


def test_values_per_cpu_are_as_many_as_possible_cpus(tables: BpfObject) -> None:
    possible = Path("/sys/devices/system/cpu/possible").read_text().strip()
    assert possible.startswith("0")
    count = int(possible.partition("-")[2] or 0) + 1
    assert tables.maps["per_cpu"].lookup_per_cpu(key(0)) == [bytes(4)] * count


def test_keys_and_values_of_another_size_do_not_reach_the_kernel(tables: BpfObject) -> None:
    table = tables.maps["a_hash"]
    with pytest.raises(ValueError, match="keys of a_hash have 4 bytes, not 3"):
        table.lookup(b"abc")
    with pytest.raises(ValueError, match="values of a_hash have 8 bytes, not 4"):
        table.update({key(1): bytes(4)})
