"""rps: which worker has a received packet, and by which queue one leaves. Off unless `Stack.rps()` turns it on.

rps.rx
======
Does: gives received packets to the worker that the hash of their flow says, or that their reader runs beside (RFS).
Mirrors: get_rps_cpu, set_rps_cpu, enqueue_to_backlog, skb_flow_limit, process_backlog, sock_rps_record_flow.
Reads: l3_off, l3_proto, data_off, len; the addresses and ports in the headers; hash, where the device says that it is of
    ports too.
Writes: hash, and hints HASH (cleared where it is no longer the device's); with RFS the number of the packet in its
    flow (`steered` of the cold descriptor); owner HELD on the way.
Next:
    receive: the packet is this worker's, or is of no flow that could be told (not IP, or cut short).
Drops:
    CPU_BACKLOG: as many packets wait for the worker as may (`max_backlog`); or half as many, and more than half of those
        that found it so lately are of this flow (`flow_limit`).
Holds: packets on their way to another worker, `max_backlog` to each; that one takes them at its next poll.
State: weights, limits and tables of flows, published by `Rps`; where flows are read, and how far, which readers note.
Cost: benchmarks/stages/bench_rps.py
Differs from Linux:
    - The hash is SipHash-1-3 of addresses, ports and protocol (or IPv6 flow label) under a key of the stack's own, the same
      for both directions, as Linux' is SipHash-2-4 under its own. Ports behind IPv6 extension headers, and what is inside of
      tunnels, are not looked for.
    - The workers have weights; rps_cpus is a set.
    - A packet that stays with its worker goes on at once, and not by way of its own backlog.
    - RFS goes by the CPU that a worker is pinned to. A flow that is read where no worker is goes by the weights.
    - A flow moves when the last packet of it has been read, not when it has left the backlog: a socket has a queue for each
      worker. Packets that are dropped are never read; then the flow stays until a later one is.
    - The backlog is counted as of the start of a batch: workers that steer to one at the same moment may exceed it by a
      batch each.
    - No accelerated RFS (filters in the NIC).

rps.tx
======
Does: chooses the queue by which a packet leaves: of those that this worker has, by the hash of the flow (XPS).
Mirrors: netdev_pick_tx, get_xps_queue, skb_tx_hash.
Reads: device, l3_off, l3_proto; the addresses and ports in the headers.
Writes: queue.
Next:
    xmit: always.
Drops:
Holds: nothing.
State: the queues of each worker, as they were when it was turned on; napi.tx folds one that has gone into those there are.
Cost: benchmarks/stages/bench_rps.py
Differs from Linux:
    - A socket does not remember its queue: a flow has the same one as long as there are the same queues.
    - A worker without a queue of the device spreads over all of them (napi.tx hands over).
    - Whole frames of the user's are of no flow: their headers are not read, and they all leave by the first queue.
    - No map by receive queue (xps_rxqs), no traffic classes.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import Any

from xdpstack.errors import ConfigurationError, OutOfMemory
from xdpstack.native import check, ffi, lib
from xdpstack.native.core import Core
from xdpstack.walk import Walk

ROWS = ("rps.rx", "rps.tx")
#: net.core.netdev_max_backlog of Linux.
MAX_BACKLOG = 1000


class Rps:
    """Steering for one stack. `info` is what was asked for; empty while it is off."""

    def __init__(self, core: Core, walk: Walk) -> None:
        self.info: dict[str, Any] = {}
        self._core = core
        self._walk = walk

    def on(
        self,
        weights: Sequence[int],
        flows: int,
        cpus: Mapping[int, int],
        max_backlog: int,
        flow_limit: bool,
    ) -> None:
        """Steer from now on, or otherwise than before; what is on its way may be overtaken by what goes elsewhere then.

        `weights`: of each worker, empty = all the same. `flows`: entries of the tables for RFS, rounded up to a power of
        two; 0 = off. `cpus`: CPU -> worker. Raises ConfigurationError, OutOfMemory.
        """
        workers = len(self._core.workers)
        entries = [worker for worker, weight in enumerate(weights or [1] * workers) for _ in range(weight)]
        if (
            (weights and len(weights) != workers)
            or min(weights, default=0) < 0
            or not 0 < len(entries) <= lib.XS_RPS_MAP
        ):
            raise ConfigurationError(
                f"weights {list(weights)} for {workers} workers",
                fix=f"One for each worker, 0 or more, {lib.XS_RPS_MAP} in all at most.",
            )
        if not 0 < max_backlog <= lib.XS_RPS_BACKLOG:
            raise ConfigurationError(f"max_backlog is {max_backlog}", fix=f"1 to {lib.XS_RPS_BACKLOG}.")
        if not 0 <= flows <= 1 << 24:
            raise ConfigurationError(f"flows is {flows}", fix="0 to 16,777,216.")
        if flows and not cpus:
            raise ConfigurationError(
                "RFS needs to know where the workers run", fix="Pin them: open(..., workers=N, cpus=[...])."
            )
        options = ffi.new("struct xs_rps_options *")
        options.nmap, options.max_backlog, options.flow_limit = len(entries), max_backlog, flow_limit
        options.map = entries + [0] * (lib.XS_RPS_MAP - len(entries))
        options.flows = max(64, 1 << (flows - 1).bit_length()) if flows else 0
        for cpu in range(lib.XS_RPS_CPUS):
            options.worker_of_cpu[cpu] = cpus.get(cpu, 255)
        result = lib.xs_stack_set_rps(self._core.pointer, options)
        if result == -errno.ENOMEM:
            raise OutOfMemory(f"no memory for {options.flows} flows of {workers} workers", fix="Ask for fewer flows.")
        check(result, "steer")
        for row in ROWS:
            self._walk.include(row, present=True)
        self.info = {
            "weights": list(weights) or [1] * workers,
            "flows": int(options.flows),
            "max_backlog": max_backlog,
            "flow_limit": flow_limit,
        }

    def off(self) -> None:
        """Packets stay where they come in; nothing of it is on the path any more."""
        for row in ROWS:
            self._walk.include(row, present=False)
        check(lib.xs_stack_set_rps(self._core.pointer, ffi.NULL), "stop steering")
        self.info = {}
