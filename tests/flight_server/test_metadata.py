"""What is known before the first byte: schemas, nullability, comments, estimates, the list of tables."""

from __future__ import annotations

import json

import psycopg
import pyarrow as pa
import pytest
from pyarrow import flight


@pytest.fixture
def table(database: psycopg.Connection) -> str:
    database.execute(
        """
        create domain scratch.price as numeric(8, 2);
        create table scratch.goods (
            id int8 primary key, name varchar(20) not null, price scratch.price, code uuid, tags text[],
            doc jsonb);
        comment on column scratch.goods.price is 'in euros';
        insert into scratch.goods select g, 'n' || g, g / 4.0, gen_random_uuid(), '{a,b}', '{}' from
            generate_series(1, 1000) g;
        create view scratch.cheap as select * from scratch.goods where price < 10;
        analyze scratch.goods
        """
    )
    return "goods"


def test_schema_of_a_table(client: flight.FlightClient, table: str) -> None:
    info = client.get_flight_info(flight.FlightDescriptor.for_path("scratch", table))
    schema = info.schema
    assert schema.names == ["id", "name", "price", "code", "tags", "doc"]
    assert schema.types == [
        pa.int64(), pa.string(), pa.decimal128(8, 2), pa.uuid(), pa.list_(pa.string()), pa.json_(pa.string())
    ]  # fmt: skip
    assert [field.nullable for field in schema] == [False, False, True, True, True, True]
    assert schema.field("price").metadata[b"pg:comment"] == b"in euros"
    assert schema.field("name").metadata[b"pg:type"] == b"character varying(20)"
    assert schema.field("tags").metadata == {b"pg:type": b"text[]"}
    assert info.total_records == 1000
    assert info.total_bytes > 0
    assert len(info.endpoints) == 1
    assert info.endpoints[0].locations == []
    assert client.do_get(info.endpoints[0].ticket).read_all().schema.equals(schema, check_metadata=True)


def test_collations(client: flight.FlightClient, database) -> None:
    """Those that are not the type's own, of tables and of statements; names are in "C" anyway."""
    database.execute(
        """
        create collation scratch."Odd one" (locale = 'C');
        create table scratch.sorted (n name, t text, c text collate "C", o varchar(5)[] collate scratch."Odd one", i int);
        comment on column scratch.sorted.c is 'sorted'
        """
    )
    wanted = [None, None, b'"C"', b'scratch."Odd one"', None]
    for command in (
        "select * from scratch.sorted",
        "select s.* from scratch.sorted s join scratch.sorted r using (i)",
    ):
        schema = client.get_schema(flight.FlightDescriptor.for_command(command.encode())).schema
        assert [field.metadata.get(b"pg:collation") for field in schema] == wanted
        assert [field.metadata.get(b"pg:comment") for field in schema] == [None, None, b"sorted", None, None]
    schema = client.get_schema(flight.FlightDescriptor.for_path("scratch", "sorted")).schema
    assert [field.metadata.get(b"pg:collation") for field in schema] == wanted


def test_plain_profile_has_no_extension_types(client: flight.FlightClient, table: str) -> None:
    options = flight.FlightCallOptions(headers=[(b"x-pgflight-profile", b"plain")])
    descriptor = flight.FlightDescriptor.for_path("scratch", table)
    schema = client.get_schema(descriptor, options=options).schema
    assert not any(isinstance(field.type, pa.BaseExtensionType) for field in schema)
    assert schema.field("code").type == pa.binary(16)


def test_views_and_statements_promise_no_not_null(client: flight.FlightClient, table: str) -> None:
    """An outer join makes NULLs of NOT NULL columns: only a relation read as it is may promise."""
    for command in (b"select * from scratch.goods", json.dumps({"table": "scratch.cheap"}).encode()):
        assert all(
            field.nullable for field in client.get_schema(flight.FlightDescriptor.for_command(command)).schema
        )


def test_unvalidated_not_null_is_not_trusted(client: flight.FlightClient, database: psycopg.Connection) -> None:
    """PostgreSQL 18: NOT NULL … NOT VALID holds for new rows alone."""
    database.execute("create table scratch.t (a int); insert into scratch.t values (null)")
    database.execute("alter table scratch.t add constraint a_nn not null a not valid")
    info = client.get_flight_info(flight.FlightDescriptor.for_path("scratch", "t"))
    assert info.schema.field("a").nullable
    assert client.do_get(info.endpoints[0].ticket).read_all().to_pydict() == {"a": [None]}


def test_list_flights(client: flight.FlightClient, table: str, database: psycopg.Connection) -> None:
    database.execute("create table scratch.hidden (a int)")
    infos = {tuple(part.decode() for part in info.descriptor.path): info for info in client.list_flights()}
    assert {("scratch", "goods"), ("scratch", "cheap"), ("scratch", "hidden")} <= infos.keys()
    assert not any(schema in ("pg_catalog", "information_schema") for schema, _ in infos)
    listed = infos["scratch", "goods"]
    assert listed.schema.types == client.get_schema(listed.descriptor).schema.types
    assert client.do_get(listed.endpoints[0].ticket).read_all().num_rows == 1000
    only = [info.descriptor.path for info in client.list_flights(b"scratch.g%")]
    assert only == [[b"scratch", b"goods"]]


def test_a_listed_ticket_serves_its_table(client: flight.FlightClient, table: str) -> None:
    """The schema that ListFlights computes from the catalog is the one that Describe gives."""
    for info in client.list_flights(b"scratch.%"):
        assert client.do_get(info.endpoints[0].ticket).read_all().schema.names == info.schema.names


def test_actions(client: flight.FlightClient) -> None:
    offered = {action.type for action in client.list_actions()}
    assert offered >= {"info", "CancelFlightInfo", "RenewFlightEndpoint", "spool.list", "spool.drop"}
    facts = json.loads(next(iter(client.do_action(flight.Action("info", b"")))).body.to_pybytes())
    assert facts["backend"]["name"] == "cpu"
    assert facts["postgresql"]["reader"] == "tcp"
    assert facts["postgresql"]["superuser"] is False


def test_json_projection_filter_and_limit(client: flight.FlightClient, table: str) -> None:
    command = {"table": "scratch.goods", "columns": ["name", "id"], "where": "id > 10", "limit": 2}
    read = client.do_get(flight.Ticket(json.dumps(command).encode())).read_all()
    assert (read.schema.names, read.num_rows) == (["name", "id"], 2)


def test_parameters(client: flight.FlightClient, table: str) -> None:
    command = {"sql": "select id, $2::jsonb as j from scratch.goods where id = $1", "params": [7, {"k": None}]}
    read = client.do_get(flight.Ticket(json.dumps(command).encode())).read_all()
    assert read.to_pydict() == {"id": [7], "j": ['{"k": null}']}


@pytest.mark.parametrize(
    "sql",
    [
        "show server_version",
        "explain select 1",
        "values (1, 'a'), (2, null)",
        "with a as (select 1 as x) select * from a;",
        "table scratch.goods",
        'select 1 as a, 2 as a, 3 as " "',
        "select 1 -- comment",
        "select point '(1,2)' as casts_wrap -- comment",
        "select * from scratch.goods where false",
    ],
)
def test_statements_that_return_rows(client: flight.FlightClient, table: str, sql: str) -> None:
    info = client.get_flight_info(flight.FlightDescriptor.for_command(sql.encode()))
    read = client.do_get(info.endpoints[0].ticket).read_all()
    assert read.schema.equals(info.schema)
