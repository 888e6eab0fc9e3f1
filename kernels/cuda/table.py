"""Where things lie in the one array of int64 that the kernels of a block share, and typed copies of the layout.

::

    0                   FAILURE         RESULTS                          TABLE
    | outcome of a scan | the failures  | columns x RESULT_WIDTH         | columns x DESCRIPTOR_WIDTH |

Indices are uint64 in kernels: mixed with signed ones Numba would add a check for negative indices, or make floats.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from kernels import layout
from kernels.primitives import u64
from kernels.typing import Int64s

# What a scan found.
ROWS: Final = u64(0)
POSITION: Final = u64(1)
"""The next byte to look at, unless there were more rows than wanted."""
STOP: Final = u64(2)
"""One of SCAN_*, GOES_ON, or BROKEN plus a failure code."""
EVENT: Final = u64(3)
"""Twice the segment where the proven prefix ends, plus one if that segment is a part of it."""
LIMIT_POSITION: Final = u64(4)
"""End of the last wanted row, where there were enough."""
SCAN_WORDS: Final = 8

# What decode found.
FAILURE: Final = u64(8)
"""The smallest packed failure of a field, or NO_FAILURE."""
TEXT_FAILURE: Final = u64(9)
"""The same of values that are not UTF-8: looked for only once all fields are sound."""
ROW_FAILURE: Final = u64(10)
"""The same of the rows' own fields, where the failures are those of parts."""
RESULTS: Final = u64(16)

NO_FAILURE: Final = np.iinfo(np.int64).max
"""Larger than any packed failure: row << 24 | column << 8 | code, so that the smallest is the first."""

GOES_ON: Final = 64
"""The walk met a row: no reason to stop."""
BROKEN: Final = 32
"""Added to the failure code that stopped a walk."""
NOWHERE: Final = 0xFFFFFFFF
"""A segment in which no row seems to start."""

# Rows of the table of segments, uint32 each.
ENTER: Final = 0
"""Where the first row of the segment seems to start."""
EXIT: Final = 1
"""The first message at or behind the segment's end, or where the walk stopped."""
COUNT: Final = 2
"""Rows that start in the segment."""
REASON: Final = 3
"""GOES_ON, or why the walk stopped."""
FIRST: Final = 4
"""Rows before the segment."""
SEGMENT_WIDTH: Final = 5

# kernels/layout.py, as uint64: SHAPE and its neighbours index a row of the descriptor table.
SHAPE: Final = u64(layout.SHAPE)
WIDTH: Final = u64(layout.WIDTH)
BIAS: Final = u64(layout.BIAS)
LOW: Final = u64(layout.LOW)
HIGH: Final = u64(layout.HIGH)
INFINITY: Final = u64(layout.INFINITY)
PREFIX: Final = u64(layout.PREFIX)
PRECISION: Final = u64(layout.PRECISION)
SCALE: Final = u64(layout.SCALE)
UTF8: Final = u64(layout.UTF8)
VALIDITY_AT: Final = u64(layout.VALIDITY_AT)
VALUES_AT: Final = u64(layout.VALUES_AT)
SOURCE: Final = u64(layout.SOURCE)
"""Here: where in the scratch memory the sources of a VARLEN or VECTOR node begin."""
PLACES: Final = u64(layout.PLACES)
"""Here: where in the scratch memory the places of a part begin."""
CHILD: Final = u64(layout.CHILD)
CHILDREN: Final = u64(layout.CHILDREN)
OID: Final = u64(layout.OID)
ITEMS: Final = u64(layout.DESCRIPTOR_WIDTH)
"""The number of values."""
OFFSETS: Final = u64(layout.DESCRIPTOR_WIDTH + 1)
"""Where in the scratch memory the offsets of a list begin."""
DESCRIPTOR_WIDTH: Final = u64(layout.DESCRIPTOR_WIDTH + 2)
NULLS: Final = u64(layout.NULLS)
DATA_AT: Final = u64(layout.DATA_AT)
DATA_BYTES: Final = u64(layout.DATA_BYTES)
RESULT_WIDTH: Final = u64(layout.RESULT_WIDTH)
ALIGN: Final = u64(layout.BUFFER_ALIGN_BYTES)


def table_at(columns: int) -> int:
    """Return the index of the descriptor table of that many columns."""
    return int(RESULTS) + columns * layout.RESULT_WIDTH


def state_words(columns: int) -> int:
    """Return the size of the array for that many columns."""
    return table_at(columns) + columns * int(DESCRIPTOR_WIDTH)


def widened(descriptors: Int64s, items: Int64s) -> Int64s:
    """Return the descriptor table as the kernels see it, each row with its number of values."""
    table = np.zeros((len(descriptors), int(DESCRIPTOR_WIDTH)), np.int64)
    table[:, : layout.DESCRIPTOR_WIDTH] = descriptors
    table[:, int(ITEMS)] = items
    return table


def sheet_of(table: Int64s) -> Int64s:
    """Return what the array holds behind the outcome of a scan, before anything is found."""
    columns = len(table)
    sheet = np.zeros(state_words(columns) - SCAN_WORDS, np.int64)
    sheet[: int(RESULTS) - SCAN_WORDS] = NO_FAILURE
    sheet[table_at(columns) - SCAN_WORDS :] = table.ravel()
    return sheet
