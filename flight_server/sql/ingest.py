"""Bulk ingestion: a stream of batches into one table, all of it or nothing."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence

import pyarrow as pa
from pyarrow import csv, flight

from flight_server.reading import statement
from flight_server.request import ReadRequest
from flight_server.sql.calls import Call
from flight_server.sql.describe import columns_in
from flight_server.sql.parameters import text_columns
from flight_server.sql.writes import Writes
from flight_sql.proto import flight_sql_pb2 as pb
from kernels.backend import select_backend
from kernels.column import Column
from kernels.encoder import HEADER, TRAILER, Encoder, type_name
from kernels.errors import PostgresError, RequestError
from transport.writing import WriteSession

Options = pb.CommandStatementIngest.TableDefinitionOptions
DUPLICATE_TABLE, UNDEFINED_TABLE = "42P07", "42P01"
TYPE_METADATA, TYPMOD_METADATA = b"pg:type", b"pg:typmod"
TYPMOD = re.compile(r"\d{1,10}")


def ingest(
    call: Call, writes: Writes, command: pb.CommandStatementIngest, reader: flight.MetadataRecordBatchReader
) -> int:
    """Load all batches into the table that a command names; return the number of rows.

    Raises
    ------
    RequestError
        The command makes no sense, or a column has no type in PostgreSQL.
    ValueRangeError
        A value has no exact form in its column; nothing is loaded.
    PostgresError
        There is a table, or none, against what the command says; or PostgreSQL refuses a row.
    """
    request = ReadRequest(sql="", search_path=call.session.schema)
    transaction = _transaction(call, writes, command)
    if command.temporary and not transaction:
        raise RequestError(
            "a temporary table lasts as long as its connection, which is yours for a transaction only: begin one"
        )
    with writes.transaction(call, request, transaction) as session:
        table = _Table(session, command)
        table.prepare(reader.schema)
        rows = table.load(reader, call)
        if not transaction:
            session.commit()
        return rows


def _transaction(call: Call, writes: Writes, command: pb.CommandStatementIngest) -> str:
    """Return the transaction to load in: drivers do not name it, so it is what their connection has begun."""
    named = command.transaction_id.decode("ascii", "replace")
    return named or writes.transactions.of_peer(call.identity, call.peer)


class _Table:
    """The table that is loaded."""

    def __init__(self, session: WriteSession, command: pb.CommandStatementIngest) -> None:
        if not command.table:
            raise RequestError("ingestion needs the name of a table")
        self._session = session
        self._command = command
        self._backend = select_backend("cpu")
        schema = "pg_temp" if command.temporary else command.schema
        self.name = statement.relation([schema, command.table] if schema else [command.table])

    def prepare(self, schema: pa.Schema) -> None:
        """Make the table, or see to it that it is there, as the command says."""
        wanted, command = self._command.table_definition_options, self._command
        exists = self._session.exists(self.name)
        if exists and wanted.if_exists == Options.TABLE_EXISTS_OPTION_REPLACE:
            self._session.execute(f"drop table {self.name}")
            exists = False
        elif exists and wanted.if_exists != Options.TABLE_EXISTS_OPTION_APPEND:
            raise PostgresError(f"the table {command.table!r} exists", DUPLICATE_TABLE)
        if exists:
            return
        if wanted.if_not_exist != Options.TABLE_NOT_EXIST_OPTION_CREATE:
            raise PostgresError(f"the table {command.table!r} does not exist", UNDEFINED_TABLE)
        columns = ", ".join(f"{statement.quote(field.name)} {self._type(field)}" for field in schema)
        self._session.execute(f"create table {self.name} ({columns})")

    def load(self, reader: flight.MetadataRecordBatchReader, call: Call) -> int:
        """Send the batches by COPY."""
        names = ", ".join(statement.quote(name) for name in reader.schema.names)
        selected = f"select {names} from {self.name}"  # noqa: S608 (identifiers are quoted)
        columns = columns_in(self._session, selected)
        encoder = Encoder(self._backend, reader.schema, columns)
        form = "binary" if encoder.is_native else "csv"
        batches = _batches(reader, call)
        chunks = _binary(encoder, batches) if encoder.is_native else _csv(batches, columns)
        return self._session.copy_in(f"copy {self.name} ({names}) from stdin (format {form})", chunks)

    def _type(self, field: pa.Field) -> str:
        """Return the type of a new column: what it was when it was read, where the field still says so."""
        metadata = field.metadata or {}
        said = metadata.get(TYPE_METADATA, b"").decode("utf-8", "replace")
        typmod = metadata.get(TYPMOD_METADATA, b"").decode("ascii", "replace")
        known = said and self._session.type_called(said, int(typmod) if TYPMOD.fullmatch(typmod) else None)
        return known or type_name(field.type)


def _batches(reader: flight.MetadataRecordBatchReader, call: Call) -> Iterator[pa.RecordBatch]:
    for chunk in reader:
        call.check()
        if chunk.data is not None:
            yield chunk.data


def _binary(encoder: Encoder, batches: Iterator[pa.RecordBatch]) -> Iterator[bytes | memoryview]:
    yield HEADER
    for batch in batches:
        yield from encoder.encode(batch)
    yield TRAILER


def _csv(batches: Iterator[pa.RecordBatch], columns: Sequence[Column]) -> Iterator[bytes]:
    """Write text, for types that PostgreSQL has to read itself: NULL is empty, an empty text is quoted."""
    options = csv.WriteOptions(include_header=False, quoting_style="all_valid")
    names, targets = [column.name for column in columns], [column.type_oid for column in columns]
    for batch in batches:
        texts = [pa.array(column, pa.string()) for column in text_columns(batch, names, targets)]
        rows = pa.RecordBatch.from_arrays(texts, [str(number) for number in range(len(texts))])
        sink = io.BytesIO()
        csv.write_csv(rows, sink, options)
        yield sink.getvalue()
