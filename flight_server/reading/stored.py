"""A spooled result -> batches: its files side by side, each proven to be whole like a live reply."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from flight_server.options import ReadOptions
from flight_server.reading.decoding import Consumer, Decoding, side_of
from flight_server.reading.merge import Exchange
from flight_server.reading.replies import decode_replies
from flight_server.reading.split import Part
from flight_server.reading.stages import Stages
from flight_server.reading.tally import Tally
from kernels.errors import CancelledError
from kernels.plan import Plan
from transport.messages import Request
from transport.modes.moving import Moving
from transport.reader import Reader
from transport.spool import Entry

MAX_AUTO_STREAMS = 4


@dataclass(frozen=True, slots=True)
class StoredRead:
    """One read of a spooled result.

    Parameters
    ----------
    entry : Entry
    plan : Plan
    options : ReadOptions
    decoding : Decoding
    moving : Moving
    tally : Tally
    max_row_bytes : int
    """

    entry: Entry
    plan: Plan
    options: ReadOptions
    decoding: Decoding
    moving: Moving
    tally: Tally
    max_row_bytes: int

    def batches(self, consumer: Consumer) -> Iterator[Any]:
        """Yield all batches."""
        consumer = replace(consumer, new_counters=self.moving.new_counters)
        files = list(self.entry.streams())
        streams = min(len(files), self.options.streams or min(MAX_AUTO_STREAMS, os.cpu_count() or 1))
        self.tally.facts["streams"] = max(1, streams)
        if streams < 2:
            for reader, replies in files:
                yield from self._counted(self._file(reader, replies, consumer, self.tally.stages))
            return
        yield from self._counted(self._side_by_side(files, streams, consumer))

    def _counted(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            self.tally.rows += batch.num_rows
            yield batch

    def _side_by_side(self, files: list[tuple[Reader, int]], streams: int, consumer: Consumer) -> Iterator[Any]:
        parts = [Part(index, "") for index in range(len(files))]
        exchange = Exchange(parts, streams, ordered=self.options.ordered)
        own = replace(consumer, check=exchange.require_running)
        totals = threading.Lock()

        def work() -> None:
            try:
                while (part := exchange.take(wait=False)) is not None:
                    stages = Stages()
                    for batch in self._file(*files[part.index], own, stages):
                        exchange.put(part, batch)
                    exchange.complete(part)
                    with totals:
                        self.tally.stages.add(stages)
            except CancelledError:
                exchange.stop()
            except Exception as failure:  # noqa: BLE001 (a thread's end: the consumer raises it)
                exchange.fail(failure)

        threads = [threading.Thread(target=work, name="stored", daemon=True) for _ in range(streams)]
        with ExitStack() as stack:
            for thread in threads:
                thread.start()
                stack.callback(thread.join)
            stack.callback(exchange.stop)  # before the joins
            yield from exchange.batches(consumer.check)

    def _file(self, reader: Reader, replies: int, consumer: Consumer, stages: Stages) -> Iterator[Any]:
        batch_bytes = self.options.batch_target()
        block_bytes = self.decoding.block_bytes(batch_bytes)
        decoder = self.decoding.decoder(
            self.plan, copy=self.entry.copy, batch_bytes=batch_bytes, consumer=consumer
        )
        reply = self.moving.to(side_of(decoder))(
            reader,
            self.decoding.allocate,
            block_bytes=block_bytes,
            max_row_bytes=max(self.max_row_bytes, block_bytes),
            patience_s=self.decoding.patience_s,
            check=consumer.check,
        )
        for _ in range(replies):
            reply.send(Request("", copy=self.entry.copy))
        pieces = self.decoding.piece_bytes(batch_bytes)
        yield from decode_replies(reply, decoder, copy=self.entry.copy, piece_bytes=pieces, stages=stages)
        self.tally.add_wire_bytes(reply.received_bytes)
