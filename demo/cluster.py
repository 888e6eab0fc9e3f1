"""A PostgreSQL cluster's files: where they lie, who owns them, and making them with initdb."""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from demo.distribution import Distribution, Owner, can_enter
from demo.tether import tethered

Auth = Literal["trust", "scram-sha-256"]

SUPERUSER = "postgres"
SOCKET_PATH_BYTES = 100  # sun_path holds 108 on Linux, 104 on macOS


class PostgresError(RuntimeError):
    """The cluster could not be made or started; the message ends with the tail of its log."""


@dataclass(frozen=True)
class Cluster:
    """A directory with data, log and password, and the binaries and the user that work on it."""

    directory: Path
    distribution: Distribution
    owner: Owner | None
    throwaway: bool

    @classmethod
    def at(cls, directory: Path | None, distribution: str | Path) -> Self:
        """Choose the directory, a fresh temporary one for None, and find the binaries."""
        owner = Owner.needed()
        found = Distribution.find(distribution, owner)
        if directory is None:
            return cls(temporary_directory(owner), found, owner, throwaway=True)
        home = directory.absolute()
        home.mkdir(parents=True, exist_ok=True)
        if not can_enter(home, owner):
            msg = f"{home} cannot be reached by the user that runs PostgreSQL; name another directory"
            raise PostgresError(msg)
        return cls(home, found, owner, throwaway=False)

    @property
    def data(self) -> Path:
        """The data directory: one per major version, for they cannot read each other's."""
        return self.directory / f"pgdata-{self.distribution.major}"

    @property
    def log(self) -> Path:
        """The server's log, appended to by every start."""
        return self.directory / "postgres.log"

    def socket_directory(self) -> Path:
        """Make the directory of the Unix socket: with the data, or where that path is too long, elsewhere."""
        inside = self.directory / "socket"
        if not _holds_socket(inside):
            return temporary_directory(self.owner)
        inside.mkdir(mode=0o700, exist_ok=True)
        own(inside, self.owner)
        return inside

    def password(self) -> str:
        """Read the password of the cluster's roles, choosing one the first time."""
        path = self.directory / "password"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_urlsafe(18))
            own(path, self.owner)
        return path.read_text()

    def initialise(self, auth: Auth) -> None:
        """Make the data directory unless it exists; it appears complete or not at all."""
        if self.data.exists():
            return
        building = Path(tempfile.mkdtemp(prefix="initdb-", dir=self.directory))
        own(building, self.owner)
        try:
            self._initdb(building, auth)
            building.rename(self.data)
        except OSError:
            if not self.data.exists():  # otherwise another process was first
                raise
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def _initdb(self, data: Path, auth: Auth) -> None:
        options = ["--encoding=UTF8", "--no-sync", "--no-instructions", f"--auth={auth}", "-U", SUPERUSER]
        if auth != "trust":
            self.password()
            options.append(f"--pwfile={self.directory / 'password'}")
        if self.distribution.major >= 17:
            options += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        else:
            options += ["--locale=C"]
        command = self.as_owner(["initdb", "-D", data, *options])
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd="/", env=clean_environment()
        )
        if done.returncode != 0:
            msg = f"initdb failed in {self.directory}: {done.stderr.strip() or done.stdout.strip()}"
            raise PostgresError(msg)

    def as_owner(self, command: Sequence[str | Path]) -> list[str]:
        """Complete a command of the distribution so that it runs as the owner and shuts down with us."""
        program, *arguments = command
        owner = (self.owner.uid, self.owner.gid) if self.owner else None
        fast_shutdown = signal.SIGINT
        return tethered([self.distribution.bin / program, *arguments], death_signal=fast_shutdown, owner=owner)


def temporary_directory(owner: Owner | None) -> Path:
    """Make a private directory whose path leaves room for a socket's name."""
    for base in (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108
        if _holds_socket(base / "pgflight-xxxxxxxx" / "socket") and can_enter(base, owner):
            made = Path(tempfile.mkdtemp(prefix="pgflight-", dir=base))
            own(made, owner)
            return made
    msg = f"no temporary directory with a short path: set TMPDIR (now {tempfile.gettempdir()})"
    raise PostgresError(msg)


def _holds_socket(directory: Path) -> bool:
    return len(os.fsencode(directory / ".s.PGSQL.65535")) <= SOCKET_PATH_BYTES


def own(path: Path, owner: Owner | None) -> None:
    """Give something that we made to the cluster's owner."""
    if owner is not None:
        os.chown(path, owner.uid, owner.gid)


def clean_environment() -> dict[str, str]:
    """Return our environment without what would change initdb's or the server's mind."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}
