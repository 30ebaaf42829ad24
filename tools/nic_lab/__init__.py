"""The NIC lab: a QEMU guest with two emulated NICs back to back, driven by their real Linux drivers (docs/drivers.md)."""
