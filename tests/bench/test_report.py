"""What is told of figures: median, worst and best the right way round, percentiles, frames, tables."""

import io
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from xdpstack.bench import CASES, SUBJECTS, BenchError, Plan, Report, Setting, as_json, histograms, plots
from xdpstack.bench.cases import measure
from xdpstack.bench.peers import Need
from xdpstack.bench.results import Key, percentile, summary
from xdpstack.bench.runner import on_one_core
from xdpstack.bench.subjects import BY_NAME, Spot
from xdpstack.bench.table import tables
from xdpstack.bench.wire import End, Wire, datagram

KEY = Key("rx", 64, 1, "rings")
WIRE = Wire(End("a", "veth0", "02:00:00:00:00:01", "10.88.0.1"), End("b", "veth1", "02:00:00:00:00:02", "10.88.0.2"))


def test_best_is_most_of_packets_and_least_of_costs() -> None:
    rounds = [{"pps": 5.0, "cpu_ns_per_packet": 80.0}, {"pps": 9.0, "cpu_ns_per_packet": 70.0}, {"pps": 7.0}]
    rate, cost = summary(KEY, rounds)
    assert (rate.metric, rate.unit, rate.median, rate.worst, rate.best, rate.rounds) == ("pps", "packets/s", 7, 5, 9, 3)
    assert (cost.median, cost.worst, cost.best, cost.rounds) == (75, 80, 70, 2)


@pytest.mark.parametrize("share, expected", [(0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100), (0.0, 1), (0.501, 51)])
def test_percentiles_are_of_the_nearest_rank(share: float, expected: int) -> None:
    assert percentile(list(range(1, 101)), share) == expected


def test_a_single_sample_is_every_percentile() -> None:
    assert [percentile([7], share) for share in (0.0, 0.5, 0.999, 1.0)] == [7, 7, 7, 7]


@pytest.mark.parametrize("frame_bytes", [64, 65, 1518])
def test_the_frame_that_is_sent_is_a_valid_datagram(frame_bytes: int) -> None:
    sent = datagram(WIRE, frame_bytes, "10.88.0.1")
    assert len(sent) == frame_bytes - 4
    packet = Ether(sent)
    rebuilt = Ether(dst=packet.dst, src=packet.src) / IP(
        src=packet[IP].src, dst=packet[IP].dst, id=0, flags="DF", ttl=64
    )
    rebuilt = rebuilt / UDP(sport=1000, dport=9) / bytes(frame_bytes - 46)
    assert bytes(rebuilt) == sent


def test_the_report_names_what_is_missing_and_what_failed() -> None:
    report = Report({"nic": "veth0"}, {KEY: [{"pps": 250_000.0, "drops_HOOK": 3.0}]})
    report.missing["scapy"] = "pip install 'xdpstack[bench]'"
    report.failed[Key("echo", 64, 1, "rings")] = "ended [by itself]"
    console = Console(file=(out := io.StringIO()), width=200)
    for each in tables(report):
        console.print(each)
    text = out.getvalue()
    for words in ("rings", "250k", "HOOK 3", "pip install 'xdpstack[bench]'", "ended [by itself]"):
        assert words in text
    told = as_json(report)
    assert told["environment"]["missing"] == report.missing
    assert [line["metric"] for line in told["results"]] == ["pps", "drops_HOOK"]


def test_every_subject_has_a_command_in_each_of_its_cases(tmp_path: Path) -> None:
    spot = Spot("veth0", "10.88.0.1", "10.88.0.2", 9, 1, 2048, 64, 18, 1, "/count", "/frame", str(tmp_path), "veth2")
    for subject in SUBJECTS:
        assert set(subject.commands) <= set(CASES)
        assert all(all(isinstance(word, str) for word in command(spot)) for command in subject.commands.values())


def test_what_feeds_a_subject_can_share_its_core() -> None:
    apart = Setting(subject_cpu=3, far_cpus=(0, 1))
    assert on_one_core("rx", WIRE, apart, instructions_only=True) == ("rx", apart)
    with pytest.raises(BenchError, match="core of its own"):
        on_one_core("rx-one-core", Wire(WIRE.near, None), apart, instructions_only=False)
    assert on_one_core("rx-one-core", WIRE, apart, instructions_only=False) == ("rx", replace(apart, far_cpus=(3,)))
    with pytest.raises(BenchError, match="is about time"):
        on_one_core("rx-one-core", WIRE, apart, instructions_only=True)
    assert {case for case in CASES if BY_NAME["xdpstack-udp"].can(case)} == {"rx", "rx-one-core"}


def test_sizes_are_those_of_rfc2544_where_it_is_followed_and_what_each_subject_takes() -> None:
    sizes = [(key.case, key.frame_bytes) for key in Plan(("rx", "rfc2544"), ("rings",)).wanted()]
    assert sizes == [("rx", 64), *(("rfc2544", size) for size in (64, 128, 256, 512, 1024, 1280, 1518))]
    jumbo = Plan(("rx",), ("rings", "testpmd-af_xdp"), (64, 9018)).wanted()
    assert [(key.frame_bytes, key.subject) for key in jumbo] == [(64, "rings"), (64, "testpmd-af_xdp"), (9018, "rings")]


def test_about_how_long_it_takes_is_known_before() -> None:
    plan = Plan(("rx", "rfc2544"), ("rings",), (64,), rounds=3, setting=Setting(seconds=2, settle=0.5))
    assert plan.seconds() == 3 * (1 + 7) * (2 + 0.5 + 1.5)


def test_a_frame_is_no_larger_than_the_mtu(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="veth0 has an MTU of 1500: frames of 1518 bytes at most"):
        measure("rx", BY_NAME["rings"], WIRE, Setting(frame_bytes=1519), tmp_path)


def test_subjects_that_are_alike_run_when_they_are_asked_for() -> None:
    assert "xdpstack-recvfrom" not in {key.subject for key in Plan(("rx",)).wanted()}
    assert [key.subject for key in Plan(("rx",), ("xdpstack-recvfrom",)).wanted()] == ["xdpstack-recvfrom"]


@pytest.fixture
def report() -> Report:
    keys = [Key("rx", size, queues, name) for size in (64, 1518) for queues in (1, 2) for name in ("rings", "scapy")]
    figures = {key: [{"pps": 1e5, "cpu_ns_per_packet": 90.0}, {"pps": 2e5, "cpu_ns_per_packet": 80.0}] for key in keys}
    round_trips = Key("latency", 64, 1, "rings")
    figures[round_trips] = [{"pps": 1e4, "cpu_ns_per_packet": 900.0}]
    return Report({}, figures, {round_trips: [9000, 10000, 11000, 250000]})


def test_plots_are_drawn_as_png_and_svg(report: Report, tmp_path: Path) -> None:
    names = {path.name for path in plots.draw(report, tmp_path)}
    drawn = ("rx-rate", "rx-cost", "latency-cost", "latency")
    assert names == {f"{name}.{ending}" for name in drawn for ending in ("png", "svg")}
    assert all((tmp_path / name).stat().st_size > 1000 for name in names)


def test_histograms_have_all_round_trips(report: Report, tmp_path: Path) -> None:
    (path,) = histograms.write(report, tmp_path)
    text = path.read_text()
    assert re.search(r"TotalCount *= *4\b", text)
    assert "250.1" in text


def test_the_json_has_all_round_trips_too(report: Report) -> None:
    (found,) = as_json(report)["histograms"]
    assert (found["case"], found["subject"], found["unit"]) == ("latency", "rings", "ns")
    assert found["buckets"] == [(9007, 1), (10007, 1), (11007, 1), (250111, 1)]


def test_buckets_are_those_of_an_hdr_histogram() -> None:
    hdrh = pytest.importorskip("hdrh.histogram", reason="pip install 'xdpstack[bench]'")
    samples = [1, 2, 2047, 2048, 2049, 4095, 4096, 10_000, 123_456, 99_999_999, 2**32 - 1]
    histogram = hdrh.HdrHistogram(1, 2**32, 3)
    for sample in samples:
        histogram.record_value(sample)
    recorded = [
        (item.value_iterated_to, item.count_added_in_this_iter_step) for item in histogram.get_recorded_iterator()
    ]
    assert histograms.buckets(samples) == recorded


@pytest.mark.parametrize("module, needed", [(plots, "PLOTS"), (histograms, "HISTOGRAMS")])
def test_what_pictures_need_is_named(module: ModuleType, needed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, needed, Need("pip install it", module="no_such_module"))
    with pytest.raises(BenchError, match="pip install it"):
        module.require()
