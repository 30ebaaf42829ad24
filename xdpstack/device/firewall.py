"""Rules of the host's firewall that lifted packets pass by: those that would have dropped them.

nft lists the ruleset as JSON (libnftables-json(5)). A rule is listed if it drops or rejects on the way in, and nothing it
matches on rules out the device, UDP, or the port. So a rule may be listed that would not have met a packet after all; none
that would is left out, within the chains that are reached from a base chain at prerouting or input.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOOKS = {"prerouting", "input", "ingress"}
FAMILIES = {"ip", "ip6", "inet", "netdev"}
TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule, or the policy of a base chain (`handle` 0), that drops or rejects."""

    family: str
    table: str
    chain: str
    handle: int
    what: str

    def __str__(self) -> str:
        where = f"{self.family} {self.table} {self.chain}"
        return f"{where}: {self.what}" + (f" (handle {self.handle})" if self.handle else "")


def ruleset() -> list[dict[str, Any]] | None:
    """The objects of `nft -j list ruleset`, in the calling thread's namespace; None if it cannot be listed."""
    program = shutil.which("nft") or shutil.which("nft", path="/usr/sbin:/sbin")
    if program is None:
        return None
    try:
        words = [program, "-j", "list", "ruleset"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True)
        objects: list[dict[str, Any]] = json.loads(done.stdout)["nftables"]
    except (OSError, ValueError, KeyError, subprocess.SubprocessError):
        return None
    return objects


def legacy_tables() -> list[str]:
    """The tables of iptables-legacy in use, which nft does not list; in the calling thread's namespace."""
    found = []
    for family in ("ip", "ip6"):
        try:
            names = Path(f"/proc/thread-self/net/{family}_tables_names").read_text().split()
        except OSError:
            continue
        found += [f"{family} {name}" for name in names]
    return found


def dropping(objects: list[dict[str, Any]], device: str, port: int | None = None) -> list[Rule]:
    """The rules that would drop UDP packets which come in on `device` (to `port`, or to some port for None)."""
    chains = {_key(each["chain"]): each["chain"] for each in objects if "chain" in each}
    rules: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for each in objects:
        if "rule" in each:
            rules.setdefault((each["rule"]["family"], each["rule"]["table"], each["rule"]["chain"]), []).append(
                each["rule"]
            )
    found: list[Rule] = []
    seen: set[tuple[str, str, str]] = set()
    reached = [key for key, chain in chains.items() if chain.get("hook") in HOOKS and chain["family"] in FAMILIES]
    while reached:
        key = reached.pop(0)
        if key in seen:
            continue
        seen.add(key)
        if chains.get(key, {}).get("policy") == "drop":
            found.append(Rule(*key, 0, "policy drop"))
        for rule in rules.get(key, ()):
            expressions = rule.get("expr", [])
            if not _may_match(expressions, device, port):
                continue
            verdict = next((name for each in expressions for name in each if name in ("drop", "reject")), "")
            if verdict:
                found.append(Rule(*key, rule.get("handle", 0), f"{_text(expressions)} {verdict}".strip()))
            reached += [(key[0], key[1], target) for target in _targets(expressions)]
    return found


def _key(chain: dict[str, Any]) -> tuple[str, str, str]:
    return chain["family"], chain["table"], chain["name"]


def _targets(expressions: Any) -> Iterator[str]:
    """The chains that a rule jumps or goes to, in verdict maps too."""
    if isinstance(expressions, dict):
        for name, value in expressions.items():
            if name in ("jump", "goto") and isinstance(value, dict) and "target" in value:
                yield value["target"]
            else:
                yield from _targets(value)
    elif isinstance(expressions, list):
        for each in expressions:
            yield from _targets(each)


def _may_match(expressions: list[dict[str, Any]], device: str, port: int | None) -> bool:
    """False only if a match rules out every UDP packet from `device` to `port`."""
    return all(_admits(each["match"], device, port) for each in expressions if "match" in each)


def _admits(match: dict[str, Any], device: str, port: int | None) -> bool:
    left, right, operator = match.get("left"), match.get("right"), match.get("op")
    if not isinstance(left, dict) or operator not in ("==", "!=", "in"):
        return True
    wanted: Any = None
    if "meta" in left:
        key = left["meta"].get("key")
        wanted = {"iifname": device, "l4proto": "udp"}.get(key)
    elif "payload" in left:
        protocol, field = left["payload"].get("protocol"), left["payload"].get("field")
        if protocol in ("tcp", "icmp", "icmpv6", "sctp", "dccp", "esp", "ah"):
            return False
        if (protocol, field) in (("udp", "dport"), ("th", "dport")):
            wanted = port
        elif (protocol, field) in (("ip", "protocol"), ("ip6", "nexthdr")):
            wanted = "udp"
    if wanted is None:
        return True
    held = _holds(right, wanted)
    return held is None or held == (operator != "!=")


def _holds(right: Any, wanted: Any) -> bool | None:
    """Whether a right side holds a value; None if that cannot be told (a named set, say)."""
    if isinstance(right, str) and right.startswith("@"):
        return None
    if isinstance(right, str) and right.endswith("*"):
        return str(wanted).startswith(right[:-1])
    if isinstance(right, str | int):
        return bool(right == wanted) or (wanted == "udp" and right == 17)
    if isinstance(right, list):
        return _any([_holds(each, wanted) for each in right])
    if isinstance(right, dict):
        if "set" in right:
            return _holds(right["set"], wanted)
        if "range" in right and isinstance(wanted, int):
            first, last = right["range"]
            return bool(first <= wanted <= last) if isinstance(first, int) and isinstance(last, int) else None
    return None


def _any(answers: list[bool | None]) -> bool | None:
    return True if True in answers else None if None in answers else False


def _text(expressions: list[dict[str, Any]]) -> str:
    """The matches of a rule, for a person."""
    words = []
    for each in expressions:
        if "match" not in each:
            continue
        left, right = each["match"].get("left"), each["match"].get("right")
        words.append(f"{_side(left)} {'' if each['match'].get('op') in ('==', 'in') else '!= '}{_side(right)}")
    return " ".join(words)


def _side(side: Any) -> str:
    if isinstance(side, dict):
        if "meta" in side:
            return str(side["meta"].get("key"))
        if "payload" in side:
            payload = side["payload"]
            return f"{payload.get('protocol', '@' + str(payload.get('base')))} {payload.get('field', '')}".strip()
        if "set" in side:
            return _side(side["set"])
        if "range" in side:
            return "-".join(map(_side, side["range"]))
        if "prefix" in side:
            return f"{side['prefix'].get('addr')}/{side['prefix'].get('len')}"
        if "ct" in side:
            return f"ct {side['ct'].get('key')}"
        return next(iter(side), "")
    if isinstance(side, list):
        return "{ " + ", ".join(map(_side, side)) + " }"
    return str(side)
