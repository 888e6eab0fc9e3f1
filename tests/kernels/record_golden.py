"""Write the golden files anew from a live server: ``python -m tests.kernels.record_golden``.

For every ``golden/NAME.sql`` there are the reply's bytes in both framings (``NAME.copy.bin``,
``NAME.extended.bin``) and ``NAME.json``: the columns as PostgreSQL described them, and the values, which come from
`tests.helpers.oracle`, not from the kernels.  ``infinite`` is read with option infinity=null.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from demo.postgres import EmbeddedPostgres
from kernels.column import Column
from kernels.plan import TypePolicy, plan
from tests.helpers import oracle, wire
from transport.pool import ConnectionPool

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.sql"))
TEXT_OID = 25
INFINITE = "infinite"


def wire_columns(columns: tuple[Column, ...]) -> tuple[Column, ...]:
    """Return the columns as they travel: text where the query casts them."""
    casts = plan(columns, policy("")).casts
    return tuple(
        replace(column, type_oid=TEXT_OID, typmod=-1, send="textsend", kind="b") if cast else column
        for column, cast in zip(columns, casts, strict=True)
    )


def policy(name: str) -> TypePolicy:
    """Return the policy that a recording is read with."""
    return TypePolicy(infinity="null" if name == INFINITE else "error", nested="text")


def load(name: str) -> tuple[tuple[Column, ...], list[list[Any]]]:
    """Return (columns, rows) of a golden file."""
    stored = json.loads((GOLDEN / f"{name}.json").read_text())
    columns = tuple(Column.of(column) for column in stored["columns"])
    return columns, [[_parse(value) for value in row] for row in stored["rows"]]


def bytes_of(name: str, framing: str) -> bytes:
    """Return the recorded reply."""
    return (GOLDEN / f"{name}.{framing}.bin").read_bytes()


def statement(name: str) -> str:
    """Return the SQL."""
    return (GOLDEN / f"{name}.sql").read_text()


def _store(value: Any) -> Any:
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def _parse(value: Any) -> Any:
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"])
    return tuple(value) if isinstance(value, list) else value


def main() -> None:
    """Record all of them."""
    with EmbeddedPostgres.start() as server:
        pool = ConnectionPool(server.dsn())
        for name in NAMES:
            for framing in wire.FRAMINGS:
                columns, received = wire.record(pool, statement(name), framing, policy(name))
                (GOLDEN / f"{name}.{framing}.bin").write_bytes(received)
                as_null = oracle.Policy(infinity_is_null=name == INFINITE)
                rows = oracle.decode(wire_columns(columns), received, framing, as_null)
            described = ",\n  ".join(json.dumps(asdict(column)) for column in columns)
            values = ",\n  ".join(json.dumps([_store(value) for value in row], ensure_ascii=False) for row in rows)
            text = f'{{"columns": [\n  {described}\n],\n"rows": [\n  {values}\n]}}\n'
            (GOLDEN / f"{name}.json").write_text(text)
        pool.close()


if __name__ == "__main__":
    main()
