"""Why Linux dropped a frame: the tracepoints net:netif_receive_skb and skb:kfree_skb, read frame by frame.

A trace instance of its own is made and deleted, so that nobody else's tracing is touched. tracefs is mounted in a mount
namespace that only a short-lived thread is in; the descriptor of its root outlives that.
"""

import contextlib
import ctypes
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass

CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x00020000, 16384, 1 << 18
#: Kilobytes per CPU: some 30,000 events.
BUFFER_KB = 4096
ETHERNET = 14
LINE = re.compile(r"\s(netif_receive_skb|kfree_skb|consume_skb): (.*)$", re.MULTILINE)
FIELD = re.compile(r"(\w+)(?:=|: )(\S+)")


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a frame: dropped for `reason` in kernel function `function`, or not dropped (both empty).

    `consumed` frames have come to a good end; what is neither was still queued or held when the next frame came.
    """

    reason: str = ""
    function: str = ""
    consumed: bool = False


EVENTS = ("net/netif_receive_skb", "skb/kfree_skb", "skb/consume_skb")


class DropTracer:
    """The fates of the frames that a device receives, in order. `device` is the name of a device, in any namespace."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.root = _tracefs()
        self.name = f"xdpstack-{os.getpid()}-{device}"
        self.instances = os.open("instances", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self.root)
        os.mkdir(self.name, dir_fd=self.instances)
        self.instance = os.open(self.name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=self.instances)
        self._write("buffer_size_kb", str(BUFFER_KB))
        self._write("events/net/netif_receive_skb/filter", f'name == "{device}"')
        for event in EVENTS:
            self._write(f"events/{event}/enable", "1")

    def _write(self, file: str, text: str) -> None:
        descriptor = os.open(file, os.O_WRONLY | os.O_TRUNC, dir_fd=self.instance)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        """Forget what was traced."""
        self._write("trace", "")

    def fates(self, frames: list[bytes]) -> list[Fate]:
        """One for each of `frames`, in order, that the device has received since the last `clear()`.

        Frames of another length are Linux' own: what it sends to a broadcast address it also receives.
        """
        with os.fdopen(os.open("trace", os.O_RDONLY, dir_fd=self.instance)) as file:
            text = file.read()
        assert "LOST" not in text, "the trace buffer was too small"
        fates: list[Fate] = []
        under_way = ""  # the address of the last frame's skb; it says nothing after its end or the next frame
        for event, rest in LINE.findall(text):
            fields = dict(FIELD.findall(rest))
            if event == "netif_receive_skb":
                under_way = ""
                if len(fates) < len(frames) and int(fields["len"]) == len(frames[len(fates)]) - ETHERNET:
                    under_way = fields["skbaddr"]
                    fates.append(Fate())
            elif fields["skbaddr"] == under_way:
                under_way = ""
                function = fields.get("location", "").partition("+")[0]
                fates[-1] = Fate(fields["reason"], function) if event == "kfree_skb" else Fate(consumed=True)
        return fates

    def close(self) -> None:
        """Delete the trace instance."""
        for event in EVENTS:
            self._write(f"events/{event}/enable", "0")
        os.close(self.instance)
        os.rmdir(self.name, dir_fd=self.instances)
        os.close(self.instances)
        os.close(self.root)


@contextlib.contextmanager
def tracing(device: str) -> Iterator[DropTracer]:
    tracer = DropTracer(device)
    try:
        yield tracer
    finally:
        tracer.close()


def _tracefs() -> int:
    """A descriptor of tracefs' root directory. OSError: this kernel has none, or lets nobody in."""
    result: list[int | OSError] = []

    def mount() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with tempfile.TemporaryDirectory() as folder:
            steps = (
                lambda: libc.unshare(CLONE_NEWNS),
                lambda: libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None),
                lambda: libc.mount(b"none", folder.encode(), b"tracefs", 0, None),
            )
            for step in steps:
                if step() != 0:
                    code = ctypes.get_errno()
                    result.append(OSError(code, f"mount tracefs: {os.strerror(code)}"))
                    return
            result.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
            libc.umount2(folder.encode(), 2)  # detached; the descriptor keeps it

    thread = threading.Thread(target=mount)
    thread.start()
    thread.join()
    (root,) = result
    if isinstance(root, OSError):
        raise root
    return root
