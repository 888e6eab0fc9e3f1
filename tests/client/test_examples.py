"""The examples that are no page's: run against a server, with what is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg

from tests.helpers.server import ServerProcess

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_embeddings(server: ServerProcess, database: psycopg.Connection) -> None:
    """Batches of 1 MiB: the best one is in a later batch than the first."""
    database.execute(
        "create table scratch.items as select g as id, case when g % 7 > 0 then array(select case when g in (1, 2999)"
        " then i else sin(g * i) end from generate_series(1, 128) i)::vector(128) end as v"
        " from generate_series(1, 3000) g"
    )
    command = [sys.executable, EXAMPLES / "embeddings_torch.py", server.uri, "scratch.items", "id", "v"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["2999", str(float(sum(i * i for i in range(1, 129))))]
