"""The lab's guests: what QEMU calls their NICs, which driver runs them, and what has to be set to have all they can do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Model:
    """One NIC. `device` is QEMU's name with its options, `driver` the kernel module.

    `pairs` are the queue pairs that the device offers; `used` those that are in use before a program is attached. `tests`:
    what runs there; empty if it takes a command. No `device`: the guest has no NIC. `instruction_clock`: its clock counts
    the instructions of its one CPU.
    """

    name: str
    driver: str
    device: str
    pairs: int = 1
    used: int = 1
    instruction_clock: bool = False
    tests: str = "tests/nic"


#: How many CPUs the guest has, and so how many queues a NIC needs for one each.
CPUS = 2

# iommu_platform (VIRTIO_F_ACCESS_PLATFORM): without it virtio-net has no DMA device, and no zero-copy.
_VIRTIO = "virtio-net-pci,iommu_platform=on"


def _virtio(name: str, pairs: int, used: int) -> Model:
    """`vectors`: an interrupt for each queue, one for the control queue, one for changes of the configuration."""
    return Model(name, "virtio_net", f"{_VIRTIO},mq=on,rss=on,hash=on,vectors={2 * pairs + 2}", pairs, used)


MODELS = {
    model.name: model
    for model in (
        Model("igb", "igb", "igb"),
        Model("virtio-net", "virtio_net", _VIRTIO),
        Model("virtio-net-plain", "virtio_net", "virtio-net-pci"),  # as most virtual machines have it
        _virtio("virtio-net-mq", CPUS, CPUS),
        # The driver takes the spare pairs for sending when a program is attached, and receives on them as well.
        _virtio("virtio-net-spare", 2 * CPUS, CPUS),
        Model("vmxnet3", "vmxnet3", "vmxnet3"),
        Model("e1000e", "e1000e", "e1000e"),
        Model("netdevsim", "netdevsim", "", tests="tests/offloaded"),
        Model("instructions", "veth", "", instruction_clock=True, tests=""),
    )
}

#: What runs if no model is named: those on which all has been seen to pass.
DEFAULT = ("igb", "virtio-net", "virtio-net-mq", "vmxnet3", "e1000e")
