"""Tuning on the real kernel: veth's queues, features and NAPI deferral; undone on close, and after a kill -9."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import xdpstack
from tests.device import tuned_child
from tests.device.harness import Harness
from xdpstack.cli.doctor import doctor
from xdpstack.device.doctor import examine
from xdpstack.device.ethtool import channels, offloads
from xdpstack.device.sysfs import class_net
from xdpstack.device.tuning import journal
from xdpstack.device.tuning.journal import Journal, journals
from xdpstack.device.tuning.knobs import knob
from xdpstack.device.xdp import XdpProgram
from xdpstack.errors import ConfigurationError, ModeRefused, ProgramAttached, TuningRefused
from xdpstack.testing.namespace import Namespace
from xdpstack.testing.veth import End, Veth

pytestmark = pytest.mark.root
MakeNetns, MakeVeth = Callable[..., Namespace], Callable[..., Veth]
TUNED = {"channels": 2, "napi_defer_hard_irqs": 2, "gro_flush_timeout_ns": 200_000}
BEFORE = (4, 0, 0, True)


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for journals, of this process and of those that it starts."""
    monkeypatch.setenv("XDPSTACK_RUN", str(tmp_path))
    monkeypatch.setattr(journal, "DIRECTORY", tmp_path)
    return tmp_path


def few(pair: Veth) -> Veth:
    """With two transmit queues at the far end: veth has no native XDP with fewer receive queues than that."""
    pair.far.ethtool("-L", "rx", "4", "tx", "2")
    return pair


def state(end: End) -> tuple[int, object, object, bool]:
    """Receive queues, napi_defer_hard_irqs, gro_flush_timeout, and whether GRO is on."""

    def look() -> tuple[int, object, object, bool]:
        found, features = channels(end.name), offloads(end.name)
        assert found is not None
        assert features is not None
        files = [knob(end.name, name).read() for name in ("napi_defer_hard_irqs", "gro_flush_timeout")]
        return found.rx, files[0], files[1], features["rx-gro"].on

    return end.netns.call(look)


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_tuned_and_put_back(mode: xdpstack.stack.Mode, veth: MakeVeth) -> None:
    """In generic mode GRO is switched off without being asked for, and on again."""
    pair = few(veth(queues=4, offloads=["gro on"]))
    assert state(pair.near) == BEFORE
    with xdpstack.open(
        "near0", netns=pair.near.netns.name, mode=mode, frames=1024, tune=xdpstack.Tuning(**TUNED)
    ) as stack:
        assert state(pair.near) == (2, 2, 200_000, mode == "native")
        [device] = stack.info()["devices"]
        assert device["queues"] == (0, 1)
        assert device["tuned"]["channels"] == {"asked": [2, 2, 0], "granted": [2, 2, 0], "before": [4, 4, 0]}
        assert device["tuned"]["gro_flush_timeout"] == {"asked": 200_000, "granted": 200_000, "before": 0}
        assert ("feature rx-gro" in device["tuned"]) == (mode == "generic")
        assert stack.info()["asked"]["tune"] == {**TUNED, "merging": "auto"}
        if mode == "generic":
            assert "ethtool -K PEER" in device["why"]["merging"]
        [written] = journals()
        assert written.owner.alive
        found = [
            each.what for each in examine("near0", netns=pair.near.netns.name).findings if each.subject == "tuning"
        ]
        assert f"process {os.getpid()} has tuned near0, until it ends: " in found[0]
        assert "channels: [4, 4, 0] -> [2, 2, 0]" in found[0]
    assert state(pair.near) == BEFORE
    assert journals() == []


def test_more_queues_than_were_active(veth: MakeVeth) -> None:
    """Those that are made active are bound, and put back when their sockets are gone."""
    pair = veth(queues=4)
    for end in pair.ends():
        end.ethtool("-L", "rx", "1", "tx", "4")
    with xdpstack.open("near0", netns=pair.near.netns.name, frames=1024, tune=xdpstack.Tuning(channels=4)) as stack:
        assert stack.devices[0].queues == (0, 1, 2, 3)
    assert state(pair.near)[0] == 1


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"tune": xdpstack.Tuning(channels=5)}, TuningRefused, "near0 cannot have 5 queues\nCause: It has 4 at most."),
        ({"tune": xdpstack.Tuning(nic_rx_ring=64)}, TuningRefused, "no ethtool -g"),
        ({"tune": xdpstack.Tuning(rss_weights=[1, 1])}, TuningRefused, "no ethtool -x"),
        ({"tune": xdpstack.Tuning(irq_cpus=[0])}, TuningRefused, "no interrupt of near0 is known"),
        ({"tune": xdpstack.Tuning(channels=2), "queues": [2]}, ConfigurationError, "near0 has no queue 2"),
        ({"queues": [4]}, ConfigurationError, "near0 has no queue 4\nCause: Active receive queues: 0, 1."),
        ({"rx_ring": 1000}, ConfigurationError, "rx_ring is 1000, which is no power of two"),
        ({"zero_copy": True}, ModeRefused, "The driver of near0 has no zero-copy"),
        ({"zero_copy": True, "mode": "generic"}, ModeRefused, "every frame is copied"),
    ],
)
def test_refused_before_anything_is_changed(
    options: dict[str, object], error: type[Exception], message: str, veth: MakeVeth, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = veth(queues=4, offloads=["gro on"])
    monkeypatch.setattr("xdpstack.device.xdp.XdpProgram.open", lambda *_, **__: pytest.fail("a program was loaded"))
    other = {"tune": xdpstack.Tuning(merging="off", **TUNED), **options}
    with pytest.raises(error, match=message):
        xdpstack.open("near0", netns=pair.near.netns.name, frames=1024, **other)
    assert state(pair.near) == BEFORE
    assert journals() == []


def test_a_driver_that_refuses_is_told_of_in_ethtools_words(veth: MakeVeth) -> None:
    pair = veth()
    with pytest.raises(TuningRefused, match="hash udp4 of near0 cannot be sdfn\nCause: The driver refuses it"):
        xdpstack.open("near0", netns=pair.near.netns.name, tune=xdpstack.Tuning(rss_fields={"udp4": "sdfn"}))


def test_a_veth_without_native_mode_says_whose_queues_are_in_the_way(veth: MakeVeth) -> None:
    pair = veth(queues=4)
    options = {"netns": pair.near.netns.name, "frames": 1024, "tune": xdpstack.Tuning(channels=2)}
    with xdpstack.open("near0", **options) as stack:
        assert stack.devices[0].mode == "generic"
        assert "ethtool -L PEER tx N" in stack.devices[0].why["mode"]
    with pytest.raises(ModeRefused, match="ethtool -L PEER tx N"):
        xdpstack.open("near0", mode="native", **options)


def test_refused_for_another_program_before_anything_is_changed(
    veth: MakeVeth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As attaching would say; who only sends has no program in the way."""
    pair = few(veth(queues=4))
    asked = {"netns": pair.near.netns.name, "frames": 1024, "tune": xdpstack.Tuning(channels=2)}
    with Harness() as harness:
        harness.attach(pair.near)
        with monkeypatch.context() as patched:
            patched.setattr("xdpstack.device.interface.Tuner.before_attach", lambda _: pytest.fail("it was tuned"))
            with pytest.raises(ProgramAttached, match="near0 has another XDP program: program redirect_all"):
                xdpstack.open("near0", **asked)
        with xdpstack.open("near0", transmit_only=True, queues=[1], **asked):
            assert state(pair.near)[0] == 2
    assert state(pair.near)[0] == 4


def test_all_is_undone_whatever_closing_the_program_raises(veth: MakeVeth, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = veth(queues=4)
    really = XdpProgram.close

    def close(program: XdpProgram) -> None:
        really(program)
        raise OSError("closing failed")

    stack = xdpstack.open("near0", netns=pair.near.netns.name, frames=1024, tune=xdpstack.Tuning(channels=2))
    monkeypatch.setattr(XdpProgram, "close", close)
    with pytest.raises(OSError, match="closing failed"):
        stack.close()
    assert state(pair.near)[0] == 4
    assert journals() == []
    assert stack._backend.interfaces[0].sockets == []


def test_one_of_two_that_cannot(netns: MakeNetns, veth: MakeVeth) -> None:
    """The first is not touched when the second cannot."""
    here = netns("here")
    one = veth(netns_near=here, queues=4).near
    here.ip("link add br0 type bridge", "link set br0 up")
    with pytest.raises(TuningRefused, match="the number of queues of br0 cannot be changed"):
        xdpstack.open(one.name, "br0", netns=here.name, frames=1024, tune=xdpstack.Tuning(channels=2))
    assert state(one)[0] == 4
    assert journals() == []


def test_what_the_driver_refuses_is_undone(veth: MakeVeth) -> None:
    """Here because the other end has a program, and fewer receive queues than this one would have to send."""
    pair = veth(queues=4, offloads=["gro on"])
    pair.near.ethtool("-L", "rx", "4", "tx", "1")
    pair.far.ethtool("-L", "rx", "1", "tx", "4")
    with Harness() as harness:
        harness.attach(pair.far)
        with pytest.raises(
            TuningRefused, match=r"channels of near0 cannot be .*\nCause: The driver refuses it: Invalid"
        ):
            xdpstack.open(
                "near0", netns=pair.near.netns.name, frames=1024, tune=xdpstack.Tuning(channels=4, merging="off")
            )
    assert state(pair.near) == BEFORE
    assert journals() == []
    assert not pair.near.has_xdp()


def killed(end: End) -> subprocess.Popen[str]:
    process = tuned_child.start(end, **TUNED)
    assert state(end)[:3] == (2, 2, 200_000)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert state(end)[:3] == (2, 2, 200_000)
    assert not end.has_xdp()  # the kernel has the traffic, not the queues
    return process


def test_the_doctor_undoes_after_a_kill(veth: MakeVeth) -> None:
    pair = few(veth(queues=4, offloads=["gro on"]))
    pid = killed(pair.near).pid
    findings = [each for each in examine("near0", netns=pair.near.netns.name).findings if each.subject == "tuning"]
    assert findings[0].command == "xdpstack doctor --undo near0"
    assert f"process {pid} has tuned near0, and was killed" in findings[0].what
    nothing = CliRunner().invoke(doctor, ["--undo", "other0"])
    assert (nothing.exit_code, nothing.output) == (0, "nothing to undo on other0\n")
    done = CliRunner().invoke(doctor, ["--undo", "near0"])
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "near0: gro_flush_timeout: restored: 200000 is 0 again",
        "near0: napi_defer_hard_irqs: restored: 2 is 0 again",
        "near0: channels: restored: [2, 2, 0] is [4, 4, 0] again",
    ]
    assert state(pair.near) == BEFORE
    assert journals() == []
    assert CliRunner().invoke(doctor, ["--undo"]).output == "nothing to undo\n"


def test_the_doctor_leaves_alone_what_was_changed_since(veth: MakeVeth) -> None:
    pair = veth(queues=4)
    killed(pair.near)
    pair.near.ethtool("-L", "rx", "3", "tx", "3")
    pair.near.netns.ip("link set near0 name renamed0")
    done = CliRunner().invoke(doctor, ["--undo", "--json"])
    outcomes = {each["knob"]: each for each in json.loads(done.output)}
    assert outcomes["channels"]["outcome"] == "left alone"
    assert "[3, 3, 0]: set to [2, 2, 0]" in outcomes["channels"]["text"]
    assert outcomes["gro_flush_timeout"]["outcome"] == "restored"
    assert outcomes["gro_flush_timeout"]["interface"] == "renamed0"
    assert journals() == []


def test_the_next_stack_undoes_after_a_kill(veth: MakeVeth) -> None:
    pair = veth(queues=4)
    killed(pair.near)
    with xdpstack.open("near0", netns=pair.near.netns.name, frames=1024) as stack:
        assert stack.devices[0].queues == (0, 1, 2, 3)
    assert state(pair.near)[:3] == BEFORE[:3]


def test_the_next_stack_undoes_before_it_looks_at_what_there_is(veth: MakeVeth) -> None:
    """A queue that the dead one took away is no reason to refuse it."""
    pair = veth(queues=4)
    killed(pair.near)
    with xdpstack.open("near0", netns=pair.near.netns.name, frames=1024, queues=[3]) as stack:
        assert stack.devices[0].queues == (3,)


def test_the_doctor_undoes_what_a_living_one_could_not(veth: MakeVeth, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = few(veth(queues=4))

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with (
        monkeypatch.context() as patched,
        xdpstack.open("near0", netns=pair.near.netns.name, frames=1024, tune=xdpstack.Tuning(channels=2)) as stack,
    ):
        patched.setattr("xdpstack.device.ethtool_set.set_channels", refuse)
        stack.close()
    assert state(pair.near)[0] == 2
    findings = [each for each in examine("near0", netns=pair.near.netns.name).findings if each.subject == "tuning"]
    assert f"process {os.getpid()} has tuned near0, and failed to put all of it back" in findings[0].what
    done = CliRunner().invoke(doctor, ["--undo", "near0"])
    assert (done.exit_code, done.output) == (0, "near0: channels: restored: [2, 2, 0] is [4, 4, 0] again\n")
    assert state(pair.near)[0] == 4
    assert journals() == []


def test_a_nic_that_is_not_where_it_was() -> None:
    """Moved to another namespace while its process was killed: what it had is not thrown away."""
    owner = journal.myself(0x7FFFFFFF, "moved0", physical=True)
    made = Journal.create(dataclasses.replace(owner, started=1))
    made.done(made.begin("rings", [256, 256], [512, 256]), [512, 256])
    done = CliRunner().invoke(doctor, ["--undo", "moved0"])
    assert done.exit_code == 1
    assert "moved0: rings: failed: the device is not in its network namespace any more" in done.output
    assert f"it had [256, 256]: put it back by hand, and remove {made.path}" in done.output
    assert len(journals()) == 1


def test_the_doctor_leaves_those_alone_that_live(veth: MakeVeth) -> None:
    pair = veth(queues=4)
    process = tuned_child.start(pair.near, **TUNED)
    assert CliRunner().invoke(doctor, ["--undo"]).output == "nothing to undo\n"
    assert state(pair.near)[0] == 2
    process.communicate(timeout=60)
    assert state(pair.near)[0] == 4


def test_an_interface_that_is_gone(netns: MakeNetns, veth: MakeVeth) -> None:
    """With its process killed, or while its stack is open; and with its whole namespace."""
    pair = veth(queues=4)
    killed(pair.near)
    pair.near.netns.ip("link delete near0")
    assert "the interface is gone" in CliRunner().invoke(doctor, ["--undo"]).output
    assert journals() == []
    here = netns("here")
    end = veth(netns_near=here, queues=4).near
    killed(end)
    here.delete()
    done = CliRunner().invoke(doctor, ["--undo", end.name])
    assert done.exit_code == 0
    assert "gone with its network namespace" in done.output
    assert journals() == []


def test_deleted_under_the_stack(veth: MakeVeth) -> None:
    pair = veth(queues=4)
    with xdpstack.open("near0", netns=pair.near.netns.name, frames=1024, tune=xdpstack.Tuning(channels=2)):
        assert len(journals()) == 1
        pair.near.netns.ip("link delete near0")
    assert journals() == []


def test_sysfs_of_the_namespace_is_written(veth: MakeVeth) -> None:
    pair = veth()

    def turn() -> None:
        knob("near0", "gro_flush_timeout").write(7)
        with class_net() as folder:
            assert (Path(f"/proc/self/fd/{folder}") / "near0/gro_flush_timeout").read_text() == "7\n"

    pair.near.netns.call(turn)
