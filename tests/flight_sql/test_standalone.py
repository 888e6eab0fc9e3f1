"""The package by itself: a small server without any database, read by ADBC's driver."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from adbc_driver_flightsql import dbapi
from pyarrow import flight

from flight_sql import ClientGoneError, FlightSqlService, Router, Stream, pack, schemas
from flight_sql.info import sql_info
from flight_sql.proto import flight_sql_pb2 as pb

PLANETS = pa.table({"name": ["Mercury", "Venus", "Earth"], "moons": pa.array([0, 0, 1], pa.int32())})


class Planets(FlightSqlService[None]):
    """One table; every statement reads all of it."""

    def __init__(self) -> None:
        self.bound: list[dict[str, Any]] = []

    def create_prepared_statement(
        self, call: None, request: pb.ActionCreatePreparedStatementRequest
    ) -> pb.ActionCreatePreparedStatementResult:
        return pb.ActionCreatePreparedStatementResult(
            prepared_statement_handle=request.query.encode(),
            dataset_schema=PLANETS.schema.serialize().to_pybytes(),
        )

    def close_prepared_statement(self, call: None, request: pb.ActionClosePreparedStatementRequest) -> None:
        assert request.prepared_statement_handle

    def bind_prepared(
        self, call: None, command: pb.CommandPreparedStatementQuery, reader: flight.MetadataRecordBatchReader
    ) -> bytes:
        self.bound += reader.read_all().to_pylist()
        return command.prepared_statement_handle + b" "

    def plan_prepared(
        self, call: None, command: pb.CommandPreparedStatementQuery, descriptor: flight.FlightDescriptor
    ) -> flight.FlightInfo:
        ticket = pack(pb.TicketStatementQuery(statement_handle=command.prepared_statement_handle))
        return flight.FlightInfo(PLANETS.schema, descriptor, [flight.FlightEndpoint(ticket, [])], 3, -1)

    def read_statement(self, call: None, ticket: pb.TicketStatementQuery) -> Stream:
        return PLANETS.schema, iter(PLANETS.to_batches())

    def update_prepared(
        self, call: None, command: pb.CommandPreparedStatementUpdate, reader: flight.MetadataRecordBatchReader
    ) -> int:
        return int(reader.read_all().num_rows)

    def sql_info(self, call: None, command: pb.CommandGetSqlInfo) -> pa.Table:
        return sql_info({pb.FLIGHT_SQL_SERVER_NAME: "planets"}, command.info)

    def catalogs(self, call: None, command: pb.CommandGetCatalogs) -> pa.Table:
        return schemas.table(schemas.CATALOGS, [("sky",)])

    def db_schemas(self, call: None, command: pb.CommandGetDbSchemas) -> pa.Table:
        return schemas.table(schemas.DB_SCHEMAS, [("sky", "sun")])

    def table_types(self, call: None, command: pb.CommandGetTableTypes) -> pa.Table:
        return PLANETS  # a mistake: the router sees to it that clients never get another schema


class Server(flight.FlightServerBase):
    """What a server has to do: hand over."""

    def __init__(self) -> None:
        self.service = Planets()
        self._router = Router(self.service)
        super().__init__("grpc://127.0.0.1:0")

    def get_flight_info(self, context: Any, descriptor: flight.FlightDescriptor) -> flight.FlightInfo:
        return self._router.get_flight_info(None, descriptor)

    def do_get(self, context: Any, ticket: flight.Ticket) -> flight.FlightDataStream:
        return flight.GeneratorStream(*self._router.do_get(None, ticket.ticket))

    def do_put(self, context: Any, descriptor: flight.FlightDescriptor, reader: Any, writer: Any) -> None:
        self._router.do_put(None, descriptor, reader, writer)

    def do_action(self, context: Any, action: flight.Action) -> Iterator[bytes]:
        return self._router.do_action(None, action.type, action.body.to_pybytes())


@pytest.fixture
def planets() -> Iterator[Server]:
    server = Server()
    yield server
    server.shutdown()


def test_a_server_of_one_page(planets: Server) -> None:
    with dbapi.connect(f"grpc://127.0.0.1:{planets.port}", autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute("all", (1, "a"))
            assert cursor.fetch_arrow_table().equals(PLANETS)
            cursor.executemany("more", [(1,), (2,)])
            assert cursor.rowcount == 2
        assert connection.adbc_get_info()["vendor_name"] == "planets"
        objects = connection.adbc_get_objects(depth="db_schemas").read_all().to_pylist()
        assert objects == [
            {
                "catalog_name": "sky",
                "catalog_db_schemas": [{"db_schema_name": "sun", "db_schema_tables": None}],
            }
        ]
        with pytest.raises(OSError, match="table_types returned"):
            connection.adbc_get_table_types()
        with pytest.raises(dbapi.NotSupportedError, match="CommandGetTables is not supported"):
            connection.adbc_get_objects(depth="tables")
    assert planets.service.bound == [{"0": 1, "1": "a"}]


class Gone:
    """Where a client was: pyarrow's writer to a closed call fails like this."""

    def read_all(self) -> pa.Table:
        return PLANETS

    def write(self, _outcome: bytes) -> None:
        raise OSError("Unknown error writing metadata.")


def test_a_client_that_is_gone_cannot_be_told() -> None:
    service = Planets()
    command = pack(pb.CommandPreparedStatementQuery(prepared_statement_handle=b"all"))
    with pytest.raises(ClientGoneError, match="went away"):
        Router(service).do_put(None, flight.FlightDescriptor.for_command(command), Gone(), Gone())
    assert service.bound, "it was done all the same"
