"""`python -m xdpstack` is the xdpstack command."""

from xdpstack.cli.main import main

main()
