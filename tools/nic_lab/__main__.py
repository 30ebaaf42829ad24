"""Runs the tests of tests/nic/ on each NIC of the lab, and prints what was granted on it.

    python -m tools.nic_lab                              all models
    python -m tools.nic_lab igb vmxnet3                  these
    python -m tools.nic_lab igb --pytest -k granted      with arguments for pytest
    python -m tools.nic_lab igb -- COMMAND...            a command, as root, with nic0 and nic1 of that model
    python -m tools.nic_lab instructions --keep . -- COMMAND...
                                                         one where the clock counts instructions (docs/bench.md)

Exit status 0: all that ran succeeded.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tools.nic_lab import machine, netdevsim
from tools.nic_lab.models import DEFAULT, MODELS
from tools.nic_lab.packages import KERNEL, QEMU, Cache, LabError
from tools.nic_lab.table import table

PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")


def main(words: list[str]) -> int:
    command = words[words.index("--") + 1 :] if "--" in words else []
    parser = argparse.ArgumentParser(prog="nic_lab", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--kernel", default=KERNEL, help="version of the guest's kernel (%(default)s)")
    parser.add_argument("--qemu", default=QEMU, help="version of QEMU (%(default)s)")
    parser.add_argument("--seconds", type=float, default=900.0, help="limit for each guest (%(default)s)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep there what a command leaves in /nic-lab")
    parser.add_argument("--fetch", action="store_true", help="only fetch what is missing")
    parser.add_argument("--verbose", action="store_true", help="show the guest's kernel log")
    parser.add_argument("--pytest", nargs=argparse.REMAINDER, default=[], help="what follows is for pytest")
    options = parser.parse_args(words[: words.index("--")] if "--" in words else words)
    if unknown := set(options.models) - set(MODELS):
        parser.error(f"no model {', '.join(sorted(unknown))}; there are {', '.join(MODELS)}")
    if not command and (without := [name for name in options.models if not MODELS[name].tests]):
        parser.error(f"{', '.join(without)} has nothing to be tested: give it a command, after --")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the guest ends with us
    cache = Cache(options.qemu, options.kernel)
    try:
        with cache.locked():
            cache.fill()
        if options.fetch:
            return 0
        chosen = [MODELS[name] for name in options.models or DEFAULT]
        failed: list[str] = []
        rows = []
        for model in chosen:
            print(f"nic-lab: {model.name}, Linux {cache.kernel_version}", flush=True)
            began = time.monotonic()
            tests = [*PYTEST, model.tests, *options.pytest]
            if model.driver == "netdevsim":
                with cache.locked():
                    netdevsim.add(cache)
            outcome = machine.run(cache, model, command or tests, options.seconds, options.verbose)
            if outcome.failure:
                print(f"nic-lab: {model.name}: {outcome.failure}", file=sys.stderr)
            print(
                f"nic-lab: {model.name} ended with {outcome.status} after {time.monotonic() - began:.0f} s", flush=True
            )
            if outcome.status != 0:
                failed.append(model.name)
            if options.keep:
                keep(outcome.files, options.keep)
            if "granted.json" in outcome.files:
                rows.append(json.loads(outcome.files["granted.json"]))
    except LabError as error:
        print(f"nic-lab: {error}", file=sys.stderr)
        return 1
    if rows:
        print(table(rows))
    if failed:
        print(f"nic-lab: FAILED on {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def keep(files: Mapping[str, bytes], folder: Path) -> None:
    """What is not the lab's own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        if name not in machine.OWN_FILES:
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
