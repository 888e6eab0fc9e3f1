"""The sum of all accounts is right in every read that completes, whatever happens to the tables meanwhile."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from tests.helpers.bank import Bank
from tests.helpers.server import ServerProcess

TYPED_FAILURES = (flight.FlightError, pa.ArrowException, KeyError)
MODES = [
    {"streams": 2}, {"streams": 4, "ordered": True}, {"streams": 8}, {"endpoints": 2}, {"streams": 4},
    {"endpoints": 4}, {"streams": 8, "ordered": True}, {"endpoints": 8, "streams": 2},
]  # fmt: skip


def read(client: flight.FlightClient, pool: ThreadPoolExecutor, table: str, mode: dict[str, object]) -> pa.Table:
    """Read all endpoints of a table, at the same time."""
    command = json.dumps({"table": table, "options": {**mode, "timeout_s": 30}}).encode()
    info = client.get_flight_info(flight.FlightDescriptor.for_command(command))
    tickets = [endpoint.ticket for endpoint in info.endpoints]
    try:
        return pa.concat_tables(pool.map(lambda ticket: client.do_get(ticket).read_all(), tickets))
    finally:
        if len(tickets) > 1:
            body = info.serialize()
            size, length = len(body), bytearray()
            while size > 127:
                length.append(size & 127 | 128)
                size >>= 7
            list(client.do_action(flight.Action("CancelFlightInfo", b"\n" + bytes([*length, size]) + body)))


def audit(server: ServerProcess, bank: Bank, reads: int) -> tuple[int, int]:
    """Read the accounts `reads` times; every read that completes must be right.  Return (right, refused)."""
    right = refused = 0
    with flight.connect(server.uri) as client, ThreadPoolExecutor(8) as pool:
        for number in range(reads):
            try:
                result = read(
                    client, pool, ("bank.plain", "bank.parted")[number % 2], MODES[number // 2 % len(MODES)]
                )
            except TYPED_FAILURES:
                refused += 1
                continue
            assert result.num_rows == Bank.ACCOUNTS
            assert pc.sum(result["balance"]).as_py() == Bank.TOTAL
            assert pc.count_distinct(result["id"]).as_py() == Bank.ACCOUNTS
            right += 1
    assert not bank.failures
    return right, refused


def bank_audit(postgres: EmbeddedPostgres, reads: int, record: pytest.RecordProperty) -> None:
    bank = Bank(postgres)
    with ServerProcess(postgres.dsn(), "--max-connections", "20") as server:
        threads = bank.run(bank.transfer, bank.transfer, bank.move, bank.vacuum, bank.rewrite)
        try:
            right, refused = audit(server, bank, reads)
        finally:
            bank.stop.set()
            for thread in threads:
                thread.join()
    with postgres.connect() as connection:
        connection.execute("drop schema bank cascade")
    record("right", right)
    record("refused", refused)
    print(f"bank transfer: {right} reads right, {refused} refused, 0 wrong; meanwhile {dict(bank.done)}")
    assert all(
        bank.done[action]
        for action in ("transfer", "move", "vacuum", "vacuum full", "alter", "truncate", "detach")
    )
    assert right > reads * 0.8


def test_bank_transfer(postgres: EmbeddedPostgres, record_property: pytest.RecordProperty) -> None:
    bank_audit(postgres, 200, record_property)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_bank_transfer_long(postgres: EmbeddedPostgres, record_property: pytest.RecordProperty) -> None:
    bank_audit(postgres, 1200, record_property)
