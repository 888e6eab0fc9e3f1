"""The flat tables that plan and kernels share: decode shapes, descriptor columns, failure codes.

Plain integers, not enums: host and CUDA kernels read them as compile-time constants.
"""

from __future__ import annotations

from typing import Final

# Decode shapes: how the bytes of a field become Arrow buffers.
BOOL: Final = 0
"""One byte 0 or 1 -> one bit."""
FIXED: Final = 1
"""Big-endian integer or float of WIDTH 2, 4 or 8 bytes, plus BIAS -> the same width, little-endian."""
BYTES: Final = 2
"""Exactly WIDTH bytes, copied."""
VARLEN: Final = 3
"""Any number of bytes (after a PREFIX byte where there is one) -> int32 offsets and data."""
NUMERIC: Final = 4
"""Base-10000 digits -> two's complement decimal of WIDTH 16 or 32 bytes with SCALE fraction digits."""
INTERVAL: Final = 5
"""(int64 us, int32 days, int32 months) -> (int32 months, int32 days, int64 ns)."""
LIST: Final = 6
"""A one-dimensional array -> int32 offsets and one child; its lower bound must be BIAS."""
STRUCT: Final = 7
"""A composite -> one child per attribute."""
RANGE: Final = 8
"""A range -> three children: lower bound, upper bound, and BARE flags."""
MULTIRANGE: Final = 9
"""Counted ranges -> int32 offsets and one RANGE child."""
MAP: Final = 10
"""hstore's counted pairs -> int32 offsets and two children: key and value."""
BARE: Final = 11
"""A number of WIDTH 1 or 4 bytes without a length before it; only as a child."""
VECTOR: Final = 12
"""int16 dimension, int16 zero, then big-endian numbers of SCALE bytes, WIDTH bytes in all -> the same numbers."""
ARRAY: Final = 13
"""An array of any dimensions -> three children that read the same bytes: two HEADS and ELEMENTS."""
HEADS: Final = 14
"""The int32 at BIAS of each of an array's dimensions -> int32 offsets and one BARE child."""
ELEMENTS: Final = 15
"""All elements of an array, whatever its dimensions -> int32 offsets and one child."""

# One row of the descriptor table per result column, then one per child, parents first; int64 each.
SHAPE: Final = 0
WIDTH: Final = 1
"""Bytes of the wire value (FIXED, BYTES) or of the Arrow value (NUMERIC)."""
BIAS: Final = 2
"""Added to the wire value: the distance between PostgreSQL's and Arrow's epochs."""
LOW: Final = 3
HIGH: Final = 4
"""Smallest and largest wire value that Arrow can hold, inclusive."""
INFINITY: Final = 5
"""One of INFINITY_*: what the extreme values of the wire type mean."""
PREFIX: Final = 6
"""The version byte that must precede a VARLEN value, -1 for none; BLANKS: those at its end are left out."""
PRECISION: Final = 7
SCALE: Final = 8
UTF8: Final = 9
"""1 where the bytes of a VARLEN column must be valid UTF-8."""
VALIDITY_AT: Final = 10
"""Byte offset of the validity bitmap in the arena (a multiple of 64, as all offsets here)."""
VALUES_AT: Final = 11
"""Byte offset of the values (FIXED …) or of the int32 offsets (VARLEN)."""
SOURCE: Final = 12
"""Which row of the `sources` scratch a VARLEN column uses, or -1."""
PLACES: Final = 13
"""Which row of the `places` scratch says where the fields of a node are; -1 for columns that are not nested."""
CHILD: Final = 14
"""Which row of this table is the first child; the others follow it."""
CHILDREN: Final = 15
OID: Final = 16
"""The type that an array or a composite must name for this child."""
DESCRIPTOR_WIDTH: Final = 17

ABSENT: Final = 0xFFFFFFFF
"""The place of a child of NULL, or of a bound that a range does not have: there is no field at all."""

BLANKS: Final = -2

INFINITY_NONE: Final = 0
"""The wire type has no infinities."""
INFINITY_ERROR: Final = 1
INFINITY_NULL: Final = 2

# What `decode` returns per column, int64 each.
NULLS: Final = 0
DATA_AT: Final = 1
"""Byte offset of the data of a VARLEN column in the arena."""
DATA_BYTES: Final = 2
RESULT_WIDTH: Final = 3

# Why a scan stopped.
SCAN_MORE: Final = 0
"""The block ends inside a message: `position` is where that message starts."""
SCAN_FULL: Final = 1
"""As many rows as asked for; more may follow at `position`."""
SCAN_MESSAGE: Final = 2
"""A whole message that is not a row starts at `position`."""
SCAN_TRAILER: Final = 3
"""The COPY trailer was read; `position` is behind it."""
SCAN_FAILED: Final = 4

# What is wrong with a field.
OK: Final = 0
BAD_LENGTH: Final = 1
BEYOND_BLOCK: Final = 2
ROW_MISMATCH: Final = 3
BAD_BOOL: Final = 4
INFINITE: Final = 5
OUT_OF_RANGE: Final = 6
NOT_A_NUMBER: Final = 7
BAD_NUMERIC: Final = 8
TOO_PRECISE: Final = 9
BAD_PREFIX: Final = 10
NOT_UTF8: Final = 11
BAD_FIELD_COUNT: Final = 12
BAD_MESSAGE_LENGTH: Final = 13
BAD_NESTED: Final = 14
OTHER_TYPE: Final = 15
OTHER_SHAPE: Final = 16
OTHER_BOUND: Final = 17
OTHER_DIMENSION: Final = 18

# The failure record: four int64.
CODE: Final = 0
ROW: Final = 1
COLUMN: Final = 2
OFFSET: Final = 3
FAILURE_WIDTH: Final = 4

# What the columns of a tile hand on to one another, int64 each.
DELTA: Final = 0
"""Bytes to add to every cursor of the tile: fixed fields without NULLs move all rows alike."""
TOP: Final = 1
"""The largest cursor of the tile."""
TILE_WIDTH: Final = 2

TILE_ROWS: Final = 256
"""Rows decoded column by column before the next rows are begun: their bytes stay in the first cache levels."""
WIRE_PAD_BYTES: Final = 64
"""Readable bytes behind the end of every block: kernels load whole words at a checked position."""
BUFFER_ALIGN_BYTES: Final = 64
"""Arrow's recommended buffer alignment; validity bitmaps are padded to it for libcudf as well."""
