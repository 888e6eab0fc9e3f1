"""The export itself: a leader that holds the snapshot, workers that import it, and a file for every part."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from flight_server.export.files import FORMATS, DigestedFile, require_format
from flight_server.export.manifest import FileFacts, Manifest
from flight_server.export.planning import Part, TablePlan, plan_tables, requests_of
from flight_server.reading.replies import decode_replies
from kernels import wire
from kernels.backend import select_backend
from kernels.errors import CancelledError, ConfigError
from transport.memory import RegionPool
from transport.messages import Request
from transport.opening import SessionOptions
from transport.pool import ConnectionPool, PoolOptions
from transport.session import Session
from transport.snapshot import Snapshot

MIB = 1 << 20
BLOCK_BYTES = MIB
STREAM_BYTES = 192 * MIB
"""Of each stream: its block, and the batches of a row group."""
LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What is exported, and how.

    Parameters
    ----------
    tables : tuple of str
        As ``"table"`` in a request's JSON.
    directory : Path
    format : str
        ``parquet``, ``arrow`` or ``raw``.
    streams : int
        Sessions that read at once; one more holds the snapshot.
    file_mib : int
        How much of a table becomes one file, as PostgreSQL stores it.
    profile : str
        ``arrow`` or ``plain``.
    keep_finished : bool
        Keep finished tables of an older snapshot when going on.
    max_row_mib : int
    """

    tables: tuple[str, ...]
    directory: Path
    format: str = "parquet"
    streams: int = 2
    file_mib: int = 256
    profile: str = "arrow"
    keep_finished: bool = False
    max_row_mib: int = 128


class Watcher(Protocol):
    """Is told how it goes; called from several threads."""

    def planned(self, tables: list[TablePlan], manifest: Manifest) -> None:
        """Everything is planned; the manifest says what is there already."""

    def wrote(self, table: str, rows: int) -> None:
        """Some rows were written."""

    def note(self, text: str) -> None:
        """Something worth telling."""


class Export:
    """One export.

    Parameters
    ----------
    dsn : str
    options : ExportOptions
    watcher : Watcher
    """

    def __init__(self, dsn: str, options: ExportOptions, watcher: Watcher) -> None:
        require_format(options.format)
        if not options.tables:
            raise ConfigError("name at least one table")
        self._dsn = dsn
        self._options = options
        self._watcher = watcher
        self._requests = requests_of(options.tables, {"profile": options.profile})
        self._memory = RegionPool(options.streams * max(STREAM_BYTES, 3 * options.max_row_mib * MIB))
        self._backend = select_backend("cpu")
        self._stopped = threading.Event()
        self._session_options = SessionOptions(
            block_bytes=BLOCK_BYTES, max_row_bytes=options.max_row_mib * MIB, parallel_query=False
        )

    def run(self) -> Manifest:
        """Write what is missing; return the manifest, which is complete.

        Raises
        ------
        PgflightError
            Something failed; what was finished stays, and the same export goes on from there.
        """
        options = self._options
        what = {
            "tables": sorted(self._requests),
            "format": options.format,
            "profile": options.profile,
            "file_mib": options.file_mib,
        }
        with closing(Manifest(options.directory, what)) as manifest:
            if manifest.complete:
                self._watcher.note(f"{options.directory} is complete already")
                return manifest
            limits = PoolOptions(max_connections=options.streams + 1)
            with closing(ConnectionPool(self._dsn, limits)) as pool, Session(pool, self._leading) as leader:
                tables = plan_tables(leader, self._requests, options.file_mib * MIB)
                snapshot = leader.export_snapshot()
                parts = {table.name: [part.pages for part in table.parts] for table in tables}
                for line in manifest.begin(snapshot, parts, keep_finished=options.keep_finished):
                    self._watcher.note(line)
                self._watcher.planned(tables, manifest)
                self._write(pool, snapshot, manifest, tables)
                leader.require_unwritten()
            manifest.finish()
            return manifest

    @property
    def _leading(self) -> SessionOptions:
        return replace(self._session_options, statement_timeout_s=None)

    def _write(
        self, pool: ConnectionPool, snapshot: Snapshot, manifest: Manifest, tables: list[TablePlan]
    ) -> None:
        missing = [part for table in tables for part in table.parts if not _there(manifest, part)]
        with ThreadPoolExecutor(self._options.streams, thread_name_prefix="export") as threads:
            running: set[Future[None]] = {
                threads.submit(self._write_part, pool, snapshot, manifest, part) for part in missing
            }
            try:
                while running:
                    done, running = wait(running, timeout=LOOK_S, return_when=FIRST_COMPLETED)
                    for each in done:
                        each.result()
            except BaseException:
                self._stopped.set()
                for each in running:
                    each.cancel()
                raise

    def _write_part(self, pool: ConnectionPool, snapshot: Snapshot, manifest: Manifest, part: Part) -> None:
        self._require_going_on()
        rows = 0
        path = part.path(self._options.format)
        with DigestedFile(self._options.directory / path) as file:
            writer = FORMATS[self._options.format](file, part.plan.schema)
            with Session(pool, self._session_options, snapshot=snapshot) as session:
                for batch in self._batches(session, part):
                    writer.write(batch)
                    rows += batch.num_rows
                    self._watcher.wrote(part.table, batch.num_rows)
            writer.close()
            digest = file.publish()
            manifest.add(part.table, FileFacts(path, part.pages, rows, file.size_bytes, digest))

    def _batches(self, session: Session, part: Part) -> Iterator[pa.RecordBatch]:
        decoder = self._backend.decoder(
            part.plan, self._memory.allocate, kind=wire.DATA_ROW, batch_bytes=BLOCK_BYTES
        )
        reply = session.open_reply(self._memory.allocate, self._require_going_on)
        waiting = list(reversed(part.statements))

        def ask() -> None:
            if waiting:
                reply.send(Request(waiting.pop(), copy=False))

        ask()
        ask()  # one is always asked for ahead, so that the backend never waits for us
        yield from decode_replies(reply, decoder, copy=False, on_complete=ask)
        session.finish()
        session.require_unwritten()

    def _require_going_on(self) -> None:
        if self._stopped.is_set():
            raise CancelledError("the export was stopped")


def _there(manifest: Manifest, part: Part) -> bool:
    return part.pages in manifest.tables[part.table].files or manifest.tables[part.table].finished
