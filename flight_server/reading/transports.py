"""The option `transport`: what a read's replies go through, and what this server has of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from flight_server.options import ReadOptions
from flight_server.reading.file_reads import FileReads
from flight_server.reading.tally import Tally
from kernels.errors import RequestError
from transport.memory import RegionPool
from transport.modes.moving import FILE, GDS, Moving
from transport.spool import Recording, Spool

MIB = 1 << 20
DEFAULT_COLLECT_MIB = 512


class Transports:
    """What moves the replies of reads.  Thread-safe.

    Parameters
    ----------
    spool : Spool, optional
        Where ``gds`` has its files.
    files : FileReads, optional
        What ``file`` needs.
    collect_mib : int
        How much of a result may be collected by the transports that collect all of it.
    """

    def __init__(
        self,
        spool: Spool | None = None,
        files: FileReads | None = None,
        collect_mib: int = DEFAULT_COLLECT_MIB,
    ) -> None:
        self._spool = spool
        self._files = files
        self._limit_bytes = collect_mib * MIB
        # Twice: chunks and what they are joined into, a buffer and the one that it grows into.
        self._collecting = RegionPool(2 * self._limit_bytes + 4 * MIB)

    @contextmanager
    def moving(
        self, options: ReadOptions, tally: Tally, streams: int = 1, recording: Recording | None = None
    ) -> Iterator[Moving]:
        """Move the replies of one read; what was done to them stands in its tally afterwards.

        Parameters
        ----------
        options : ReadOptions
        tally : Tally
        streams : int
            Sessions that will read.
        recording : Recording, optional
            Where the replies are kept.
        """
        if options.transport == FILE and (recording is not None or options.endpoints > 1):
            raise RequestError("transport=file: neither max_age_s nor several endpoints go with it")
        with ExitStack() as stack:
            if options.transport == GDS and recording is None:
                recording = stack.enter_context(self._scratch())
            yield from self._tallied(tally, self._moving(options, streams, recording=recording))

    @property
    def files(self) -> FileReads:
        """What ``file`` needs.

        Raises
        ------
        RequestError
            The server has no login for it.
        """
        if self._files is None:
            raise RequestError(
                "transport=file: this server has no login that writes files (settings file_dsn and file_dir)"
            )
        return self._files

    def close(self) -> None:
        """Let go of what ``file`` needs."""
        if self._files is not None:
            self._files.close()

    @contextmanager
    def stored(self, options: ReadOptions, tally: Tally, streams: int = 1) -> Iterator[Moving]:
        """Move replies that lie in files."""
        yield from self._tallied(tally, self._moving(options, streams, stored=True))

    def _moving(
        self, options: ReadOptions, streams: int, *, recording: Recording | None = None, stored: bool = False
    ) -> Moving:
        return Moving(
            options.transport,
            collecting=self._collecting,
            limit_bytes=self._limit_bytes // max(1, streams),
            recording=recording,
            stored=stored,
        )

    def _scratch(self) -> AbstractContextManager[Recording]:
        """Write an entry that nobody will see."""
        if self._spool is None:
            raise RequestError("transport=gds: this server has no spool for its files (setting spool_dir)")
        return self._spool.record("", "")

    def _tallied(self, tally: Tally, moving: Moving) -> Iterator[Moving]:
        try:
            yield moving
        finally:
            tally.facts |= moving.facts()
            moving.close()
