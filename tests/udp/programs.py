"""Hypothesis: classic BPF programs that pass the check, and now and then do something with a datagram."""

from __future__ import annotations

from hypothesis import strategies as st

from xdpstack.udp import bpf
from xdpstack.udp.bpf import ABS, IND, JMP, LD, LDX, LEN, MEM, MSH, RET, ST, STX, A, Instruction, K

NET = bpf.NET_OFF & 0xFFFFFFFF
AD = bpf.AD_OFF & 0xFFFFFFFF
numbers = st.sampled_from([0, 1, 2, 7, 8, 31, 0xFF, 0xFFFF, 0xFFFFFFFF]) | st.integers(0, 0xFFFFFFFF)
offsets = st.integers(0, 40) | st.integers(0, 30).map(lambda n: NET + n)
plain = st.sampled_from(sorted(code for code in bpf.CODES if code & 7 in (bpf.ALU, bpf.MISC)))


@st.composite
def steps(draw: st.DrawFn) -> Instruction:
    """One instruction that goes on to the next; all memory was written before."""
    kind = draw(st.integers(0, 6))
    if kind == 0:
        size = draw(st.sampled_from([bpf.W, bpf.H, bpf.B]))
        return Instruction(LD | ABS | size, 0, 0, draw(offsets))
    if kind == 1:
        return Instruction(LD | IND | bpf.B, 0, 0, draw(st.integers(0, 12)))
    if kind == 2:
        return Instruction(draw(st.sampled_from([LD | LEN, LDX | LEN, LD, LDX])), 0, 0, draw(numbers))
    if kind == 3:
        return Instruction(LDX | bpf.B | MSH, 0, 0, draw(offsets))
    if kind == 4:
        word = draw(st.integers(0, 3))
        return Instruction(draw(st.sampled_from([LD | MEM, LDX | MEM, ST, STX])), 0, 0, word)
    if kind == 5:
        return Instruction(LD | ABS | bpf.W, 0, 0, AD + draw(st.sampled_from([bpf.AD_PROTOCOL, bpf.AD_MARK])))
    code = draw(plain)
    value = draw(numbers)
    if code in (bpf.ALU | bpf.DIV, bpf.ALU | bpf.MOD):
        value = value or 1
    if code in (bpf.ALU | bpf.LSH, bpf.ALU | bpf.RSH):
        value %= 32
    return Instruction(code, 0, 0, value)


@st.composite
def programs(draw: st.DrawFn) -> list[Instruction]:
    """Memory written, then steps and forward jumps, then returns of several kinds."""
    body = draw(st.lists(steps(), max_size=12))
    made = [Instruction(ST, 0, 0, word) for word in range(4)]
    for at, one in enumerate(body):
        made.append(one)
        if draw(st.integers(0, 3)) == 0:
            left = len(body) - at - 1
            op = draw(st.sampled_from([bpf.JEQ, bpf.JGT, bpf.JGE, bpf.JSET]))
            source = draw(st.sampled_from([K, bpf.X]))
            jumps = draw(st.integers(0, left)), draw(st.integers(0, left))
            made.append(Instruction(JMP | op | source, *jumps, draw(numbers)))
    made.append(draw(st.sampled_from([Instruction(RET | A, 0, 0, 0), Instruction(bpf.ALU | bpf.AND, 0, 0, 15)])))
    made.append(Instruction(RET | A, 0, 0, 0))
    made.append(Instruction(RET | K, 0, 0, draw(st.sampled_from([0, 4, 8, 12, 0xFFFFFFFF]))))
    return made
