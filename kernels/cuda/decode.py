"""Decode the rows of a block on the device: three kernels on one stream and one look at the result."""

from __future__ import annotations

import numpy as np

from kernels import layout
from kernels.cuda.field import unpack
from kernels.cuda.geometry import Geometry
from kernels.cuda.launch import launch
from kernels.cuda.memory import download, upload
from kernels.cuda.rows import gather_kernel, rows_kernel, sums_kernel
from kernels.cuda.segments import START
from kernels.cuda.table import FAILURE, NO_FAILURE, RESULTS, SCAN_WORDS, TEXT_FAILURE, state_words, table_at
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
    sources : uint32 device array, VARLEN columns x at least `rows`
    state : int64 device array

    Returns
    -------
    int
        0, or -1 with `failure` filled: the first bad field of the first row that has one, or the first row that is
        not UTF-8.
    """
    count, width = columns.shape
    sheet = np.zeros(state_words(count) - SCAN_WORDS, np.int64)
    sheet[: int(RESULTS) - SCAN_WORDS] = NO_FAILURE
    sheet[table_at(count) - SCAN_WORDS :] = columns.reshape(count * width)
    upload(state[SCAN_WORDS : state_words(count)], sheet, stream=stream)
    launch(
        rows_kernel, -(-rows // geometry.tile_rows), geometry.threads, stream,
        words, bounds, rows, geometry.tile_rows, count, state, longs, sources,
    )  # fmt: skip
    if count:
        launch(sums_kernel, count, geometry.sum_threads, stream, rows, count, state, longs)
    varlen = int(np.count_nonzero(columns[:, layout.SHAPE] == layout.VARLEN))
    if varlen:
        blocks = min(geometry.gather_blocks, 1 + end // (CHUNK_BYTES * geometry.threads))
        launch(
            gather_kernel, (blocks, varlen), geometry.threads, stream,
            words, data_at, rows, count, state, longs, sources,
        )  # fmt: skip
    found = download(state[: table_at(count)], stream=stream)
    packed = min(int(found[FAILURE]), int(found[TEXT_FAILURE]))
    if packed == NO_FAILURE:
        results[:] = found[int(RESULTS) :].reshape(results.shape)
        return 0
    code, row, column = unpack(packed)
    failure[layout.CODE], failure[layout.ROW], failure[layout.COLUMN] = code, row, column
    place = sources[columns[column, layout.SOURCE]] if code == layout.NOT_UTF8 else bounds[START]
    failure[layout.OFFSET] = download(place[row : row + 1], stream=stream)[0]
    return -1
