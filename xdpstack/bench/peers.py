"""What a run compares with: the C programs beside this file, compiled for it, and what has to be installed."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from xdpstack.bench.results import BenchError
from xdpstack.c_stage import get_include

HERE = Path(__file__).resolve().parent
#: As the extension is built: what is compared is the code, not the compiler.
FLAGS = ("-std=gnu17", "-O3", *(("-march=x86-64-v2",) if platform.machine() == "x86_64" else ()))


@dataclass(frozen=True, slots=True)
class Need:
    """A program, or a Python module, and the command that installs it (on Debian and Ubuntu)."""

    install: str
    program: str = ""
    module: str = ""

    @property
    def met(self) -> bool:
        """Whether it is there."""
        if self.program:
            return shutil.which(self.program) is not None
        return importlib.util.find_spec(self.module) is not None


TESTPMD = Need("apt-get install dpdk-dev", program="dpdk-testpmd")
SCAPY = Need("pip install 'xdpstack[bench]'", module="scapy")
PLOTS = Need("pip install 'xdpstack[bench]'", module="matplotlib")
HISTOGRAMS = Need("pip install 'xdpstack[bench]'", module="hdrh")


def build(folder: Path) -> None:
    """Compile the C programs, and the stage that drops, into `folder`. BenchError with the compiler's words."""
    if not shutil.which("cc"):
        raise BenchError("there is no C compiler: apt-get install gcc libc6-dev libbpf-dev")
    jobs = []
    for source in sorted((HERE / "peers").glob("*.c")):
        stage = source.stem.endswith("_stage")
        kind = ["-shared", "-fPIC", "-I", get_include()] if stage else []
        target = folder / (f"{source.stem}.so" if stage else source.stem)
        command = ["cc", *FLAGS, *kind, "-o", str(target), str(source), *([] if stage else ["-lbpf", "-lpthread"])]
        jobs.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    said = [job.communicate()[1] for job in jobs]
    for job, words in zip(jobs, said, strict=True):
        if job.returncode:
            raise BenchError(
                f"a peer could not be compiled (apt-get install gcc libc6-dev libbpf-dev): {words.strip()}"
            )
