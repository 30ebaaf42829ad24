"""A bridge of two ports: bridge.py INTERFACE INTERFACE. What comes by one leaves by the other, ARP included."""

import sys

import xdpstack


def main() -> None:
    left, right = sys.argv[1:3]
    everything = xdpstack.EverythingBut(any_mac=True, include=xdpstack.Essential.ARP | xdpstack.Essential.ND)
    with xdpstack.open(left, right) as stack, stack.redirect(everything, to={left: right, right: left}):
        print("ready", flush=True)
        stack.run()


if __name__ == "__main__":
    main()
