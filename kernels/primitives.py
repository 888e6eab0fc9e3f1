"""The scalar vocabulary of the kernels: every literal in them is typed, for mixed integers become floats.

Numba's rules (the same on both twins): uint64 with a plain literal is int64, ``uint64 / 2`` is a float.
"""

from __future__ import annotations

from typing import Any

import numpy as np

u64 = np.uint64
i64 = np.int64
i32 = np.int32

Int = Any
"""An integer inside a kernel: compiled, it has a width of its own; to Python it is an int or a NumPy scalar."""
Bytes = Any
"""A one-dimensional uint8 array, on whichever side the function is compiled for."""
