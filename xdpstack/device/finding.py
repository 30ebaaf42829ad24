"""What the doctor finds: plain values, and how bad each is."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass


class Level(enum.StrEnum):
    """How bad: OK and NOTE are as they should be, WARNING runs but may surprise, ERROR does not run."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `cause` and `fix` are sentences; `command` mends it, where one command does."""

    level: Level
    subject: str
    what: str
    cause: str = ""
    fix: str = ""
    command: str = ""

    def as_json(self) -> dict[str, str]:
        """Values for JSON."""
        return {key: str(value) for key, value in asdict(self).items()}


def ok(subject: str, what: str) -> Finding:
    """As it should be."""
    return Finding(Level.OK, subject, what)


def note(subject: str, what: str, cause: str = "", fix: str = "", command: str = "") -> Finding:
    """Good to know."""
    return Finding(Level.NOTE, subject, what, cause, fix, command)


def warning(subject: str, what: str, cause: str = "", fix: str = "", command: str = "") -> Finding:
    """It runs, with a surprise."""
    return Finding(Level.WARNING, subject, what, cause, fix, command)


def error(subject: str, what: str, cause: str = "", fix: str = "", command: str = "") -> Finding:
    """It does not run."""
    return Finding(Level.ERROR, subject, what, cause, fix, command)
