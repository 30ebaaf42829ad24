"""A worker with only the rings' stages: what is received is parked for the test, which drops it or sends it."""

import errno
from collections.abc import Callable
from types import TracebackType

from tests.device.redirect_all import GENERIC, NATIVE, RedirectAll
from tests.device.veth import Veth
from xdpstack.device.device import KernelBackend
from xdpstack.device.interface import Options
from xdpstack.device.umem import Umem
from xdpstack.device.xsk import XDP_USE_NEED_WAKEUP, Rings, Xsk
from xdpstack.native import check, ffi, lib
from xdpstack.native.core import Core
from xdpstack.netlink.namespace import run_in

SMALL = Rings(rx=64, tx=64, fill=128, completion=64, fill_target=128)


class Harness:
    """Nodes: napi.rx -> a hook that parks -> napi.tx."""

    def __init__(self, frames: int = 1024, frame_bytes: int = 2048) -> None:
        self.core = Core(frames=frames, frame_bytes=frame_bytes)
        self.worker = self.core.workers[0]
        self.umem = Umem(self.core)
        self.programs: list[RedirectAll] = []
        self.devices: dict[int, list[Xsk]] = {}
        self.backend: KernelBackend | None = None
        worker = self.worker
        rx = check(lib.xs_worker_add_stage(worker, b"napi.rx"), "napi.rx")
        self.hook = check(lib.xs_worker_add_hook(worker, ffi.NULL, ffi.NULL, ffi.NULL, 1), "hook")
        self.tx = check(lib.xs_worker_add_stage(worker, b"napi.tx"), "napi.tx")
        check(lib.xs_worker_wire(worker, rx, 0, self.hook), "wire")
        check(lib.xs_worker_wire(worker, self.hook, 0, self.tx), "wire")
        check(lib.xs_worker_set_entry(worker, 0, rx), "entry")

    def attach(
        self,
        pair: Veth,
        device: int = 0,
        queues: int = 1,
        mode: int = NATIVE,
        flags: int = XDP_USE_NEED_WAKEUP,
        rings: Rings = SMALL,
        frags: bool = False,
    ) -> list[Xsk]:
        """Program and sockets, on every queue of the pair's near end, which becomes `device` of the stack."""

        def do() -> list[Xsk]:
            ifindex = pair.ifindex
            program = RedirectAll(ifindex, mode, frags)
            self.programs.append(program)
            made = []
            for queue in range(queues):
                xsk = self.umem.open(ifindex, queue, rings, flags)
                program.set(queue, xsk.fileno())
                check(lib.xs_worker_attach(self.worker, xsk.pointer, device), "attach")
                made.append(xsk)
            return made

        self.devices[device] = run_in(pair.netns, do)
        return self.devices[device]

    def open(self, *names: str, options: Options, window_seconds: float = 30.0) -> KernelBackend:
        """The devices as a stack opens them: the real program, claims, the watchdog."""
        self.backend = KernelBackend(*names, options=options, window_seconds=window_seconds)
        _, self.mirror = self.backend.open(self.core)
        self.backend.set_local(self.mirror.snapshot)
        return self.backend

    def follow(self) -> None:
        """What the control thread does when netlink has something."""
        if self.mirror.process():
            self.backend.set_local(self.mirror.snapshot)

    def detach(self, device: int = 0) -> int:
        home = check(lib.xs_worker_detach(self.worker, device), "detach")
        for xsk in self.devices.pop(device):
            self.umem.release(xsk)
        return home

    def poll(self, budget: int = 256) -> int:
        return lib.xs_worker_poll(self.worker, budget)

    def receive(self, want: int, seconds: float = 5.0) -> list[bytes]:
        """Polls until `want` packets have come; they are dropped here, their bytes returned."""
        return self.handle(want, lambda packet, frame: lib.XS_DROP, seconds)

    def handle(self, want: int, decide: Callable[[bytes, int], int], seconds: float = 5.0) -> list[bytes]:
        """As `receive`, but `decide(bytes, frame number)` says where each packet goes: 0 sends it."""
        got: list[bytes] = []
        waits = int(seconds * 100)
        while len(got) < want and waits:
            self.check_poll(self.poll())
            parked = self.parked()
            if not parked:
                waits -= lib.xs_worker_wait(self.worker, 10) == 0
                continue
            data = [self.bytes_of(number) for number in parked]
            got += data
            self.resume([decide(each, number) for each, number in zip(data, parked, strict=True)])
        assert len(got) >= want, f"{len(got)} of {want} packets came"
        return got

    def check_poll(self, result: int) -> None:
        if result < 0 and result not in (-errno.EAGAIN,):
            check(result, "poll")

    def parked(self) -> list[int]:
        numbers = ffi.new("uint32_t[256]")
        return list(numbers[0 : lib.xs_worker_parked_frames(self.worker, self.hook, numbers, 256)])

    def resume(self, edges: list[int]) -> None:
        reasons = [1] * len(edges)
        check(lib.xs_worker_resume(self.worker, self.hook, bytes(edges), reasons, len(edges)), "resume")

    def bytes_of(self, number: int) -> bytes:
        """All bytes of a packet, over its frames."""
        out = b""
        while number != lib.XS_NO_FRAME:
            packet = self.core.packets[number]
            start = number * self.core.frame_bytes + packet.data_off
            out += bytes(self.core.umem[start : start + packet.len])
            number = packet.frag
        return out

    def frames_of(self, number: int) -> int:
        n = 0
        while number != lib.XS_NO_FRAME:
            number = self.core.packets[number].frag
            n += 1
        return n

    def node(self, at: int) -> dict[str, int]:
        return {"packets": lib.xs_node_packets(self.worker, at), "bytes": lib.xs_node_counter(self.worker, at, 0)}

    def assert_exact(self) -> None:
        """Both ledgers: no packet missing, no frame anywhere but free, with the kernel to receive, or being sent."""
        assert self.core.ledger().missing == 0
        counts = self.core.frame_counts()
        assert sum(counts.values()) == self.core.frames
        for owner in ("walking", "held", "queued", "lent"):
            assert counts[owner] == 0, counts

    def assert_all_home(self) -> None:
        self.assert_exact()
        assert self.core.frame_counts()["free"] == self.core.frames, self.core.frame_counts()

    def close(self) -> None:
        if self.backend is not None:
            self.backend.withdraw()
            self.backend.close()
            self.mirror.close()
        for program in self.programs:
            program.close()
        self.programs = []
        for device in list(self.devices):
            self.detach(device)

    def __enter__(self) -> "Harness":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        if error is None:
            self.assert_all_home()


MODES = {"native": NATIVE, "generic": GENERIC}
