"""One guest: started, watched, ended. It has two NICs of one model, wired back to back inside QEMU or on a bridge.

QEMU runs in an empty network namespace, so that no frame leaves it. It emulates the CPU unless XDPSTACK_NIC_ACCEL says kvm:
slow, and the same everywhere.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.nic_lab import initramfs
from tools.nic_lab.guest import MACS
from tools.nic_lab.models import CPUS, Model
from tools.nic_lab.packages import Cache

GUEST = Path(__file__).with_name("guest.py")
MEMORY_MIB = 2048
#: What of our own environment the command has as well.
ENVIRONMENT = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "HOME", "LANG", "PYTEST_DISABLE_PLUGIN_AUTOLOAD")
#: What is mounted at /nic-lab in the guest, for whoever runs there.
MOUNTED = "/nic-lab"
#: What the lab itself puts there.
OWN_FILES = ("guest.py", "settings.json", "status", "kernel.log", "qemu.log")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the command ended: its exit status, None if there is none, and why; and the files that it left in /nic-lab."""

    status: int | None
    failure: str = ""
    files: dict[str, bytes] = field(default_factory=dict)


def run(cache: Cache, model: Model, command: Sequence[str], seconds: float, verbose: bool = False) -> Outcome:
    """Run a command as root in a guest with two NICs of the model, in the current folder; its output is ours.

    The guest is ended after `seconds`. Raises LabError when it cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="nic-lab-") as name:
        exchange = Path(name)
        shutil.copy(GUEST, exchange / "guest.py")
        environment = {key: os.environ[key] for key in ENVIRONMENT if key in os.environ}
        settings = {
            "command": list(command),
            "folder": str(Path.cwd()),
            "environment": {**environment, "XDPSTACK_NIC_MODEL": model.name, "XDPSTACK_NIC_FOLDER": MOUNTED},
            "used": model.used,
        }
        (exchange / "settings.json").write_text(json.dumps(settings))
        log = exchange / "kernel.log"
        words = qemu(cache, model, exchange, log, verbose)
        with (exchange / "qemu.log").open("wb") as errors:
            # Its input stays open and silent: at its end QEMU would close the guest's output as well.
            modules = {"QEMU_MODULE_DIR": str(cache.qemu / "usr/lib/x86_64-linux-gnu/qemu")}
            own = {key: value for key, value in os.environ.items() if not key.startswith("LD_")} | modules
            guest = subprocess.Popen(alone(model, words), stdin=subprocess.PIPE, stderr=errors, env=own)
            try:
                guest.wait(seconds)
            except subprocess.TimeoutExpired:
                said = (exchange / "qemu.log").read_text(errors="replace")
                return Outcome(None, f"it was ended after {seconds:.0f} s{said}{last_lines(log)}")
            finally:
                if guest.poll() is None:
                    guest.kill()
                guest.communicate()
        if verbose:
            print(log.read_text(errors="replace"), file=sys.stderr)
        files = {path.name: path.read_bytes() for path in exchange.iterdir() if path.is_file()}
        if "status" not in files:
            said = files["qemu.log"].decode(errors="replace").strip()
            return Outcome(None, f"the guest gave no status; QEMU: {said or guest.returncode}{last_lines(log)}", files)
        return Outcome(int(files["status"]), "", files)


def last_lines(log: Path) -> str:
    """The end of the kernel's log, for a message."""
    lines = log.read_text(errors="replace").splitlines()[-15:] if log.exists() else []
    return "".join(f"\n  {line}" for line in lines)


def qemu(cache: Cache, model: Model, exchange: Path, log: Path, verbose: bool) -> list[str]:
    """QEMU's command line."""
    libraries = cache.qemu / "usr/lib/x86_64-linux-gnu"
    share = cache.qemu / "usr/share"
    cpus, clock = instruction_clock() if model.instruction_clock else wall_clock()
    kernel_words = f"console=ttyS0 panic=-1 mitigations=off apparmor=0 audit=0 random.trust_cpu=on {clock}"
    words: list[object] = [
        *(libraries / "ld-linux-x86-64.so.2", "--library-path", libraries, cache.qemu / "usr/bin/qemu-system-x86_64"),
        *("-L", share / "qemu", "-L", share / "seabios"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-M", "q35,usb=off,sata=off,smbus=off,vmport=off"),
        *(*cpus, "-m", MEMORY_MIB),
        *("-kernel", cache.vmlinuz, "-initrd", initramfs.make(cache, model.driver, sys.executable)),
        *("-append", f"{kernel_words} {'loglevel=7' if verbose else 'quiet'}"),
        *("-chardev", f"file,id=log,path={log}", "-serial", "chardev:log"),
        *("-device", "virtio-serial-pci", "-chardev", "stdio,id=terminal,signal=off"),
        *("-device", "virtserialport,chardev=terminal,name=terminal"),
        *folder("root", Path("/"), ",readonly=on,multidevs=remap"),
        *folder("exchange", exchange, ""),
    ]
    for i, mac in enumerate(MACS if model.device else ()):
        wire = f"hubport,hubid=1,id=n{i}"
        if model.pairs > 1:  # only a tap has several queues
            wire = f"tap,id=n{i},ifname=tap{i},script=no,downscript=no,queues={model.pairs}"
        words += ["-netdev", wire, "-device", f"pcie-root-port,id=port{i},chassis={i + 1},slot={i + 1}"]
        words += ["-device", f"{model.device},bus=port{i},netdev=n{i},mac={mac}"]
    return [str(word) for word in words]


def wall_clock() -> tuple[list[object], str]:
    """The CPUs as fast as they go; words for QEMU and for the kernel.

    A CPU that is emulated on a busy host measures its time stamp counter wrong, and the guest's clock then runs many
    times too fast: it has to ask a device for the time.
    """
    accelerator = os.environ.get("XDPSTACK_NIC_ACCEL") or "tcg,thread=multi"
    return ["-accel", accelerator, "-cpu", "max", "-smp", CPUS], "clocksource=hpet tsc=unstable"


def instruction_clock() -> tuple[list[object], str]:
    """One CPU, whose time stamp counter is the number of instructions that it has executed; words for QEMU and the kernel.

    While it idles the clock goes on with the time. Copying is done by instructions that copy a word or a register, not by
    one that copies all and is counted for each byte (erms, fsrm). `noirqtime`: what interrupts and softirqs take is
    the thread's that they come in, as for a hardware counter.
    """
    cpu = "max,-erms,-fsrm,-fzrm,-fsrs,-fsrc"
    words: list[object] = ["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=on", "-cpu", cpu, "-smp", 1]
    return words, "clocksource=tsc tsc=reliable tsc=noirqtime tsc_early_khz=1000000"


def folder(tag: str, path: Path, options: str) -> list[str]:
    """A folder of the host's for the guest to mount."""
    return [
        *("-fsdev", f"local,id={tag},path={path},security_model=none{options}"),
        *("-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
    ]


def alone(model: Model, words: Sequence[str]) -> list[str]:
    """The command in a network namespace of its own; with several queues, two taps on a bridge in it."""
    script = "exec " + shlex.join(words)
    if model.pairs > 1:
        steps = [
            "sysctl -qw net.ipv6.conf.default.disable_ipv6=1",
            "ip link add br0 type bridge stp_state 0 mcast_snooping 0",
            "ip link set br0 up",
        ]
        for i in range(len(MACS)):
            steps += [f"ip tuntap add tap{i} mode tap multi_queue", f"ip link set tap{i} master br0 up"]
        script = " && ".join([*steps, script])
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *as_root, "--net", "--", "sh", "-c", script]
