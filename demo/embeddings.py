"""Vectors as models produce them: a pgvector column of unit length, made by hashing."""

from collections.abc import Iterator
from functools import cache

import numpy as np
from psycopg import sql

from demo.dataset import Connection, Dataset, Progress, copy_in
from demo.hashing import Keys, draw

ROWS_PER_CHUNK = 4096

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"


@cache
def _row(dimensions: int) -> np.dtype[np.void]:
    """Describe a row of COPY BINARY: each field has its length in front, a vector its dimensions."""
    fields = ("fields", ">i2"), ("id_bytes", ">i4"), ("id", ">i8"), ("embedding_bytes", ">i4")
    return np.dtype([*fields, ("dimensions", ">i2"), ("spare", ">i2"), ("embedding", ">f4", dimensions)])


def _chunks(rows: int, dimensions: int) -> Iterator[tuple[bytes, int]]:
    yield HEADER, 0
    for first in range(1, rows + 1, ROWS_PER_CHUNK):
        ids = np.arange(first, min(first + ROWS_PER_CHUNK, rows + 1), dtype=np.uint64)
        places: Keys = np.arange(dimensions, dtype=np.uint64) + ids[:, None] * np.uint64(dimensions)
        values = draw("embedded", places, 1 << 20) / (1 << 19) - 1
        table = np.zeros(len(ids), _row(dimensions))
        table["fields"], table["id_bytes"], table["id"] = 2, 8, ids
        table["embedding_bytes"], table["dimensions"] = 4 + 4 * dimensions, dimensions
        table["embedding"] = values / np.linalg.norm(values, axis=1, keepdims=True)
        yield table.tobytes(), len(ids)
    yield TRAILER, 0


def _embeddings(table: str, dimensions: int) -> Dataset:
    def store(connection: Connection, rows: int, progress: Progress) -> None:
        copy_in(connection, table, "binary", _chunks(rows, dimensions), progress)

    columns = sql.SQL("id int8 NOT NULL, embedding vector({}) NOT NULL").format(dimensions)
    return Dataset(table, columns, store, extension="vector")


EMBEDDINGS = _embeddings("embeddings", 384)
EMBEDDINGS_768 = _embeddings("embeddings_768", 768)
