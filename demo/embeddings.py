"""Vectors as models produce them: a pgvector column of unit length, made by hashing."""

from collections.abc import Iterator

import numpy as np
from psycopg import sql

from demo.dataset import Connection, Dataset, Progress, copy_in
from demo.hashing import Keys, draw

DIMENSIONS = 384
ROWS_PER_CHUNK = 4096

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

#: A row of COPY BINARY: each field has its length in front, and a vector its dimensions and two spare bytes.
ROW = np.dtype(
    [
        ("fields", ">i2"),
        ("id_bytes", ">i4"),
        ("id", ">i8"),
        ("embedding_bytes", ">i4"),
        ("dimensions", ">i2"),
        ("spare", ">i2"),
        ("embedding", ">f4", DIMENSIONS),
    ]
)


def _chunks(rows: int) -> Iterator[tuple[bytes, int]]:
    yield HEADER, 0
    for first in range(1, rows + 1, ROWS_PER_CHUNK):
        ids = np.arange(first, min(first + ROWS_PER_CHUNK, rows + 1), dtype=np.uint64)
        places: Keys = np.arange(DIMENSIONS, dtype=np.uint64) + ids[:, None] * np.uint64(DIMENSIONS)
        values = draw("embedded", places, 1 << 20) / (1 << 19) - 1
        table = np.zeros(len(ids), ROW)
        table["fields"], table["id_bytes"], table["id"] = 2, 8, ids
        table["embedding_bytes"], table["dimensions"] = 4 + 4 * DIMENSIONS, DIMENSIONS
        table["embedding"] = values / np.linalg.norm(values, axis=1, keepdims=True)
        yield table.tobytes(), len(ids)
    yield TRAILER, 0


def _store(connection: Connection, rows: int, progress: Progress) -> None:
    copy_in(connection, EMBEDDINGS.table, "binary", _chunks(rows), progress)


COLUMNS = f"id int8 NOT NULL, embedding vector({DIMENSIONS}) NOT NULL"
EMBEDDINGS = Dataset("embeddings", sql.SQL(COLUMNS), _store, extension="vector")
