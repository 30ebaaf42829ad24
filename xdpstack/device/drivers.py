"""What drivers do that they do not declare: docs/drivers.md has what was seen of each. Only reads.

All of it in the calling thread's network namespace.
"""

from __future__ import annotations

import os
from pathlib import Path

from xdpstack.device import ethtool
from xdpstack.device.sysfs import class_net

#: Drivers that take the link down for seconds when a program is attached or detached.
RESETS = {
    "igb": "2 to 3 s",
    "igc": "some seconds",
    "ixgbe": "about a second",
    "i40e": "about a second",
    "ice": "a moment",
}
#: Kinds of device without native XDP.
GENERIC_ONLY = {"bridge", "vlan", "macvlan", "macvtap", "ipvlan", "dummy", "vxlan", "gre", "wireguard", "loopback"}
#: Drivers that in native mode give a program no room before the frame (bpf_xdp_adjust_meta() fails), where ours puts what
#: it knows of it. All would be passed, as pass_no_metadata.
NO_METADATA = {"vmxnet3"}
#: Drivers that make more receive queues active when a program is attached: one for each CPU's XDP_TX (virtnet_xdp_set()).
ADDS_QUEUES = {"virtio_net"}
#: uapi/linux/virtio_config.h: the device's memory accesses go through the platform's DMA.
VIRTIO_F_ACCESS_PLATFORM = 33
POSSIBLE_CPUS = Path("/sys/devices/system/cpu/possible")


def native_lacks(name: str) -> str:
    """Why a program can be attached in native mode but lifts nothing there; empty if nothing is known."""
    driver = ethtool.driver(name)
    if driver is None or driver.name not in NO_METADATA:
        return ""
    return f"In native mode {driver.name} has no room for metadata before a frame, without which nothing can be lifted."


def added_queues(name: str, there: int) -> range:
    """The receive queues that a program in native mode will make active beside the `there` that are: all or none.

    They go with the program, and until Linux 7.3 at least virtio_net does not take a zero-copy socket off a queue that has
    gone: virtnet_xsk_pool_disable() says EINVAL, the kernel warns "Failed to disable zero-copy!", and frees the memory that
    the driver still has.
    """
    driver, channels = ethtool.driver(name), ethtool.channels(name)
    if driver is None or driver.name not in ADDS_QUEUES or channels is None:
        return range(there, there)
    cpus = int(POSSIBLE_CPUS.read_text().replace("-", ",").split(",")[-1]) + 1
    return range(there, there + (cpus if there + cpus <= channels.combined_max else 0))


def zero_copy_lacks(name: str) -> str:
    """Why the driver will refuse zero-copy on this very device, though it declares it; empty if nothing is known.

    virtio_net maps a stack's frames through the DMA of the virtio device, which there is only if the hypervisor offered
    VIRTIO_F_ACCESS_PLATFORM (net/virtio_net.c, virtqueue_dma_dev()); without, bind(2) says EINVAL.
    """
    driver = ethtool.driver(name)
    if driver is None or driver.name != "virtio_net":
        return ""
    features = virtio_features(name)
    if not features or features[VIRTIO_F_ACCESS_PLATFORM]:
        return ""
    return (
        f"The hypervisor gave {name} no VIRTIO_F_ACCESS_PLATFORM, without which virtio_net cannot map a stack's frames "
        "(QEMU: -device virtio-net-pci,iommu_platform=on; libvirt: <driver iommu='on'/>)."
    )


def virtio_features(name: str) -> list[bool]:
    """The features that a virtio device and its driver agreed on, by bit number; empty if they cannot be read."""
    with class_net() as folder:
        if folder is None:
            return []
        try:
            file = os.open(f"{name}/device/features", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
        except OSError:
            return []
        try:
            text = os.read(file, 4096).decode().strip()
        finally:
            os.close(file)
    return [bit == "1" for bit in text] if len(text) > VIRTIO_F_ACCESS_PLATFORM else []
