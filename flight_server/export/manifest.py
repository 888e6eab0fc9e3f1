"""What an export has written: the manifest beside the files, which is what an interrupted one goes on from."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from kernels.errors import ConfigError
from transport.snapshot import Snapshot

MANIFEST = "manifest.json"
LOCK = ".lock"
PARTIAL = ".partial"
VERSION = 1
VERIFY_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A finished file.

    Parameters
    ----------
    path : str
        Below the export's directory.
    pages : str
        Which part of the table it holds.
    rows, size_bytes : int
    digest : str
        XXH3, 128 bits, of the whole file.
    """

    path: str
    pages: str
    rows: int
    size_bytes: int
    digest: str


@dataclass(slots=True)
class TableFacts:
    """A table, and what is there of it.

    Parameters
    ----------
    snapshot : str
        What the snapshot saw that all its files are of.
    pages : list of str
        The parts it is cut into.
    files : dict
        By part.
    """

    snapshot: str
    pages: list[str]
    files: dict[str, FileFacts] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether all files are there."""
        return set(self.pages) == self.files.keys()

    @property
    def rows(self) -> int:
        """Rows in the files that are there."""
        return sum(file.rows for file in self.files.values())


class Manifest:
    """The manifest of a directory, which belongs to this process until `close`.  Thread-safe.

    Parameters
    ----------
    directory : Path
        Made if it does not exist.
    what : dict
        What is exported, and how; an export that goes on must be told the same.

    Raises
    ------
    ConfigError
        The directory holds another export, or another process is at it.
    """

    def __init__(self, directory: Path, what: dict[str, Any]) -> None:
        self.directory = directory
        self.tables: dict[str, TableFacts] = {}
        self._what = what
        self._server = ""
        self._complete = False
        self._lock = threading.Lock()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._owned: BinaryIO = (directory / LOCK).open("wb")
            fcntl.flock(self._owned, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._load()
        except BlockingIOError:
            raise ConfigError(f"another export writes to {directory}") from None
        except OSError as failure:
            raise ConfigError(f"cannot use {directory}: {failure.strerror}") from failure

    @property
    def complete(self) -> bool:
        """Whether everything is there."""
        return self._complete

    @property
    def consistent(self) -> bool:
        """Whether everything that is there is of one snapshot."""
        return len({facts.snapshot for facts in self.tables.values() if facts.files}) < 2

    def begin(self, snapshot: Snapshot, pages: Mapping[str, Sequence[str]], *, keep_finished: bool) -> list[str]:
        """Keep what is sound and of this snapshot, drop the rest.

        Nothing was written between two snapshots that see the same on the same server: their files go together.

        Parameters
        ----------
        snapshot : Snapshot
            What is read now.
        pages : dict
            The parts of every table.
        keep_finished : bool
            Also keep whole tables of an older snapshot.

        Returns
        -------
        list of str
            Why files were dropped that had been finished, one line a table.
        """
        older, self.tables, dropped = self.tables, {}, []
        for name, parts in pages.items():
            facts = TableFacts(snapshot.content, list(parts))
            self.tables[name] = facts
            found = older.get(name)
            if found is None or not found.files:
                continue
            same = (found.snapshot, self._server) == (snapshot.content, snapshot.server)
            if not (same and found.pages == facts.pages) and not (keep_finished and found.finished):
                dropped.append(f"{name}: the database has changed since; read again")
                continue
            sound = {part: file for part, file in found.files.items() if self._is_sound(file)}
            if len(sound) < len(found.files):
                dropped.append(f"{name}: {len(found.files) - len(sound)} damaged files are read again")
            if same or len(sound) == len(found.files):
                facts.snapshot, facts.pages, facts.files = found.snapshot, found.pages, sound
        self._server = snapshot.server
        self._complete = False
        self._save()
        self._sweep()
        return dropped

    def add(self, table: str, file: FileFacts) -> None:
        """Record a finished file."""
        with self._lock:
            self.tables[table].files[file.pages] = file
            self._save()

    def finish(self) -> None:
        """Say that everything is there."""
        with self._lock:
            self._complete = True
            self._save()

    def close(self) -> None:
        """Let another process write."""
        self._owned.close()

    def _load(self) -> None:
        path = self.directory / MANIFEST
        if not path.exists():
            others = [entry.name for entry in self.directory.iterdir() if entry.name != LOCK]
            if others:
                raise ConfigError(f"{self.directory} is not empty and holds no export: choose another directory")
            return
        try:
            written = json.loads(path.read_text())
            if (written["version"], written["what"]) != (VERSION, self._what):
                held = json.dumps(written["what"])
                raise ConfigError(f"{self.directory} holds another export ({held}): choose another directory")
            self._server, self._complete = written["server"], written["complete"]
            for name, table in written["tables"].items():
                files = {file["pages"]: FileFacts(**file) for file in table["files"]}
                self.tables[name] = TableFacts(table["snapshot"], table["pages"], files)
        except (ValueError, KeyError, TypeError) as failure:
            raise ConfigError(
                f"{path} is damaged ({failure}): remove it, or choose another directory"
            ) from failure

    def _save(self) -> None:
        tables = {
            name: {
                "snapshot": facts.snapshot,
                "rows": facts.rows,
                "finished": facts.finished,
                "pages": facts.pages,
                "files": [asdict(file) for file in facts.files.values()],
            }
            for name, facts in self.tables.items()
        }
        written = {
            "version": VERSION,
            "complete": self._complete,
            "consistent": self.consistent,
            "what": self._what,
            "server": self._server,
            "tables": tables,
        }
        partial = self.directory / (MANIFEST + PARTIAL)
        with partial.open("w") as file:
            json.dump(written, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self.directory / MANIFEST)
        sync_directory(self.directory)

    def _is_sound(self, facts: FileFacts) -> bool:
        try:
            return digest_of(self.directory / facts.path) == (facts.size_bytes, facts.digest)
        except OSError:
            return False

    def _sweep(self) -> None:
        """Remove files of ours that are not recorded: an export was interrupted, or they were dropped."""
        kept = {self.directory / file.path for facts in self.tables.values() for file in facts.files.values()}
        for path in self.directory.glob("*/part-*"):
            if path not in kept:
                path.unlink()


def digest_of(path: Path) -> tuple[int, str]:
    """Return a file's size in bytes and the digest of its contents."""
    digest, size = xxhash.xxh3_128(), 0
    block = bytearray(VERIFY_BYTES)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(memoryview(block)[:count])
            size += count
    return size, digest.hexdigest()


def sync_directory(directory: Path) -> None:
    """Have the names in a directory survive a crash."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
