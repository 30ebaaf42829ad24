"""A UDP echo server on AF_XDP: udp_echo.py INTERFACE PORT. Every address of the interface, IPv4 and IPv6."""

import signal
import sys

import xdpstack


def main() -> None:
    interface, port = sys.argv[1], int(sys.argv[2])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with xdpstack.open(interface) as stack, stack.udp(("::", port)) as sock:
            print(f"echo on {interface}, port {port}: {', '.join(stack.addresses())}", flush=True)
            while True:
                data, address = sock.recvfrom(65535)
                sock.sendto(data, address)
    except KeyboardInterrupt:
        print("bye", flush=True)


if __name__ == "__main__":
    main()
