"""QEMU and the guest's kernel: Debian packages, fetched by name and version, unpacked into a cache. Nothing is installed.

apt works on a state of its own beside the system's, with an empty dpkg status: the closure of QEMU comes complete whatever
the host has, and the host's packages are not touched. apt checks the archive's signature. Needs no root.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

#: What is fetched unless said otherwise. The guest is a newer Debian than the host may be.
QEMU = "1:10.0.13+ds-0+deb13u1"
KERNEL = "7.3.4+deb13-amd64"
SUITES = ("trixie", "trixie-backports")
MIRROR = "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
#: A kernel is one package up to Linux 6.16, and three later.
KERNEL_PACKAGES = ("linux-image", "linux-binary", "linux-modules")


class LabError(Exception):
    """The lab cannot be set up; a sentence for a person."""


class Cache:
    """The folder of all that was fetched: `XDPSTACK_NIC_LAB`, or ~/.cache/xdpstack/nic-lab."""

    def __init__(self, qemu: str = QEMU, kernel: str = KERNEL) -> None:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.folder = Path(os.environ.get("XDPSTACK_NIC_LAB") or home / "xdpstack/nic-lab").resolve()
        self.kernel_version = kernel
        self._qemu_version = qemu
        self._apt_folder = self.folder / "apt"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time fills the cache."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    # ---- what there is ----

    @property
    def qemu(self) -> Path:
        """Root of QEMU, its libraries and a static busybox."""
        return self.folder / f"qemu-{self._qemu_version.replace(':', '-')}"

    @property
    def kernel(self) -> Path:
        """Root of the kernel and its modules."""
        return self.folder / f"kernel-{self.kernel_version}"

    @property
    def vmlinuz(self) -> Path:
        """The kernel itself."""
        for pattern in ("boot/vmlinuz*", "usr/lib/modules/*/vmlinuz", "lib/modules/*/vmlinuz"):
            for found in self.kernel.glob(pattern):
                return found
        raise LabError(f"there is no vmlinuz in {self.kernel}; delete that folder and try again")

    def fill(self) -> None:
        """Fetch what is missing. Raises LabError."""
        if not self.qemu.exists():
            print(f"nic-lab: fetching QEMU {self._qemu_version}", flush=True)
            self._refresh()
            wanted = [f"qemu-system-x86={self._qemu_version}", "busybox-static"]
            self._known("qemu-system-x86", self._qemu_version)
            self._apt("apt-get", "install", "--yes", "--download-only", *wanted)
            self._unpack(self._apt_folder / "cache/archives", self.qemu)
        if not self.kernel.exists():
            print(f"nic-lab: fetching Linux {self.kernel_version}", flush=True)
            self._refresh()
            there = set(self._apt("apt-cache", "pkgnames", "linux-").split())
            wanted = [f"{each}-{self.kernel_version}" for each in KERNEL_PACKAGES]
            if not there & set(wanted):
                known = sorted(each[12:] for each in there if each.startswith("linux-image-") and each[12].isdigit())
                plain = [
                    each for each in known if "unsigned" not in each and "-rt-" not in each and "cloud" not in each
                ]
                raise LabError(
                    f"the archive no longer has Linux {self.kernel_version}; it has {', '.join(plain)}. "
                    "Name one of them, KERNEL=..., or a mirror that has it, XDPSTACK_NIC_MIRROR=..."
                )
            self._download([each for each in wanted if each in there], self.kernel)

    def unpacked(self, root: Path, names: Sequence[str]) -> None:
        """Fetch these packages and unpack them into a root, if it is not there. Raises LabError."""
        if root.exists():
            return
        print(f"nic-lab: fetching {', '.join(names)}", flush=True)
        self._refresh()
        self._download(names, root)

    # ---- apt ----

    def _download(self, names: Sequence[str], root: Path) -> None:
        target = self._apt_folder / "packages"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        self._apt("apt-get", "download", *names, folder=target)
        self._unpack(target, root)

    def _apt(self, tool: str, *words: str, folder: Path | None = None) -> str:
        own = self._apt_folder
        options = {
            "Dir::Etc::SourceList": own / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State": own / "state",
            "Dir::State::Lists": own / "state/lists",
            "Dir::State::Status": own / "status",
            "Dir::Cache": own / "cache",
            "Dir::Cache::Archives": own / "cache/archives",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            # What is pinned may be in an archive of the past (snapshot.debian.org), whose index has expired.
            "Acquire::Check-Valid-Until": "false",
            "Debug::NoLocking": "true",
        }
        command = [tool, "-q", *(f"-o{name}={value}" for name, value in options.items()), *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
        if done.returncode:
            raise LabError(f"{tool} {' '.join(words)}: {(done.stderr or done.stdout).strip()[-500:]}")
        return done.stdout

    def _refresh(self) -> None:
        """apt's lists, once for each cache."""
        own = self._apt_folder
        mirror = os.environ.get("XDPSTACK_NIC_MIRROR") or MIRROR
        sources = "".join(f"deb [signed-by={KEYRING}] {mirror} {suite} main\n" for suite in SUITES)
        for tool in ("apt-get", "dpkg-deb"):
            if not shutil.which(tool):
                raise LabError(f"{tool} is not there: the lab is fetched as Debian packages, on Debian or Ubuntu")
        if not KEYRING.exists():
            raise LabError(f"{KEYRING} is not there: apt-get install debian-archive-keyring")
        listed = own / "sources.list"
        if listed.exists() and listed.read_text() == sources and (own / "updated").exists():
            return
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (own / folder).mkdir(parents=True, exist_ok=True)
        (own / "status").touch()
        listed.write_text(sources)
        self._apt("apt-get", "update")
        (own / "updated").touch()

    def _known(self, package: str, version: str) -> None:
        """Raise LabError if the archive has another version only."""
        table = self._apt("apt-cache", "madison", package)
        versions = [line.split("|")[1].strip() for line in table.splitlines() if "|" in line]
        if version not in versions:
            raise LabError(
                f"the archive no longer has {package} {version}; it has {', '.join(versions)}. "
                "Name one of them, QEMU=..., or a mirror that has it, XDPSTACK_NIC_MIRROR=..."
            )

    def _unpack(self, archives: Path, root: Path) -> None:
        """All packages of a folder into a root that appears when it is complete. They are deleted."""
        new = root.with_name(f"{root.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        for each in sorted(archives.glob("*.deb")):
            subprocess.run(["dpkg-deb", "--extract", each, new], check=True)
            each.unlink()
        new.rename(root)
