"""A custom stage in Python: python_hook.py INTERFACE PORT. An echo server that answers no one twice within a second."""

import sys
import time

import xdpstack


class OncePerSecond:
    """Drops a datagram whose source was seen less than a second ago. Called with a batch, never with a packet."""

    def __init__(self) -> None:
        self.seen: dict[bytes, float] = {}

    def __call__(self, batch: xdpstack.HookBatch) -> None:
        now = time.monotonic()
        for packet in batch:
            at = packet.l3_offset
            # where the source address is: RFC 791, RFC 8200
            start, end = (at + 8, at + 24) if packet.l3_proto == 0x86DD else (at + 12, at + 16)
            source = bytes(packet.data[start:end])
            if now - self.seen.get(source, 0.0) < 1.0:
                packet.drop()
            else:
                self.seen[source] = now


def main() -> None:
    interface, port = sys.argv[1], int(sys.argv[2])
    with xdpstack.open(interface) as stack, stack.udp(("::", port)) as sock:
        stack.hook("netfilter.input", OncePerSecond(), name="once-per-second")
        print("ready", flush=True)
        while True:
            sock.sendto(*sock.recvfrom(65535))


if __name__ == "__main__":
    main()
