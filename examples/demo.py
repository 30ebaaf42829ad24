"""The demo: an unmodified kernel client talks to a Python UDP server whose packets walk our stages on AF_XDP.

Two network namespaces with a veth pair; examples/udp_echo.py in one, examples/udp_client.py in the other. While they talk,
ping and a TCP connection to the same address go through the kernel. All of it goes at the end, also when interrupted.
Needs root. Exit status 0: nothing was lost and no frame is missing.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xdpstack.cli.lab import OURS, lab

HERE = Path(__file__).resolve().parent
PORT = 7777
TCP_PORT = 7778
PINGS = 20
COUNT = int(os.environ.get("DEMO_DATAGRAMS", "100000"))
LIMIT = 300.0  # seconds for the whole of the client's run


@contextlib.contextmanager
def process(namespace: str, *words: str, stderr: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """A program inside a namespace; ended by its own number."""
    command = ["ip", "netns", "exec", namespace, *words]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def line(child: subprocess.Popen[str]) -> str:
    """The next line that a program prints; an empty one means that it ended."""
    assert child.stdout is not None
    text = child.stdout.readline()
    if not text:
        sys.exit(f"demo: {child.args} ended with {child.wait()}")
    return text.rstrip()


TCP_ECHO = f"""
import socket
server = socket.create_server(("", {TCP_PORT}))
print("ready", flush=True)
while True:
    connection, _ = server.accept()
    while data := connection.recv(65536):
        connection.sendall(data)
"""

TCP_CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as connection:
    for number in range(200):
        data = bytes([number]) * 1000
        connection.sendall(data)
        back = b""
        while len(back) < len(data):
            back += connection.recv(65536)
        assert back == data
print("ok", flush=True)
"""


def tool(*words: str) -> str:
    """Run the xdpstack command and return what it prints."""
    done = subprocess.run([sys.executable, "-m", "xdpstack", *words], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else done.stdout + done.stderr


def main() -> int:
    if os.geteuid():
        sys.exit("demo: making network namespaces and loading XDP programs needs root: sudo make demo")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the namespaces go then too
    python = sys.executable
    ours, ours6 = (address.partition("/")[0] for address in OURS)
    with lab() as (here, peer), process(here, python, str(HERE / "udp_echo.py"), "veth0", str(PORT)) as server:
        print(line(server), flush=True)
        words = [python, str(HERE / "udp_client.py"), str(PORT), str(COUNT), ours, ours6]
        pid = str(server.pid)
        tracing = [python, "-m", "xdpstack", "trace", "--packets", "1", "--pid", pid]
        with (
            process(here, python, "-c", TCP_ECHO) as tcp_server,
            process(here, *tracing, stderr=subprocess.STDOUT) as tracer,
        ):
            line(tcp_server)
            line(tracer)  # it waits for its packet
            with (
                process(peer, *words) as client,
                process(peer, "ping", "-q", "-c", str(PINGS), "-i", "0.1", ours) as ping,
                process(peer, python, "-c", TCP_CLIENT, ours, str(TCP_PORT)) as tcp,
            ):
                print(tracer.communicate(timeout=60)[0])
                result = json.loads(client.communicate(timeout=LIMIT)[0] or "{}")
                ping_text = ping.communicate(timeout=60)[0]
                tcp_ok = tcp.communicate(timeout=60)[0].strip() == "ok"
        print(tool("show", "counters", "--pid", pid))
        info = json.loads(tool("show", "info", "--pid", pid))
    return report(result, ping_text, tcp_ok, info)


def report(result: dict[str, int], ping_text: str, tcp_ok: bool, info: dict[str, Any]) -> int:
    """The last line, and whether all is well."""
    answered = re.search(r"(\d+) packets transmitted, (\d+) received", ping_text)
    pinged, ponged = (int(n) for n in answered.groups()) if answered else (PINGS, 0)
    frames, packets = info["frames"], info["packets"]
    missing = info["frames_total"] - sum(frames.values()) + frames.get("walking", 0)
    lost = result["sent"] - result["answered"]
    print(
        f"{result['fragmented']} datagrams were fragmented, {result['wrong']} answers were wrong, {result['seconds']} s"
    )
    print(
        f"TCP through the kernel: {'200 exchanges' if tcp_ok else 'FAILED'}; packets unaccounted for {packets['missing']}"
    )
    device = info["devices"][0]
    mode = f"{device['mode']}, {'zero-copy' if device['zero_copy'] else 'copy'}"
    print(
        f"demo: {result['sent']} sent, {result['answered']} answered, {lost} lost; frames missing {missing}; "
        f"kernel ping {ponged}/{pinged}; {mode}"
    )
    well = lost == missing == result["wrong"] == packets["missing"] == 0 and pinged == ponged and tcp_ok
    return 0 if well and result["sent"] == COUNT else 1


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
