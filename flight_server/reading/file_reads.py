"""``transport=file``: PostgreSQL writes the rows into a file itself, by a login that may, and that sees the same.

A client's statement runs as another login here, so it must be proven to mean the same: it reads one relation by
sequential scans, what it computes depends on nothing but the rows, the client's own login may run it, and both
logins have the same plan for it, conditions of row security included.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from flight_server import startup
from flight_server.reading import statement
from flight_server.reading.decoding import HostDecoding
from flight_server.reading.planning import Prepared
from flight_server.reading.replies import decode_replies
from flight_server.reading.sessions import Sessions
from flight_server.reading.split import doubt_about
from flight_server.reading.tally import Tally
from flight_server.request import ReadRequest
from kernels.errors import ConfigError, RequestError
from kernels.typing import Allocate
from transport.messages import Request
from transport.modes.counters import CountedReader, Counters
from transport.modes.moving import Moving
from transport.modes.written_file import WrittenFile, new_path, remove_leftovers
from transport.pool import ConnectionPool, PoolOptions
from transport.reader import Reader
from transport.reply import Reply
from transport.session import Session


@dataclass(frozen=True, slots=True)
class FileOptions:
    """The login that writes files, and where.

    Parameters
    ----------
    dsn : str
        Of a member of ``pg_write_server_files`` that no client ever is.
    directory : Path
        As PostgreSQL and this server both see it; PostgreSQL's system user writes there, this one's reads and
        removes.
    max_connections : int
    """

    dsn: str
    directory: Path
    max_connections: int = 4


class FileReads:
    """Reads by way of files.  Thread-safe.

    Parameters
    ----------
    options : FileOptions

    Raises
    ------
    ConfigError
        The login may not write files, or may do more than that; or the directory cannot be used.
    """

    def __init__(self, options: FileOptions) -> None:
        facts = startup.probe(options.dsn)
        if not facts.writes_server_files:
            raise ConfigError(
                f"file_dsn: the role {facts.role!r} may not write files: GRANT pg_write_server_files TO it"
            )
        if facts.superuser or facts.reads_server_files or facts.executes_programs:
            raise ConfigError(
                f"file_dsn: the role {facts.role!r} may do more than write files: use one of its own"
            )
        if not options.directory.is_absolute():
            raise ConfigError(f"file_dir: {options.directory} must be an absolute path: PostgreSQL writes there")
        try:
            self._owned: BinaryIO = (options.directory / ".lock").open("wb")
            fcntl.flock(self._owned, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_leftovers(options.directory)
        except BlockingIOError:
            raise ConfigError(f"file_dir: another server uses {options.directory}") from None
        except OSError as failure:
            raise ConfigError(f"file_dir: cannot use {options.directory}: {failure.strerror}") from failure
        self._directory = options.directory
        self._pool = ConnectionPool(options.dsn, PoolOptions(max_connections=options.max_connections))

    def batches(
        self,
        request: ReadRequest,
        prepared: Prepared,
        session: Session,
        sessions: Sessions,
        decoding: Any,
        moving: Moving,
        tally: Tally,
        check: Any,
    ) -> Iterator[Any]:
        """Yield the batches of a statement that the client's own session has described.

        Raises
        ------
        RequestError
            It is not proven that the other login reads the same, or the rows are wanted on a GPU.
        """
        if not isinstance(decoding, HostDecoding):
            raise RequestError(
                "transport=file: rows in such a file have no frames, which a GPU finds them by: read with "
                "decode=cpu, or with transport=gds"
            )
        text = statement.bare(statement.select(request))
        _require_proof(doubt_about(session, request, prepared.columns))
        plan = session.explain(text)
        snapshot = session.export_snapshot()
        with Session(self._pool, sessions.options(request), snapshot=snapshot) as other:
            described = other.describe(text)
            same = [(one.name, one.type_oid, one.typmod) for one in described] == [
                (one.name, one.type_oid, one.typmod) for one in prepared.columns
            ]
            _require_proof(None if same and other.explain(text) == plan else "the two logins see different things")
            tally.watch.hang_up = other.hang_up
            path = new_path(self._directory)
            name = str(path).replace("'", "''")
            rows = statement.with_casts(text, prepared.plan.casts)
            asked = Request(f"COPY (\n{rows}\n) TO '{name}' (FORMAT BINARY)", copy=True)
            batch_bytes = request.options.batch_target()
            decoder = decoding.unframed_decoder(prepared.plan, batch_bytes=batch_bytes)
            try:
                reply = other.run(asked, decoding.allocate, check, partial(_reply, moving, path))
                tally.facts |= {"reader": other.reader_name, "framing": "file"}
                for batch in decode_replies(reply, decoder, copy=True, stages=tally.stages):
                    tally.rows, tally.wire_bytes = decoder.rows, reply.received_bytes
                    yield batch
                tally.wire_bytes = reply.received_bytes
                other.finish()
            finally:
                path.unlink(missing_ok=True)
            other.require_unwritten()

    def close(self) -> None:
        """Close the connections, and let another server use the directory."""
        self._pool.close()
        self._owned.close()


def _reply(moving: Moving, path: Path, reader: Reader, allocate: Allocate, /, **limits: Any) -> Reply:
    return moving.over(partial(_written_file, path), reader, allocate, **limits)


def _written_file(path: Path, reader: Reader, counters: Counters) -> Reader:
    return WrittenFile(CountedReader(reader, counters), path, counters)


def _require_proof(doubt: str | None) -> None:
    if doubt is not None:
        raise RequestError(
            f"transport=file: not proven to be the same for the login that writes files ({doubt}): "
            "read with another transport"
        )
