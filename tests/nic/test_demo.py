"""The demo's server and client, unchanged, on a pair of NICs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.paths.world import FAR, NEAR, OURS
from xdpstack.testing.veth import Veth

pytestmark = pytest.mark.root
EXAMPLES = Path(__file__).parents[2] / "examples"
PORT = 7777
DATAGRAMS = 500
SECONDS = 120.0


def test_every_datagram_of_the_demo_is_answered(veth: Callable[..., Veth]) -> None:
    pair = veth(near=NEAR, far=FAR)
    inside = ["ip", "netns", "exec"]
    server_words = [*inside, str(pair.near.netns), sys.executable, str(EXAMPLES / "udp_echo.py"), "near0", str(PORT)]
    client_words = [*inside, str(pair.far.netns), sys.executable, str(EXAMPLES / "udp_client.py"), str(PORT)]
    with subprocess.Popen(server_words, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline().startswith("echo on near0")
            hosts = [host for host, _ in OURS]
            client = subprocess.run(
                [*client_words, str(DATAGRAMS), *hosts], capture_output=True, text=True, timeout=SECONDS, check=True
            )
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=SECONDS)
    result = json.loads(client.stdout)
    assert (result["sent"], result["answered"], result["wrong"]) == (DATAGRAMS, DATAGRAMS, 0)
    assert server.returncode == 0
