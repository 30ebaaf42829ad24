"""Rings: first in, first out, over the wrap-around of 32-bit indices, and never more than fits."""

import ctypes
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.csrc.compile import load

FIRSTS = [0, 0x7FFFFFF0, 0xFFFFFFF0, 0xFFFFFFFF]
moves = st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=200)


def library() -> Any:
    loaded = load("pool_harness.c")
    loaded.ring_make.restype = loaded.spsc_make.restype = ctypes.c_void_p
    for name in ("ring_put", "ring_take", "spsc_push", "spsc_pop", "spsc_len"):
        getattr(loaded, name).restype = ctypes.c_uint32
    return loaded


@pytest.mark.parametrize("first", FIRSTS)
@settings(max_examples=60, deadline=None)
@given(moves=moves)
def test_a_shared_ring_is_a_bounded_queue(first: int, moves: list[tuple[bool, int]]) -> None:
    lib = library()
    ring = ctypes.c_void_p(lib.ring_make(16, ctypes.c_uint32(first)))
    model: deque[int] = deque()
    value = 0
    for put, n in moves:
        room = (ctypes.c_uint32 * 32)(*range(value, value + n))
        if put:
            done = lib.ring_put(ring, room, n)
            assert done == min(n, 16 - len(model))
            model.extend(range(value, value + done))
            value += done
        else:
            done = lib.ring_take(ring, room, n)
            assert done == min(n, len(model))
            assert list(room[:done]) == [model.popleft() for _ in range(done)]
    lib.ring_free(ring)


@pytest.mark.parametrize("first", FIRSTS)
@settings(max_examples=60, deadline=None)
@given(moves=moves)
def test_our_own_ring_shows_what_was_flushed(first: int, moves: list[tuple[bool, int]]) -> None:
    lib = library()
    ring = ctypes.c_void_p(lib.spsc_make(16, ctypes.c_uint32(first)))
    pushed: deque[int] = deque()
    flushed: deque[int] = deque()
    value = 0
    for push, n in moves:
        room = (ctypes.c_uint32 * 32)()
        if push and n:
            for _ in range(n):
                done = lib.spsc_push(ring, value)
                assert done == (len(pushed) + len(flushed) < 16)
                pushed.extend([value] * done)
                value += done
        elif push:
            lib.spsc_flush(ring)
            flushed.extend(pushed)
            pushed.clear()
        else:
            done = lib.spsc_pop(ring, room, n)
            assert done == min(n, len(flushed))
            assert list(room[:done]) == [flushed.popleft() for _ in range(done)]
        assert lib.spsc_len(ring) == len(flushed)
    lib.spsc_free(ring)
