"""The nested columns of a plan on the device: find the parts of their values, level by level, then decode them."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import layout
from kernels.cuda.decode import finish
from kernels.cuda.field import unpack, unpack_part
from kernels.cuda.geometry import Geometry
from kernels.cuda.launch import launch
from kernels.cuda.memory import Scratch, download, upload
from kernels.cuda.parts import locate_kernel, offsets_kernel, parts_kernel, survey_kernel
from kernels.cuda.segments import START
from kernels.cuda.table import (
    DATA_BYTES,
    DESCRIPTOR_WIDTH,
    FAILURE,
    ITEMS,
    NO_FAILURE,
    OFFSETS,
    RESULTS,
    ROW_FAILURE,
    SCAN_WORDS,
    TEXT_FAILURE,
    sheet_of,
    state_words,
    table_at,
    widened,
)
from kernels.errors import UnsupportedError
from kernels.parts import climb
from kernels.plan import LISTS, Plan
from kernels.typing import DeviceArray, Int64s, Uint32s

MAX_NODES = 0xFFFF
"""What a grid may have of them, and a failure can name."""


class Nested:
    """Decodes the nested columns of one reply's blocks.  Not thread-safe.

    Nested columns and all their parts have a table of their own here, in the order of the plan's; a node's row in
    it is its slot.  The places of all nodes, and the offsets of lists, lie end to end in scratch memory.

    Parameters
    ----------
    plan : Plan
        With nested columns.
    scratch : Scratch
    geometry : Geometry

    Raises
    ------
    UnsupportedError
        There are too many nodes.
    """

    def __init__(self, plan: Plan, scratch: Scratch, geometry: Geometry) -> None:
        table = plan.descriptors
        self._plan = plan
        self._scratch = scratch
        self._geometry = geometry
        self._nodes = np.flatnonzero(table[:, layout.PLACES] >= 0)
        self._columns = np.flatnonzero(table[: len(plan.names), layout.PLACES] >= 0)
        if len(self._nodes) > MAX_NODES:
            raise UnsupportedError(
                f"the GPU decodes no result with more than {MAX_NODES} parts: use option decode=cpu"
            )
        self.is_all = len(self._columns) == len(plan.names)
        """Whether there are no other columns."""
        blank = widened(table[self._nodes], np.zeros(len(self._nodes), np.int64))
        parents = blank[:, layout.CHILD] >= 0
        blank[parents, layout.CHILD] = table[blank[parents, layout.CHILD], layout.PLACES]
        self._blank = self._table = blank
        self._levels = levels_of(blank, len(self._columns))
        self._used = 0
        size = state_words(len(blank)) + len(plan.names)
        self._state = scratch.take("nested", 8 * size).view(np.int64)
        self._places: DeviceArray = None

    def survey(
        self, words: DeviceArray, bounds: DeviceArray, rows: int, failure: Int64s, *, stream: int
    ) -> Int64s | None:
        """Find the parts of a block's rows; synchronises with the stream.

        Parameters
        ----------
        words, bounds, rows, stream
            As for `kernels.cuda.decode.decode`.
        failure : int64 array
            The failure record, on the host.

        Returns
        -------
        int64 array or None
            The number of values of every node of the plan; None with `failure` filled.
        """
        self._table = table = self._blank.copy()
        self._used = 0
        table[: len(self._columns), int(ITEMS)] = rows
        self._lay_out(0, len(self._columns), stream)
        slots = np.full(len(self._plan.names), -1)
        slots[self._columns] = table[: len(self._columns), layout.PLACES]
        count, threads = len(table), self._geometry.threads
        upload(self._state[SCAN_WORDS:], np.concatenate((sheet_of(table), slots)), stream=stream)
        launch(
            locate_kernel, -(-rows // threads), threads, stream,
            words, bounds, rows, len(slots), state_words(count), self._state, self._places,
        )  # fmt: skip
        for first, last in self._levels:
            if not self._survey_level(words, first, last, stream):
                break
        found = download(self._state[: table_at(count)], stream=stream)
        if self._is_refused(found, bounds, failure, stream):
            return None
        counts = np.full(len(self._plan.nodes), rows, np.int64)
        counts[self._nodes] = table[:, int(ITEMS)]
        return counts

    def decode(
        self,
        words: DeviceArray,
        end: int,
        arranged: Int64s,
        longs: DeviceArray,
        data_at: int,
        results: Int64s,
        failure: Int64s,
        *,
        stream: int,
    ) -> int:
        """Decode what the last survey has found into the arena; synchronises with the stream.

        Parameters
        ----------
        words, end, longs, stream
            As for `kernels.cuda.decode.decode`.
        arranged : int64 array, nodes x layout.DESCRIPTOR_WIDTH
            The plan's table with the arena offsets.
        data_at : int
            Where data may begin, behind that of the columns that are not nested.
        results : int64 array, nodes x RESULT_WIDTH
            Receives the rows of nested columns and their parts.
        failure : int64 array

        Returns
        -------
        int
            0, or -1 with `failure` filled.
        """
        table, count, geometry = self._table, len(self._table), self._geometry
        for part in (layout.VALIDITY_AT, layout.VALUES_AT):
            table[:, part] = arranged[self._nodes, part]
        table[:, layout.SOURCE] = table[:, layout.PLACES]
        upload(self._state[SCAN_WORDS : state_words(count)], sheet_of(table), stream=stream)
        tiles = -(-int(table[:, int(ITEMS)].max()) // geometry.tile_rows)
        launch(
            parts_kernel, (max(1, min(tiles, geometry.gather_blocks)), count), geometry.threads, stream,
            words, count, geometry.tile_rows, self._state, longs, self._places,
        )  # fmt: skip
        finish(words, end, data_at, table, self._state, longs, self._places, geometry=geometry, stream=stream)
        found = download(self._state[: table_at(count)], stream=stream)
        if self._is_refused(found, None, failure, stream):
            return -1
        results[self._nodes] = found[int(RESULTS) :].reshape(count, layout.RESULT_WIDTH)
        return 0

    def _survey_level(self, words: DeviceArray, first: int, last: int, stream: int) -> bool:
        """Note the parts of the nodes of one level; return whether it is sound, as far as is known, and has any.

        Parts of lists must be counted before there is room for them.
        """
        table = self._table
        nodes = range(first, last)
        parents = [slot for slot in nodes if table[slot, layout.CHILD] >= 0]
        lists = [slot for slot in nodes if table[slot, layout.SHAPE] in LISTS]
        if not parents:
            return False
        parts = table[:, int(ITEMS)].copy()
        if lists:
            self._launch_survey(words, first, last, 0, stream)
            geometry = self._geometry
            launch(
                offsets_kernel, last - first, geometry.sum_threads, stream,
                first, len(table), self._state, self._places,
            )  # fmt: skip
            found = download(self._state[: table_at(len(table))], stream=stream)
            if found[FAILURE] != NO_FAILURE or found[ROW_FAILURE] != NO_FAILURE:
                return False
            totals = found[int(RESULTS) :].reshape(len(table), layout.RESULT_WIDTH)[:, int(DATA_BYTES)]
            parts[lists] = totals[lists]
        for slot in parents:
            child = table[slot, layout.CHILD]
            table[child : child + table[slot, layout.CHILDREN], int(ITEMS)] = parts[slot]
        below = last + int(table[first:last, layout.CHILDREN].sum())
        self._lay_out(last, below, stream)
        begin, width = table_at(len(table)), int(DESCRIPTOR_WIDTH)
        upload(self._state[begin + last * width : begin + below * width], table[last:below].ravel(), stream=stream)
        self._launch_survey(words, first, last, 1, stream)
        return True

    def _launch_survey(self, words: DeviceArray, first: int, last: int, storing: int, stream: int) -> None:
        geometry = self._geometry
        most = int(self._table[first:last, int(ITEMS)].max())
        blocks = max(1, min(-(-most // geometry.threads), geometry.gather_blocks))
        launch(
            survey_kernel, (blocks, last - first), geometry.threads, stream,
            words, first, len(self._table), storing, self._state, self._places,
        )  # fmt: skip

    def _lay_out(self, first: int, last: int, stream: int) -> None:
        """Find room for the places, and the offsets, of the nodes of a level."""
        for row in self._table[first:last]:
            row[layout.PLACES] = self._used
            self._used += int(row[int(ITEMS)])
            if row[layout.SHAPE] in LISTS:
                row[int(OFFSETS)] = self._used
                self._used += int(row[int(ITEMS)]) + 1
        size = 4 * max(1, self._used)
        self._places = self._scratch.extend("places", size, stream=stream).view(np.uint32)

    def _is_refused(self, found: Int64s, bounds: DeviceArray | None, failure: Int64s, stream: int) -> bool:
        """Fill the failure record, if there was one."""
        place: Any = None
        if found[ROW_FAILURE] != NO_FAILURE:
            code, value, node = unpack(int(found[ROW_FAILURE]))
            place = bounds[START] if bounds is not None else None
        elif min(found[FAILURE], found[TEXT_FAILURE]) != NO_FAILURE:
            of_text = found[FAILURE] == NO_FAILURE
            code, value, slot = unpack(int(found[TEXT_FAILURE])) if of_text else unpack_part(int(found[FAILURE]))
            node = int(self._nodes[slot])
            place = self._places[int(self._table[slot, layout.PLACES]) :]
        if place is None:
            return False
        failure[layout.CODE], failure[layout.ROW], failure[layout.COLUMN] = code, value, node
        failure[layout.OFFSET] = download(place[value : value + 1], stream=stream)[0]
        climb(self._plan, failure, lambda list_node: self._ends_of(list_node, stream))
        return True

    def _ends_of(self, node: int, stream: int) -> Uint32s:
        row = self._table[self._plan.descriptors[node, layout.PLACES]]
        begin = int(row[int(OFFSETS)]) + 1
        return download(self._places[begin : begin + int(row[int(ITEMS)])], stream=stream)


def levels_of(table: Int64s, columns: int) -> list[tuple[int, int]]:
    """Return the first and the last slot (exclusive) of each level: parents stand before their parts."""
    levels, first, last = [], 0, columns
    while first < last:
        levels.append((first, last))
        first, last = last, last + int(table[first:last, layout.CHILDREN].sum())
    return levels
