"""The first process of the guest: tells the two NICs apart, gives them their queues, runs the command, and ends the guest.

It finds `settings.json` in the folder that it shares with the host, and leaves `status` there. What is printed goes to the
host through a virtio port. Only the standard library: it runs outside of any virtual environment.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

EXCHANGE = Path("/nic-lab")
MACS = {"52:54:00:00:00:01": "nic0", "52:54:00:00:00:02": "nic1"}


def run(*words: str) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def open_terminal() -> None:
    """Standard output and error are the port `terminal` from now on; there is no input."""
    [port] = [port for port in Path("/sys/class/virtio-ports").iterdir() if (port / "name").read_text() == "terminal\n"]
    out = os.open(Path("/dev", port.name), os.O_WRONLY)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


def name_nics(used: int) -> None:
    """nic0 and nic1, by their addresses, with `used` queue pairs; up, and silent until they are used."""
    run("ip", "link", "set", "lo", "up")
    for path in Path("/sys/class/net").iterdir():
        name = MACS.get((path / "address").read_text().strip())
        if name is None:
            continue
        run("ip", "link", "set", path.name, "name", name)
        Path("/proc/sys/net/ipv6/conf", name, "disable_ipv6").write_text("1")
        if used > 1:
            run("ethtool", "-L", name, "combined", str(used))
            run("ethtool", "-X", name, "equal", str(used))


def main() -> None:
    settings = json.loads((EXCHANGE / "settings.json").read_text())
    os.environ.update(settings["environment"])
    open_terminal()
    status = 125
    try:
        Path("/proc/sys/kernel/hostname").write_text("nic-lab")
        name_nics(settings["used"])
        status = subprocess.run(settings["command"], cwd=settings["folder"], check=False).returncode
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"nic-lab: {error}", file=sys.stderr)
    (EXCHANGE / "status").write_text(str(status))
    os.sync()
    time.sleep(0.2)  # what was printed is on its way through the port
    Path("/proc/sysrq-trigger").write_text("b")
    time.sleep(60)


if __name__ == "__main__":
    main()
