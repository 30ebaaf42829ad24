"""What each model of the lab grants, on the kernel that is pinned there: docs/drivers.md has it in words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Expected:
    """`queues` are those that a stack binds: those that are active with a program attached.

    `frame_bytes` is what it takes to have zero-copy; with less there is copy mode and the reason is said.
    `busy_poll`: whether the driver says which NAPI feeds a queue; `channels`: whether it lets their number be set.
    `rss_table`, `hash_fields`: whether flows follow the table of RSS that is set, and the fields that its hash is to cover.
    """

    driver: str
    native: bool = True
    zero_copy: bool = False
    queues: int = 1
    frame_bytes: int = 2048
    busy_poll: bool = True
    channels: bool = True
    rss_table: bool = False
    hash_fields: bool = False


EXPECTED = {
    "igb": Expected("igb", zero_copy=True, queues=2, frame_bytes=4096, rss_table=True, hash_fields=True),
    "virtio-net": Expected("virtio_net", zero_copy=True),
    "virtio-net-plain": Expected("virtio_net"),
    "virtio-net-mq": Expected("virtio_net", zero_copy=True, queues=2, rss_table=True),
    "virtio-net-spare": Expected("virtio_net", queues=4),
    "vmxnet3": Expected("vmxnet3", native=False, queues=2, busy_poll=False, channels=False),
    "e1000e": Expected("e1000e", native=False),
}
