"""Devices: AF_XDP sockets, the XDP program, the memory device."""
