"""Flight SQL clients of the server under test."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from adbc_driver_flightsql import dbapi

from demo.postgres import EmbeddedPostgres
from tests.flight_server.sql.rpc import RawClient
from tests.helpers.server import ServerProcess


@pytest.fixture
def adbc(server: ServerProcess) -> Iterator[dbapi.Connection]:
    """A connection of ADBC's driver."""
    with dbapi.connect(server.uri, autocommit=True) as connection:
        yield connection


@pytest.fixture
def raw(server: ServerProcess) -> Iterator[RawClient]:
    """A client that sends the protocol's messages as they are."""
    with RawClient(server.uri) as client:
        yield client


@pytest.fixture
def shop(database: psycopg.Connection) -> psycopg.Connection:
    """Tables with keys, odd names, comments and defaults, in schema `scratch`; and two more schemas."""
    database.execute(
        r'''
        create domain scratch.price as numeric(8, 2) not null;
        create type scratch.mood as enum ('sad', 'ok');
        create table scratch.maker (
            country char(2), name varchar(40), founded date, primary key (country, name));
        create table scratch.goods (
            id int8 generated always as identity primary key, label text not null, price scratch.price,
            maker_country char(2), maker_name varchar(40), code uuid unique, mood scratch.mood, doc jsonb,
            doubled numeric generated always as (1.5 * 2) stored, at timestamptz(3) default now(),
            tags text[], counted serial,
            constraint made_by foreign key (maker_country, maker_name) references scratch.maker (country, name)
                on update cascade on delete set null);
        create table scratch."Odd ""Näme""" ("from" int primary key, "ünï" text, "Goods" int8 references scratch.goods);
        create table scratch.a_b (x int); create table scratch.axb (x int);
        create table scratch."back\slash" (x int);
        create view scratch.cheap as select * from scratch.goods where price < 10;
        create materialized view scratch.counted as select count(*) as n from scratch.goods;
        create table scratch.parts (k int primary key, v text) partition by range (k);
        create table scratch.parts_1 partition of scratch.parts for values from (0) to (10);
        create table scratch.none ();
        comment on column scratch.goods.price is 'in euros';
        '''
    )
    return database


@pytest.fixture(scope="session")
def writable(postgres: EmbeddedPostgres) -> Iterator[ServerProcess]:
    """A server that lets clients write."""
    with ServerProcess(postgres.dsn(), "--allow-writes") as process:
        yield process


@pytest.fixture
def writer(writable: ServerProcess) -> Iterator[dbapi.Connection]:
    """ADBC's connection to it, every statement a transaction by itself."""
    with dbapi.connect(writable.uri, autocommit=True) as connection:
        yield connection


@pytest.fixture
def raw_writer(writable: ServerProcess) -> Iterator[RawClient]:
    """A client of it that sends the protocol's messages as they are."""
    with RawClient(writable.uri) as client:
        yield client
