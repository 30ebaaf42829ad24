"""`xdpstack replay` on a small capture."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.utils import wrpcap

from xdpstack.cli.replay import replay

TO = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:99")


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "some.pcap"
    ours = TO / IP(src="10.0.0.2", dst="10.0.0.1") / UDP(sport=1, dport=53) / b"hello"
    wrong = TO / IP(src="10.0.0.2", dst="10.0.0.1", chksum=5) / UDP(sport=1, dport=53)
    wrpcap(str(path), [ours, wrong, Ether(dst="ff:ff:ff:ff:ff:ff") / ARP()])
    return path


def test_each_packet_has_its_way_and_its_end(capture: Path) -> None:
    done = CliRunner().invoke(replay, [str(capture), "--address", "10.0.0.1/24", "--socket", "10.0.0.1:53"])
    assert done.exit_code == 0, done.output
    ways = [line.strip() for line in done.output.splitlines() if " > ip.rx" in line]
    assert ways == [
        "napi.rx > ip.rx > routing.rx > ip.local > udp.rx > kept by udp.rx",
        "napi.rx > ip.rx > dropped: IP_CSUM",
        "napi.rx > ip.rx > dropped: UNHANDLED_PROTO",
    ]


def test_json(capture: Path) -> None:
    done = CliRunner().invoke(replay, [str(capture), "--json", "--address", "10.0.0.1/24"])
    ends = [json.loads(line)["walk"][0]["end"] for line in done.output.splitlines()]
    assert ends == ["dropped: NO_SOCKET", "dropped: IP_CSUM", "dropped: UNHANDLED_PROTO"]


def test_what_is_no_capture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("no capture at all, but long enough for a header")
    done = CliRunner().invoke(replay, [str(path)])
    assert done.exit_code == 1
    assert "is not a capture" in done.output


def test_a_socket_without_a_port_is_refused(capture: Path) -> None:
    done = CliRunner().invoke(replay, [str(capture), "--socket", "10.0.0.1"])
    assert done.exit_code == 1
    assert "ADDRESS:PORT" in done.output
