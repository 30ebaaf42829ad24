# The cffi module: its names are those of csrc/ffi/*.cdef.h, which cffi knows and a type checker does not.
from typing import Any

ffi: Any
lib: Any
