"""The public surface: what `xdpstack` exports is there, documented, and nothing else is public by accident."""

import importlib
import inspect
import re
import socket
import subprocess
import sys
from types import ModuleType

import xdpstack
from tests.house.tree import ROOT, files, text
from xdpstack.testing import memory_stack


def modules() -> list[ModuleType]:
    """Every module of the package, imported."""
    names = (path.with_suffix("") for path in files("xdpstack/**/*.py") if path.name != "__main__.py")
    return [importlib.import_module(".".join(name.parts).removesuffix(".__init__")) for name in names]


def test_what_modules_export_is_there() -> None:
    for module in modules():
        exported = getattr(module, "__all__", [])
        assert len(set(exported)) == len(exported), module
        assert [name for name in exported if not hasattr(module, name)] == [], module


def test_what_is_exported_is_documented() -> None:
    exported = {name: getattr(xdpstack, name) for name in xdpstack.__all__}
    of_code = {name: value for name, value in exported.items() if inspect.isclass(value) or inspect.isroutine(value)}
    assert [name for name, value in of_code.items() if not inspect.getdoc(value)] == []


def test_nothing_else_is_public() -> None:
    public = {
        name for name, value in vars(xdpstack).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public - set(xdpstack.__all__) - {"annotations"} == set()


def test_every_exception_says_what_it_means() -> None:
    errors = vars(importlib.import_module("xdpstack.errors"))
    classes = {value for value in errors.values() if inspect.isclass(value) and issubclass(value, BaseException)}
    assert {kind for kind in classes if not kind.__doc__ or not issubclass(kind, xdpstack.XdpstackError)} == set()


def test_every_exception_can_be_caught_by_its_name() -> None:
    """Those that modules keep to themselves are not of the family: they never reach a user."""
    exported = {getattr(xdpstack, name) for name in xdpstack.__all__}
    defined = {kind for module in modules() for kind in vars(module).values() if inspect.isclass(kind)}
    assert {kind for kind in defined if issubclass(kind, xdpstack.XdpstackError)} - exported == set()


def test_what_an_error_says_does_without_the_extension() -> None:
    """A command that only asks, and a test run that only loads the plugin, catch errors too."""
    code = "import sys, xdpstack; xdpstack.QueueTaken; print('xdpstack.native' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_package_says_that_it_is_typed() -> None:
    assert text("xdpstack/py.typed") == ""


STACK = """addresses close closed counters devices driven events frames frames_by_owner hook info ledger poll reasons
    redirect rps rps_off run snapshot stop trace_read trace_start trace_stop udp unhook"""

SOCKET = """attach_filter close closed connect errors family fileno getblocking getpeername getsockname getsockopt
    gettimeout proto recv recv_batch recv_into recvfrom recvfrom_into reserved send send_batch sendto setblocking setsockopt
    settimeout stats type"""


def test_a_stack_shows_what_is_for_users() -> None:
    """What its own parts ask of it is xdpstack/host.py."""
    with memory_stack() as stack:
        mine = {name for name in dir(xdpstack.Stack) if not name.startswith("_")}
        made = {name for name in vars(stack) if not name.startswith("_")} - {"backend"}
    assert mine | made == set(STACK.split())


def test_a_socket_shows_what_is_for_users() -> None:
    """What its layer does with it is xdpstack/udp/endpoint.py. What `socket.socket` has not is in docs/sockets.md."""
    with memory_stack() as stack, stack.udp(("", 7)) as sock:
        shown = {name for name in dir(sock) if not name.startswith("_")}
    assert shown == set(SOCKET.split())
    document = text("docs/sockets.md")
    assert [name for name in shown - set(dir(socket.socket)) if not re.search(rf"`(sock\.)?{name}\b", document)] == []
