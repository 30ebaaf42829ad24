"""The doctor on real devices: each finding where there is cause, none where there is not; nothing is changed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from tests.device.harness import Harness
from tests.device.test_device import holder
from xdpstack.cli.doctor import doctor
from xdpstack.device import doctor_interface, privileges, session
from xdpstack.device.doctor import Report, examine
from xdpstack.device.finding import Finding, Level
from xdpstack.device.interface import kernel_version
from xdpstack.errors import XdpstackError
from xdpstack.netlink import Link, Snapshot
from xdpstack.testing.namespace import Namespace
from xdpstack.testing.veth import Veth

MakeNetns, MakeVeth = Callable[..., Namespace], Callable[..., Veth]
root = pytest.mark.root


def about(report: Report, subject: str, *levels: Level) -> list[Finding]:
    return [each for each in report.findings if each.subject == subject and (not levels or each.level in levels)]


def texts(findings: list[Finding]) -> str:
    return "\n".join(" | ".join((each.what, each.cause, each.fix, each.command)) for each in findings)


@root
def test_a_plain_veth_will_run(veth: MakeVeth) -> None:
    pair = veth(queues=2)
    before = pair.near.link()
    report = examine("near0", netns=pair.near.netns.name)
    assert report.runs
    assert not [each for each in report.findings if each.level is Level.ERROR]
    subjects = {"kernel", "privileges", "memory", "interface", "driver", "queues", "MTU", "offloads", "XDP program"}
    assert {each.subject for each in report.findings} >= subjects | {"program", "SSH", "firewall"}
    assert "veth: native XDP" in texts(about(report, "driver"))
    assert "The driver of near0 has no zero-copy." in texts(about(report, "driver"))
    assert "whose other end has index" in texts(about(report, "driver", Level.NOTE))
    assert "2 active" in texts(about(report, "queues"))
    assert "checksums may come partial" in texts(about(report, "offloads"))
    assert "tx-vlan-hw-insert off" in texts(about(report, "offloads", Level.WARNING))
    after = pair.near.link()
    assert {key: value for key, value in before.items() if "stats" not in key} == {
        key: value for key, value in after.items() if "stats" not in key
    }


@root
def test_failed_redirects_that_would_not_be_counted(veth: MakeVeth, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = veth()
    report = examine("near0", netns=pair.near.netns.name)
    assert texts(about(report, "redirects", Level.OK)).startswith("those that fail can be counted")
    held = privileges.effective() - {"CAP_PERFMON"}
    monkeypatch.setattr(privileges, "effective", lambda: held)
    report = examine("near0", netns=pair.near.netns.name)
    assert report.runs
    assert "CAP_PERFMON" in texts(about(report, "redirects", Level.NOTE))


@root
def test_every_problem_has_a_cause_or_a_fix(veth: MakeVeth) -> None:
    pair = veth(mtu=9000)
    report = examine("near0", netns=pair.near.netns.name, mode="generic")
    for finding in report.findings:
        if finding.level in (Level.WARNING, Level.ERROR):
            assert finding.cause
            assert finding.fix or finding.command


@root
def test_there_is_no_such_interface(netns: MakeNetns) -> None:
    report = examine("nothere", netns=netns().name)
    assert not report.runs
    assert "This network namespace has: lo." in texts(about(report, "interface", Level.ERROR))


@root
def test_there_is_no_such_namespace() -> None:
    with pytest.raises(XdpstackError, match="nothere"):
        examine("lo", netns="nothere")


@root
def test_down(veth: MakeVeth) -> None:
    pair = veth()
    pair.near.netns.ip("link set near0 down")
    report = examine("near0", netns=pair.near.netns.name)
    assert not report.runs
    [finding] = about(report, "interface", Level.ERROR)
    assert finding.command == "ip link set near0 up"


@root
def test_no_carrier(veth: MakeVeth) -> None:
    pair = veth()
    pair.far.netns.ip("link set far0 down")
    report = examine("near0", netns=pair.near.netns.name)
    assert report.runs
    assert "no carrier" in texts(about(report, "interface", Level.WARNING))


@root
def test_in_a_bridge(veth: MakeVeth) -> None:
    pair = veth(near=())
    pair.near.netns.ip("link add br0 type bridge", "link set near0 master br0", "link set br0 up")
    report = examine("near0", netns=pair.near.netns.name)
    assert "ip link set near0 nomaster" in texts(about(report, "interface", Level.WARNING))
    report = examine("br0", netns=pair.near.netns.name)
    assert "bridge has no native XDP" in texts(about(report, "driver", Level.WARNING))
    assert not examine("br0", netns=pair.near.netns.name, mode="native").runs


@root
def test_another_program(veth: MakeVeth) -> None:
    pair = veth()
    with Harness() as harness:
        harness.attach(pair.near)
        report = examine("near0", netns=pair.near.netns.name)
        assert not report.runs
        [finding] = about(report, "XDP program", Level.ERROR)
        assert "redirect_all" in finding.what
        assert finding.command.startswith("bpftool link detach id ")
    assert examine("near0", netns=pair.near.netns.name).runs


@root
def test_a_queue_that_somebody_has(veth: MakeVeth) -> None:
    """That it is taken is told from Linux 6.13 on; by whom exactly, if there is CONFIG_XDP_SOCKETS_DIAG."""
    pair = veth(queues=2)
    with holder(pair.near) as process:
        report = examine("near0", netns=pair.near.netns.name)
        found = about(report, "queues", Level.ERROR, Level.NOTE)
        assert f"(pid {process.pid})" in texts(found)
        if kernel_version() >= (6, 13):
            assert not report.runs
            assert [each.what for each in found] == ["queue 0 has an AF_XDP socket already"]


@root
def test_large_mtu(veth: MakeVeth) -> None:
    pair = veth(mtu=9000)
    report = examine("near0", netns=pair.near.netns.name)
    assert report.runs
    assert "9000: packets come over several frames of 2048 bytes" in texts(about(report, "MTU", Level.NOTE))
    assert "up to 3822" in texts(about(report, "MTU"))
    report = examine("near0", netns=pair.near.netns.name, frame_bytes=4096)
    assert "several frames of 4096 bytes" in texts(about(report, "MTU", Level.NOTE))


def test_large_mtu_on_an_old_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_interface, "kernel_version", lambda: (6, 1))
    [finding] = doctor_interface.mtu_findings(Link(7, "eth7", mtu=9000), 2048)
    assert finding.level is Level.ERROR
    assert finding.command == "ip link set eth7 mtu 1774"
    [finding] = doctor_interface.mtu_findings(Link(7, "eth7", mtu=1774), 2048)
    assert finding.level is Level.OK


@root
def test_merging_in_generic_mode(veth: MakeVeth) -> None:
    pair = veth(offloads=("gro on",))
    netns = pair.near.netns.name
    found = about(examine("near0", netns=netns, mode="generic"), "offloads", Level.WARNING)
    assert "ethtool -K near0 rx-gro off" in texts(found)
    assert "rx-gro" not in texts(about(examine("near0", netns=netns), "offloads"))
    pair.near.ethtool("-K", "rx-gro", "off")
    assert "rx-gro" not in texts(about(examine("near0", netns=netns, mode="generic"), "offloads"))


@root
def test_memory_that_cannot_be_had() -> None:
    assert not examine("lo", frames=1 << 40).runs


@root
def test_rules_that_would_have_dropped(veth: MakeVeth) -> None:
    pair = veth()
    netns = pair.near.netns
    netns.run("nft", "add table inet t; add chain inet t in { type filter hook input priority 0; }")
    netns.run("nft", "add rule inet t in udp dport 5353 drop")
    assert "inet t in: udp dport 5353 drop" in texts(about(examine("near0", netns=netns.name, port=5353), "firewall"))
    assert about(examine("near0", netns=netns.name, port=53), "firewall")[0].level is Level.OK


@root
def test_missing_privileges() -> None:
    caps = "-net_raw,-bpf,-sys_admin,-ipc_lock"
    words = ["prlimit", "--memlock=8388608", "setpriv", f"--bounding-set={caps}", f"--inh-caps={caps}", sys.executable]
    done = subprocess.run(
        [*words, "-m", "xdpstack", "doctor", "lo", "--json"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert not report["runs"]
    errors = {each["what"] for each in report["findings"] if each["level"] == "error"}
    assert errors >= {"CAP_NET_RAW is missing", "CAP_BPF is missing", "8 MiB may be locked, and the frames take 32 MiB"}
    assert "CAP_NET_ADMIN is missing" not in errors


# ---- the command ----


@root
def test_exit_status_and_table(veth: MakeVeth) -> None:
    pair = veth()
    netns = pair.near.netns.name
    result = CliRunner().invoke(doctor, ["near0", "--netns", netns])
    assert result.exit_code == 0
    assert result.output.endswith("near0: will run\n")
    result = CliRunner().invoke(doctor, ["near1", "--netns", netns])
    assert result.exit_code == 1
    assert result.output.endswith("near1: will not run\n")


@root
def test_json(veth: MakeVeth) -> None:
    pair = veth()
    result = CliRunner().invoke(doctor, ["near0", "--netns", pair.near.netns.name, "--json"])
    shown = json.loads(result.output)
    assert shown["interface"] == "near0"
    assert shown["runs"] is True
    assert {"level", "subject", "what", "cause", "fix", "command"} == set(shown["findings"][0])


# ---- SSH ----


def test_addresses_of_proc_net() -> None:
    assert session.endpoint("0100007F:0016") == ("127.0.0.1", 22)
    assert session.endpoint("00000000000000000000000001000000:1F90") == ("::1", 8080)
    assert session.endpoint("0000000000000000FFFF00000100000A:0016") == ("10.0.0.1", 22)


def test_the_connection_of_this_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "fe80::5%eth0 50000 ::ffff:10.0.0.1 22")
    assert session.connection() == ("fe80::5", "10.0.0.1")


def test_the_connection_is_found_below_sudo() -> None:
    """sudo takes the variable away; a parent still has it."""
    code = "from xdpstack.device.session import connection; print(connection())"
    inner = [sys.executable, "-c", code]
    outer = f"import os, subprocess; os.environ.pop('SSH_CONNECTION'); subprocess.run({inner!r})"
    environment = {**os.environ, "SSH_CONNECTION": "192.0.2.9 50000 192.0.2.1 22"}
    done = subprocess.run(
        [sys.executable, "-c", outer], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "('192.0.2.9', '192.0.2.1')\n"


def test_a_session_belongs_to_the_interface_with_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    from xdpstack.netlink import Address

    links = [Link(2, "eth0"), Link(3, "eth1")]
    snapshot = Snapshot.build(links, [Address.parse("192.0.2.1/24", 2), Address.parse("198.51.100.1/24", 3)])
    monkeypatch.setattr(session, "connection", lambda: ("192.0.2.9", "192.0.2.1"))
    monkeypatch.setattr(session, "established", lambda ports: [("192.0.2.9", "192.0.2.1"), ("192.0.2.8", "192.0.2.1")])
    assert session.sessions_through(links[0], snapshot) == {"this SSH session", "an SSH session from 192.0.2.8"}
    assert session.sessions_through(links[1], snapshot) == set()


@root
def test_a_session_is_seen(veth: MakeVeth) -> None:
    pair = veth()

    def serve() -> socket.socket:
        server = socket.socket()
        server.bind((pair.near.address, 22))
        server.listen()
        return server

    with pair.near.netns.call(serve) as server:
        client = pair.far.netns.call(lambda: socket.create_connection((pair.near.address, 22)))
        accepted, _ = server.accept()
        with client, accepted:
            found = about(examine("near0", netns=pair.near.netns.name), "SSH")
            assert f"an SSH session from {pair.far.address} comes in on near0" in texts(found)
            assert "SSH, ARP and ND stay with the kernel" in texts(found)
        assert about(examine("near0", netns=pair.near.netns.name), "SSH")[0].level in (Level.OK, Level.NOTE)
