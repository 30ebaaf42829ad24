"""xdpstack: the Linux packet path in user space, at AF_XDP speed, programmed from Python."""
