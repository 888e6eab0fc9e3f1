"""Decode the rows of a block on the device: a few kernels on one stream and one look at the result."""

from __future__ import annotations

import numpy as np

from kernels import layout
from kernels.cuda.field import unpack
from kernels.cuda.geometry import Geometry
from kernels.cuda.launch import launch
from kernels.cuda.memory import download, upload
from kernels.cuda.rows import gather_kernel, rows_kernel, sums_kernel, vectors_kernel
from kernels.cuda.segments import START
from kernels.cuda.table import (
    FAILURE,
    ITEMS,
    NO_FAILURE,
    RESULTS,
    SCAN_WORDS,
    TEXT_FAILURE,
    sheet_of,
    state_words,
    table_at,
    widened,
)
from kernels.cuda.varlen import CHUNK_BYTES
from kernels.typing import DeviceArray, Int64s


def decode(
    words: DeviceArray,
    end: int,
    bounds: DeviceArray,
    rows: int,
    columns: Int64s,
    longs: DeviceArray,
    data_at: int,
    sources: DeviceArray,
    results: Int64s,
    failure: Int64s,
    *,
    state: DeviceArray,
    geometry: Geometry,
    stream: int,
) -> int:
    """Decode `rows` rows of a block into one arena of Arrow buffers; synchronises with the stream.

    Parameters
    ----------
    words : uint64 device array
        The block, with WIRE_PAD_BYTES readable behind `end`.
    end : int
        Bytes of the block that hold whole rows.
    bounds : uint32 device array
        From `scan`; the rows of a failed decode are spoilt.
    rows, columns, data_at, results, failure
        As for the host twin, on the host.
    longs : int64 device array
        The arena.
    sources : uint32 device array, VARLEN and VECTOR columns x at least `rows`
    state : int64 device array

    Returns
    -------
    int
        0, or -1 with `failure` filled: the first bad field of the first row that has one, or the first row that is
        not UTF-8.
    """
    count = len(columns)
    table = widened(columns, np.full(count, rows))
    gathered = np.isin(columns[:, layout.SHAPE], (layout.VARLEN, layout.VECTOR))
    table[gathered, layout.SOURCE] = np.arange(np.count_nonzero(gathered)) * rows
    upload(state[SCAN_WORDS : state_words(count)], sheet_of(table), stream=stream)
    launch(
        rows_kernel, -(-rows // geometry.tile_rows), geometry.threads, stream,
        words, bounds, rows, geometry.tile_rows, count, state, longs, sources,
    )  # fmt: skip
    finish(words, end, data_at, table, state, longs, sources, geometry=geometry, stream=stream)
    found = download(state[: table_at(count)], stream=stream)
    packed = min(int(found[FAILURE]), int(found[TEXT_FAILURE]))
    if packed == NO_FAILURE:
        results[:] = found[int(RESULTS) :].reshape(results.shape)
        return 0
    code, row, column = unpack(packed)
    failure[layout.CODE], failure[layout.ROW], failure[layout.COLUMN] = code, row, column
    place = sources[int(table[column, layout.SOURCE]) :] if code == layout.NOT_UTF8 else bounds[START]
    failure[layout.OFFSET] = download(place[row : row + 1], stream=stream)[0]
    return -1


def finish(
    words: DeviceArray,
    end: int,
    data_at: int,
    table: Int64s,
    state: DeviceArray,
    longs: DeviceArray,
    sources: DeviceArray,
    *,
    geometry: Geometry,
    stream: int,
) -> None:
    """Queue what comes when all fields were looked at: counts and offsets, the VARLEN data, the vectors.

    Parameters
    ----------
    words, end, data_at, longs, geometry, stream
        As for `decode`.
    table : int64 array
        On the host, the descriptor table that is in `state`.
    state : int64 device array
    sources : uint32 device array
        Where the bytes of VARLEN and VECTOR values are.
    """
    count, shapes = len(table), table[:, layout.SHAPE]
    if count:
        launch(sums_kernel, count, geometry.sum_threads, stream, count, state, longs)
    varlen = int(np.count_nonzero(shapes == layout.VARLEN))
    if varlen:
        blocks = min(geometry.gather_blocks, 1 + end // (CHUNK_BYTES * geometry.threads))
        launch(
            gather_kernel, (blocks, varlen), geometry.threads, stream,
            words, data_at, count, state, longs, sources,
        )  # fmt: skip
    vectors = table[shapes == layout.VECTOR]
    if len(vectors):
        most = int((vectors[:, layout.WIDTH] * vectors[:, int(ITEMS)]).max())
        blocks = min(geometry.gather_blocks, 1 + most // (CHUNK_BYTES * geometry.threads))
        launch(
            vectors_kernel, (blocks, len(vectors)), geometry.threads, stream,
            words, count, state, longs, sources,
        )  # fmt: skip
