"""A running stack answers questions: `xdpstack show` and `xdpstack trace` ask over a Unix socket.

One request a connection: a line of JSON in (`{"ask": "counters"}`), a line of JSON out (`{"ok": …}` or `{"error": …}`). The
socket is `DIRECTORY/<pid>-<number>.sock`, readable by its owner alone, and goes with the stack; a stale one (its process was
killed) is removed by whoever finds it, and by the next stack that opens. That of a process that has become another user's is
in `DIRECTORY/<user's number>`.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import logging
import os
import socket
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger("xdpstack")

DIRECTORY = Path(os.environ.get("XDPSTACK_RUN", "/run/xdpstack"))
#: Seconds that one request may take, on either side.
TIMEOUT = 5.0
#: Bytes of a request at most.
_LINE = 4096

_number = itertools.count()
_open: weakref.WeakSet[Server] = weakref.WeakSet()


class Server:
    """The answering side. `handle()` serves one connection; call it when `fileno()` is readable."""

    def __init__(self, answers: Mapping[str, Callable[..., Any]], directory: Path = DIRECTORY) -> None:
        """`answers` maps a question's name to what answers it (keyword arguments come from the request).

        Raises OSError when the directory cannot be made or written.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        running(directory)  # those of processes that were killed go, or they would pile up
        self.path = directory / f"{os.getpid()}-{next(_number)}.sock"
        self._answers = answers
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()  # of a process of the same number that was killed
            self._socket.bind(str(self.path))
            self.path.chmod(0o600)
            self._socket.listen(8)
            undo.pop_all()
        _open.add(self)

    def hand_over(self, uid: int, gid: int) -> None:
        """Where it answers is to be that user's, who can then remove it: in a directory of his. Raises OSError."""
        folder = self.path.parent / str(uid)
        self.path.parent.chmod(self.path.parent.stat().st_mode | 0o111)
        folder.mkdir(mode=0o700, exist_ok=True)
        os.chown(folder, uid, gid, follow_symlinks=False)
        os.chown(self.path, uid, gid, follow_symlinks=False)
        self.path = self.path.rename(folder / self.path.name)

    def fileno(self) -> int:
        """Readable when somebody asks."""
        return self._socket.fileno()

    def handle(self) -> None:
        """Answer one request, if there is one."""
        try:
            connection, _ = self._socket.accept()
        except BlockingIOError:
            return
        with connection:
            connection.settimeout(TIMEOUT)
            try:
                request = _read_line(connection)
                reply: dict[str, Any] = {"ok": self._answer(json.loads(request))}
            except Exception as error:
                reply = {"error": f"{type(error).__name__}: {error}"}
            with contextlib.suppress(OSError):
                connection.sendall(json.dumps(reply).encode() + b"\n")

    def _answer(self, request: Mapping[str, Any]) -> Any:
        arguments = dict(request)
        question = str(arguments.pop("ask", ""))
        if question not in self._answers:
            raise KeyError(f"cannot answer {question!r}; can: {', '.join(sorted(self._answers))}")
        return self._answers[question](**arguments)

    def close(self) -> None:
        """Stop answering and remove the socket."""
        _open.discard(self)
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


def servers() -> list[Server]:
    """Those of this process."""
    return [each for each in _open if each.path.name.startswith(f"{os.getpid()}-")]


def running(directory: Path = DIRECTORY) -> list[Path]:
    """The sockets of running stacks, oldest first. Stale ones are removed; others, as a broker's, are not looked at."""
    found = []
    for path in (*directory.glob("[0-9]*-*.sock"), *directory.glob("[0-9]*/[0-9]*-*.sock")):
        with contextlib.suppress(OSError, ValueError):  # gone meanwhile; or not ours
            pid = int(path.name.partition("-")[0])
            if Path(f"/proc/{pid}").exists():
                found.append((path.stat().st_mtime, path))
            elif _is_refused(path):  # else its process is in another PID namespace
                path.unlink()
    return [path for _, path in sorted(found)]


def _is_refused(path: Path) -> bool:
    """Whether nobody listens there any more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
        return connection.connect_ex(str(path)) == errno.ECONNREFUSED


def ask(path: Path, question: str, timeout: float = TIMEOUT, **arguments: Any) -> Any:
    """Ask the stack behind `path`. Raises OSError when it is not reached, RuntimeError when it cannot answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect(str(path))
        connection.sendall(json.dumps({"ask": question, **arguments}).encode() + b"\n")
        reply = json.loads(_read_line(connection, most=64 << 20))
    if "error" in reply:
        raise RuntimeError(reply["error"])
    return reply["ok"]


def _read_line(connection: socket.socket, most: int = _LINE) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        part = connection.recv(65536)
        parts.append(part)
        size += len(part)
        if not part or part.endswith(b"\n"):
            return b"".join(parts)
        if size > most:
            raise ValueError(f"a request has at most {most} bytes")
