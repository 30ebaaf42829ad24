"""Socket filters: classic BPF, as SO_ATTACH_FILTER takes it. This is the definition of csrc/tables/filter.c.

A program is a list of instructions (code, jt, jf, k). It sees a datagram from its UDP header on, the IP header at
SKF_NET_OFF, the Ethernet header at SKF_LL_OFF, and some facts at SKF_AD_OFF. What it returns is how many bytes to keep, the
UDP header included, which is never cut; 0 drops the datagram. Source: net/core/filter.c (bpf_check_classic,
bpf_convert_filter), include/uapi/linux/filter.h.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from xdpstack.errors import ConfigurationError

#: BPF_MAXINSNS, BPF_MEMWORDS.
LONGEST, MEMORY_WORDS = 4096, 16
AD_OFF, NET_OFF, LL_OFF = -0x1000, -0x100000, -0x200000
#: SKF_AD_*: the facts that are there.
AD_PROTOCOL, AD_PKTTYPE, AD_IFINDEX, AD_MARK, AD_QUEUE = 0, 4, 8, 20, 24
ANCILLARY = (AD_PROTOCOL, AD_PKTTYPE, AD_IFINDEX, AD_MARK, AD_QUEUE)

LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)
W, H, B = 0x00, 0x08, 0x10
IMM, ABS, IND, MEM, LEN, MSH = 0x00, 0x20, 0x40, 0x60, 0x80, 0xA0
ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, NEG, MOD, XOR = (n << 4 for n in range(11))
JA, JEQ, JGT, JGE, JSET = 0x00, 0x10, 0x20, 0x30, 0x40
K, X, A = 0x00, 0x08, 0x10
TAX, TXA = 0x00, 0x80

_ALU = (ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, MOD, XOR)
#: Every instruction there is (chk_code_allowed()).
CODES = frozenset(
    [op | ALU | source for op in _ALU for source in (K, X)]
    + [ALU | NEG]
    + [LD | mode | size for mode in (ABS, IND) for size in (W, H, B)]
    + [LD | LEN, LDX | LEN, LDX | B | MSH, LD | IMM, LDX | IMM, LD | MEM, LDX | MEM, ST, STX]
    + [MISC | TAX, MISC | TXA, RET | K, RET | A, JMP | JA]
    + [JMP | op | source for op in (JEQ, JGT, JGE, JSET) for source in (K, X)]
)


class Instruction(NamedTuple):
    """One instruction of classic BPF; jumps count from the next one."""

    code: int
    jt: int
    jf: int
    k: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What a program may look at. `data` from the UDP header to the end of the datagram; `before` the headers up to there.

    `network` is the offset of the IP header in `before`, whose start is the Ethernet header. `facts` by SKF_AD_ number.
    """

    data: bytes
    before: bytes = b""
    network: int = 0
    facts: Mapping[int, int] = field(default_factory=dict)

    def load(self, offset: int, size: int) -> int | None:
        """`size` bytes at a signed 32-bit offset, as a number; None when they are not there."""
        if offset >= 0:
            start = len(self.before) + offset
        elif offset >= AD_OFF:
            return self.facts.get(offset - AD_OFF)
        elif offset >= NET_OFF:
            start = self.network + offset - NET_OFF
        elif offset >= LL_OFF:
            start = offset - LL_OFF
        else:
            return None
        whole = self.before + self.data
        return int.from_bytes(whole[start : start + size]) if start + size <= len(whole) else None


def checked(program: Sequence[Sequence[int]]) -> list[Instruction]:
    """The program, if it is one (bpf_check_classic()). Raises ConfigurationError that names the instruction at fault."""
    made = [Instruction(*one) for one in program]
    if not 0 < len(made) <= LONGEST:
        raise ConfigurationError(f"a filter has 1 to {LONGEST} instructions, not {len(made)}")
    for at, one in enumerate(made):
        fault = _fault(one, at, len(made))
        if fault:
            raise ConfigurationError(
                f"filter instruction {at} ({one.code:#x}, {one.jt}, {one.jf}, {one.k:#x}): {fault}"
            )
    if made[-1].code not in (RET | K, RET | A):
        raise ConfigurationError("a filter ends with a return")
    _check_memory(made)
    return made


def _fault(one: Instruction, at: int, n: int) -> str | None:
    left = n - at - 1
    if one.code not in CODES or not (0 <= one.jt < 256 and 0 <= one.jf < 256 and 0 <= one.k < 2**32):
        return "there is no such instruction"
    if one.code in (ALU | DIV, ALU | MOD) and one.k == 0:
        return "division by zero"
    if one.code in (ALU | LSH, ALU | RSH) and one.k >= 32:
        return "a shift by 32 or more"
    if one.code in (LD | MEM, LDX | MEM, ST, STX) and one.k >= MEMORY_WORDS:
        return f"there are {MEMORY_WORDS} words of memory"
    if one.code == JMP | JA and one.k >= left:
        return "it jumps beyond the end"
    if one.code & 7 == JMP and one.code != JMP | JA and max(one.jt, one.jf) >= left:
        return "it jumps beyond the end"
    if one.code & 0xE7 == LD | ABS and AD_OFF <= signed(one.k) < 0 and signed(one.k) - AD_OFF not in ANCILLARY:
        return "this fact about a packet is not there (protocol, packet type, ifindex, mark and queue are)"
    return None


def _check_memory(program: Sequence[Instruction]) -> None:
    """check_load_and_stores(): no word of memory is read that may not have been written."""
    everything = (1 << MEMORY_WORDS) - 1
    known = [everything] * len(program)
    valid = 0
    for at, one in enumerate(program):
        valid &= known[at]
        if one.code in (ST, STX):
            valid |= 1 << one.k
        elif one.code in (LD | MEM, LDX | MEM) and not valid >> one.k & 1:
            raise ConfigurationError(f"filter instruction {at} reads memory that may not have been written")
        elif one.code == JMP | JA:
            known[at + 1 + one.k] &= valid
            valid = everything
        elif one.code & 7 == JMP:
            known[at + 1 + one.jt] &= valid
            known[at + 1 + one.jf] &= valid
            valid = everything


def run(program: Sequence[Instruction], seen: Seen) -> int:
    """What a checked program returns. A load of what is not there, and division by a zero X, return 0."""
    a = x = at = 0
    memory = [0] * MEMORY_WORDS
    while True:
        one = program[at]
        at += 1
        kind, operand = one.code & 7, x if one.code & X else one.k
        if kind == RET:
            return a if one.code & 0x18 == A else one.k
        if kind in (LD, LDX):
            value = _value(one, x, memory, seen)
            if value is None:
                return 0
            a, x = (value, x) if kind == LD else (a, value)
        elif kind == ST:
            memory[one.k] = a
        elif kind == STX:
            memory[one.k] = x
        elif kind == ALU:
            operation = one.code & 0xF0
            if operation in (DIV, MOD) and operand == 0:
                return 0
            a = ARITHMETIC[operation](a, operand) & 0xFFFFFFFF
        elif kind == JMP:
            condition = one.code & 0xF0
            at += one.k if condition == JA else one.jt if CONDITIONS[condition](a, operand) else one.jf
        elif one.code & 0x80 == TXA:
            a = x
        else:
            x = a


def _value(one: Instruction, x: int, memory: Sequence[int], seen: Seen) -> int | None:
    mode = one.code & 0xE0
    if mode == IMM:
        return one.k
    if mode == MEM:
        return memory[one.k]
    if mode == LEN:
        return len(seen.data)
    if mode == MSH:
        byte = seen.load(signed(one.k), 1)
        return None if byte is None else (byte & 15) << 2
    size = {W: 4, H: 2, B: 1}[one.code & 0x18]
    return seen.load(signed(x + one.k if mode == IND else one.k), size)


ARITHMETIC: Mapping[int, Callable[[int, int], int]] = {
    ADD: lambda a, b: a + b,
    SUB: lambda a, b: a - b,
    MUL: lambda a, b: a * b,
    DIV: lambda a, b: a // b,
    MOD: lambda a, b: a % b,
    AND: lambda a, b: a & b,
    OR: lambda a, b: a | b,
    XOR: lambda a, b: a ^ b,
    LSH: lambda a, b: a << (b & 31),
    RSH: lambda a, b: a >> (b & 31),
    NEG: lambda a, _: -a,
}
CONDITIONS: Mapping[int, Callable[[int, int], bool]] = {
    JEQ: lambda a, b: a == b,
    JGT: lambda a, b: a > b,
    JGE: lambda a, b: a >= b,
    JSET: lambda a, b: bool(a & b),
}


def signed(k: int) -> int:
    """A 32-bit number as the kernel takes an offset."""
    k &= 0xFFFFFFFF
    return k - 2**32 if k >= 2**31 else k
