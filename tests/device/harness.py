"""A worker with only the rings' stages: what is received is parked for the test, which drops it or sends it."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from tests.device.redirect_all import GENERIC, NATIVE, RedirectAll
from xdpstack.device.backend import MirrorLike
from xdpstack.device.device import KernelBackend
from xdpstack.device.modes import SocketModes
from xdpstack.device.options import Options
from xdpstack.device.umem import Umem
from xdpstack.device.xsk import XDP_USE_NEED_WAKEUP, Rings, Xsk
from xdpstack.native import check, ffi, lib
from xdpstack.native.core import Core
from xdpstack.testing.ledger import check_closed, check_open
from xdpstack.testing.veth import End
from xdpstack.testing.wait import PATIENCE

MODES = {"native": NATIVE, "generic": GENERIC}
SMALL = Rings(rx=64, tx=64, fill=128, completion=64, fill_target=128)
#: An ethertype that no protocol handles (IEEE local experimental).
EXPERIMENTAL = 0x88B5


def mac(end: End) -> bytes:
    return bytes.fromhex(end.mac.replace(":", ""))


def frame(source: End, destination: End, payload: bytes, ethertype: int = EXPERIMENTAL) -> bytes:
    return mac(destination) + mac(source) + ethertype.to_bytes(2, "big") + payload


class Harness:
    """Nodes: napi.rx -> a hook that parks -> napi.tx. At the end of its `with` block both ledgers are exact."""

    def __init__(self, frames: int = 1024, frame_bytes: int = 2048) -> None:
        self.core = Core(frames=frames, frame_bytes=frame_bytes)
        self.worker = self.core.workers[0]
        self.umem = Umem(self.core)
        self.programs: dict[int, RedirectAll] = {}
        self.devices: dict[int, list[Xsk]] = {}
        self.backend: KernelBackend | None = None
        self.mirror: MirrorLike | None = None
        worker = self.worker
        rx = check(lib.xs_worker_add_stage(worker, b"napi.rx"), "napi.rx")
        self.hook = check(lib.xs_worker_add_hook(worker, ffi.NULL, ffi.NULL, ffi.NULL, 1), "hook")
        self.tx = check(lib.xs_worker_add_stage(worker, b"napi.tx"), "napi.tx")
        check(lib.xs_worker_wire(worker, rx, 0, self.hook), "wire")
        check(lib.xs_worker_wire(worker, self.hook, 0, self.tx), "wire")
        check(lib.xs_worker_set_entry(worker, 0, rx), "entry")

    # ---- devices ----

    def attach(
        self,
        end: End,
        device: int = 0,
        queues: int = 1,
        mode: int = NATIVE,
        flags: int = XDP_USE_NEED_WAKEUP,
        rings: Rings = SMALL,
        frags: bool = False,
        modes: SocketModes | None = None,
    ) -> list[Xsk]:
        """A program that redirects everything, and sockets on every queue; the end becomes `device` of the stack."""

        def do() -> None:
            program = self.programs[device] = RedirectAll(end.index, mode, frags)
            made = self.devices[device] = []
            for queue in range(queues):
                xsk = self.umem.open(end.index, queue, rings, flags, modes=modes)
                made.append(xsk)
                program.set(queue, xsk.fileno())
                check(lib.xs_worker_attach(self.worker, xsk.pointer, device), "attach")

        end.netns.call(do)
        return self.devices[device]

    def detach(self, device: int = 0) -> int:
        """How many frames came home."""
        self.programs.pop(device).close()
        home = check(lib.xs_worker_detach(self.worker, device), "detach")
        for xsk in self.devices.pop(device):
            self.umem.release(xsk)
        return home

    def open(self, *ends: End, window_seconds: float = 30.0, **options: object) -> KernelBackend:
        """The ends' devices as a stack opens them: the real program, claims, the watchdog."""
        chosen = Options(netns=ends[0].netns.name, **{"rx_ring": 64, "tx_ring": 64, **options})
        backend = KernelBackend(*(end.name for end in ends), options=chosen, window_seconds=window_seconds)
        _, self.mirror = backend.open(self.core)
        self.backend = backend
        return backend

    def follow(self) -> None:
        """What the control thread does when netlink has something."""
        assert self.mirror is not None
        assert self.backend is not None
        if self.mirror.process():
            self.backend.set_local(self.mirror.snapshot)

    # ---- packets ----

    def poll(self, budget: int = 256) -> int:
        return lib.xs_worker_poll(self.worker, budget)

    def receive(self, want: int, seconds: float = PATIENCE) -> list[bytes]:
        """Polls until `want` packets have come; they are dropped here, their bytes returned."""
        return self.handle(want, lambda packet, frame: lib.XS_DROP, seconds)

    def handle(self, want: int, decide: Callable[[bytes, int], int], seconds: float = PATIENCE) -> list[bytes]:
        """As `receive`, but `decide(bytes, frame number)` says where each packet goes: 0 sends it."""
        got: list[bytes] = []
        waits = int(seconds * 100)
        while len(got) < want and waits:
            check(self.poll(), "poll")
            parked = self.parked()
            if not parked:
                waits -= lib.xs_worker_wait(self.worker, 10) == 0
                continue
            data = [self.bytes_of(number) for number in parked]
            got += data
            self.resume([decide(each, number) for each, number in zip(data, parked, strict=True)])
        assert len(got) >= want, f"{len(got)} of {want} packets came"
        return got

    def send_back(self, packet: bytes, number: int) -> int:
        """For `handle`: the packet goes back where it came from, source and destination MAC swapped."""
        start = number * self.core.frame_bytes + self.core.packets[number].data_off
        self.core.umem[start : start + 12] = packet[6:12] + packet[:6]
        return 0

    def parked(self) -> list[int]:
        numbers = ffi.new("uint32_t[256]")
        return list(numbers[0 : lib.xs_worker_parked_frames(self.worker, self.hook, numbers, 256)])

    def resume(self, edges: list[int]) -> None:
        check(lib.xs_worker_resume(self.worker, self.hook, bytes(edges), [1] * len(edges), len(edges)), "resume")

    def frames_of(self, number: int) -> list[int]:
        """The frames of a packet."""
        found = []
        while number != lib.XS_NO_FRAME:
            found.append(number)
            number = self.core.packets[number].frag
        return found

    def bytes_of(self, number: int) -> bytes:
        """All bytes of a packet, over its frames."""
        out = b""
        for each in self.frames_of(number):
            start = each * self.core.frame_bytes + self.core.packets[each].data_off
            out += bytes(self.core.umem[start : start + self.core.packets[each].len])
        return out

    def drops(self, node: int) -> dict[str, int]:
        """Packets dropped at a node, by reason."""
        found = {}
        reason = 0
        while (name := lib.xs_reason_name(reason)) != ffi.NULL:
            if n := lib.xs_node_drops(self.worker, node, reason):
                found[ffi.string(name).decode()] = n
            reason += 1
        return found

    # ---- the end ----

    def check(self) -> None:
        check_open(self.core)

    def close(self) -> None:
        if self.backend is not None:
            self.backend.withdraw()
            self.backend.close()
        if self.mirror is not None:
            self.mirror.close()
        for device in list(self.devices):
            self.detach(device)

    def __enter__(self) -> Harness:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        if error is None:
            self.poll()  # what came home by way of a ring
            check_closed(self.core)
