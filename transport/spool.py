"""Results kept on disk: the replies as PostgreSQL sent them, to be served again without asking it.

One directory an entry, ``<spool>/<key>/<moment>-<random>``: a file of raw replies for each stream, and an index
with what is needed to decode and to trust them.  An entry appears by a rename, whole or not at all; one that is
being read may be removed at any time, for its files are open.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import structlog
import xxhash

from kernels.column import Column
from kernels.errors import ConfigError
from transport.reader import Reader
from transport.spool_files import FileReader, Recorder, SpoolSink

log = structlog.get_logger("pgflight.spool")

VERSION = 1
PARTIAL = ".partial"
INDEX = "index.json"
VERIFY_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class SpoolOptions:
    """Where results are kept, and how much room they may take.

    Parameters
    ----------
    directory : Path
        Made if it does not exist; one server's alone.
    max_bytes : int
        The least recently used entries leave when more is wanted.
    min_free_bytes : int
        So much is left free on the file system.
    """

    directory: Path
    max_bytes: int
    min_free_bytes: int


class Entry:
    """One result, verified, with its files open.

    Attributes
    ----------
    columns : tuple of Column
        The statement's result, as described when it was read.
    copy : bool
        Whether the replies are COPY streams.
    created_at : float
        When the snapshot was taken, Unix time in seconds.
    rows, size_bytes : int
    """

    def __init__(self, facts: dict[str, Any], files: list[BinaryIO], resources: ExitStack) -> None:
        self.columns = tuple(Column.of(column) for column in facts["columns"])
        self.copy: bool = facts["copy"]
        self.created_at: float = facts["created_at"]
        self.rows: int = facts["rows"]
        self.size_bytes = sum(stream["bytes"] for stream in facts["streams"])
        self._replies = [stream["replies"] for stream in facts["streams"]]
        self._files = files
        self._resources = resources

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._resources.close()

    @property
    def stream_count(self) -> int:
        """How many files there are."""
        return len(self._files)

    def streams(self) -> Iterator[tuple[Reader, int]]:
        """Yield a reader for each stream, and how many replies it holds."""
        for file, replies in zip(self._files, self._replies, strict=True):
            yield FileReader(file), replies


class Recording:
    """An entry that is being written; thread-safe."""

    def __init__(self, spool: Spool, key: str, identity: str) -> None:
        self._spool = spool
        self._key = key
        self._identity = identity
        self._created_at = time.time()
        self._directory = spool.partial_directory()
        self._sinks: list[SpoolSink] = []
        self._lock = threading.Lock()

    def sink(self) -> SpoolSink:
        """Begin a file of another stream."""
        with self._lock:
            sink = SpoolSink(self._directory / f"stream-{len(self._sinks)}.wire", self._spool.take_room)
            self._sinks.append(sink)
        return sink

    def recorder(self, reader: Reader) -> Reader:
        """Wrap a reader so that all it receives is written too."""
        return Recorder(reader, self.sink())

    def publish(self, columns: Sequence[Column], *, copy: bool, rows: int) -> bool:
        """Make the entry visible, all replies being proven whole; return whether there is one."""
        streams = [sink.finish() for sink in self._sinks]
        if any(stream is None for stream in streams):
            return False
        facts = {
            "version": VERSION,
            "identity": self._identity,
            "created_at": self._created_at,
            "columns": [asdict(column) for column in columns],
            "copy": copy,
            "rows": rows,
            "streams": streams,
        }
        with (self._directory / INDEX).open("w") as index:
            index.write(json.dumps(facts))
            index.flush()
            os.fsync(index.fileno())
        self._spool.publish(self._directory, self._key, f"{time.time_ns()}-{secrets.token_hex(4)}")
        return True

    def discard(self) -> None:
        """Remove what was written and not published."""
        for sink in self._sinks:
            sink.close()
        self._spool.remove_partial(self._directory, sum(sink.size_bytes for sink in self._sinks))


class Spool:
    """A directory of results.  Thread-safe.

    Parameters
    ----------
    options : SpoolOptions

    Raises
    ------
    ConfigError
        The directory cannot be used, or another server uses it.
    """

    def __init__(self, options: SpoolOptions) -> None:
        self._options = options
        self._root = options.directory
        self._lock = threading.RLock()
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._owned = (self._root / ".lock").open("w")
            fcntl.flock(self._owned, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another server uses the spool directory {self._root}") from None
        except OSError as failure:
            raise ConfigError(f"cannot use the spool directory {self._root}: {failure.strerror}") from failure
        shutil.rmtree(self._root / PARTIAL, ignore_errors=True)
        (self._root / PARTIAL).mkdir()
        self._sizes = {path.parent: _size(path.parent) for path in self._root.glob(f"*/*/{INDEX}")}
        self._partial_bytes = 0

    @property
    def size_bytes(self) -> int:
        """Bytes kept now."""
        return sum(self._sizes.values())

    @contextmanager
    def record(self, key: str, identity: str) -> Iterator[Recording]:
        """Write a new entry; what is not published when the block ends is removed."""
        recording = Recording(self, key, identity)
        try:
            yield recording
        finally:
            recording.discard()

    def find(self, key: str, max_age_s: float) -> Entry | None:
        """Open the newest entry of a key that is not too old; one that is damaged is removed."""
        for directory in sorted((self._root / key).glob("*-*"), reverse=True):
            try:
                facts = json.loads((directory / INDEX).read_text())
                if facts["version"] == VERSION and time.time() - facts["created_at"] <= max_age_s:
                    entry = _open(directory, facts)
                    os.utime(directory)
                    return entry
            except FileNotFoundError:
                continue  # it was removed just now
            except (OSError, ValueError, KeyError, TypeError) as failure:
                log.warning("spooled result removed", entry=directory.name, reason=str(failure))
                self._remove(directory)
        return None

    def entries(self, identity: str) -> list[dict[str, Any]]:
        """Return what is kept for somebody."""
        found = []
        for directory in sorted(self._sizes):
            try:
                facts = json.loads((directory / INDEX).read_text())
            except (OSError, ValueError):
                continue  # removed just now, or damaged: `find` sees to that
            if facts.get("identity") == identity:
                kept = {name: facts[name] for name in ("created_at", "rows")}
                found.append({"key": directory.parent.name, "bytes": self._sizes.get(directory, 0)} | kept)
        return found

    def drop(self, identity: str, key: str | None = None) -> int:
        """Remove what is kept for somebody, or one key of it; return how many entries."""
        keys = {entry["key"] for entry in self.entries(identity) if key in (None, entry["key"])}
        directories = [directory for directory in list(self._sizes) if directory.parent.name in keys]
        for directory in directories:
            self._remove(directory)
        return len(directories)

    def close(self) -> None:
        """Let another server use the directory."""
        self._owned.close()

    def partial_directory(self) -> Path:
        """Make a directory for an entry that is being written."""
        path = self._root / PARTIAL / secrets.token_hex(8)
        path.mkdir()
        return path

    def take_room(self, size: int) -> bool:
        """Make room for `size` more bytes, by removing the least recently used; return whether there is."""
        with self._lock:
            free = shutil.disk_usage(self._root).free
            wanted = self._partial_bytes + size
            while self._sizes and (
                self.size_bytes + wanted > self._options.max_bytes or free - size < self._options.min_free_bytes
            ):
                oldest = min(self._sizes, key=_last_use)
                free += self._sizes[oldest]
                self._remove(oldest)
            if wanted > self._options.max_bytes or free - size < self._options.min_free_bytes:
                return False
            self._partial_bytes = wanted
            return True

    def publish(self, partial: Path, key: str, name: str) -> None:
        """Move a finished entry to its place; older ones of its key go."""
        place = self._root / key / name
        with self._lock:
            older = [directory for directory in self._sizes if directory.parent == place.parent]
            place.parent.mkdir(exist_ok=True)
            _sync(partial)
            partial.rename(place)
            _sync(place.parent)
            self._sizes[place] = _size(place)
            for directory in older:
                self._remove(directory)

    def remove_partial(self, partial: Path, size: int) -> None:
        """Forget an entry that was being written, published or not."""
        with self._lock:
            self._partial_bytes -= size
        shutil.rmtree(partial, ignore_errors=True)

    def _remove(self, directory: Path) -> None:
        with self._lock:
            self._sizes.pop(directory, None)
            shutil.rmtree(directory, ignore_errors=True)


def _open(directory: Path, facts: dict[str, Any]) -> Entry:
    """Open an entry's files and verify them: no row of a damaged file may be handed out."""
    with ExitStack() as resources:
        files = []
        for stream in facts["streams"]:
            file = resources.enter_context((directory / stream["file"]).open("rb", buffering=0))
            if _digest(file) != stream["digest"]:
                raise ValueError(f"{stream['file']} is damaged")
            file.seek(0)
            files.append(file)
        return Entry(facts, files, resources.pop_all())


def _digest(file: Any) -> str:
    digest, block = xxhash.xxh3_128(), bytearray(VERIFY_BYTES)
    while count := file.readinto(block):
        digest.update(memoryview(block)[:count])
    return digest.hexdigest()


def _sync(directory: Path) -> None:
    """Have the names in a directory survive a crash."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


def _last_use(directory: Path) -> float:
    try:
        return directory.stat().st_mtime
    except OSError:
        return 0.0  # gone already
