"""The tests use the plugin that the package ships, also from a tree that is not installed."""

import signal

pytest_plugins = ["pytester", "xdpstack.testing.plugin"]

# A shell starts what it puts in the background with SIGINT ignored, and so would be every program that the tests start and
# interrupt. A handler is not inherited: what is started then has the default.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
