"""Transactions that clients begin and end: each on a connection of its own, from its first statement on."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import structlog

from flight_server.reading.sessions import Sessions
from flight_server.request import ReadRequest
from flight_server.sql.shelf import Shelf
from kernels.errors import OverloadedError, PgflightError, RequestError
from transport.writing import WriteSession

log = structlog.get_logger("pgflight.transaction")

LOOK_S = 0.1
TICK_S = 1.0
REMEMBERED = 4096
COMMITTED, ROLLED_BACK = "committed", "rolled back"


@dataclass(frozen=True, slots=True)
class TransactionLimits:
    """How long and how many.

    Parameters
    ----------
    idle_s : float
        A transaction that was not used for so long is rolled back.
    max_s : float
        And one that is so old.
    count : int
        Transactions at once; one takes a connection from its first statement on.
    wait_s : float
        How long a statement waits for another of the same transaction.
    """

    idle_s: float = 300.0
    max_s: float = 3600.0
    count: int = 64
    wait_s: float = 30.0


@dataclass(slots=True, eq=False)
class Transaction:
    """One of a client's."""

    id: str
    identity: str
    peer: str
    search_path: str
    session: WriteSession | None = None
    """None before the first statement: nothing was written, and no connection taken."""
    busy: threading.Lock = field(default_factory=threading.Lock)
    begun: float = field(default_factory=time.monotonic)
    used: float = field(default_factory=time.monotonic)
    savepoints: int = 0
    ended: str = ""


class Transactions:
    """All transactions of all clients.  Thread-safe; the statements of one run one after the other.

    Parameters
    ----------
    sessions : Sessions
    limits : TransactionLimits
    """

    def __init__(self, sessions: Sessions, limits: TransactionLimits) -> None:
        self._sessions = sessions
        self._limits = limits
        self._open: dict[str, Transaction] = {}
        self._outcomes: Shelf[str] = Shelf(REMEMBERED, REMEMBERED * 64, limits.max_s)
        self._lock = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._reap, name="transactions", daemon=True).start()

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, identity: str, peer: str, search_path: str) -> str:
        """Begin a transaction and return its id.

        Raises
        ------
        OverloadedError
            There are too many.
        """
        transaction = Transaction(secrets.token_hex(16), identity, peer, search_path)
        with self._lock:
            if len(self._open) >= self._limits.count:
                raise OverloadedError(f"{self._limits.count} transactions are open, more are not allowed")
            self._open[transaction.id] = transaction
        return transaction.id

    def is_touched(self, identity: str, name: str) -> bool:
        """Tell whether a transaction has run a statement: reads then have to see what it did."""
        return self._find(identity, name).session is not None

    def current(self, identity: str, name: str, peer: str) -> str:
        """Return the transaction in which a statement runs that was prepared in one.

        Drivers go on using a statement in the next transaction of their connection, and do not say so.
        """
        with self._lock:
            known = name in self._open
        return name if known or not name else self.of_peer(identity, peer) or name

    def of_peer(self, identity: str, peer: str) -> str:
        """Return the transaction that a client has begun over this connection, empty where there is none.

        Raises
        ------
        RequestError
            There are several.
        """
        with self._lock:
            found = [each.id for each in self._open.values() if (each.identity, each.peer) == (identity, peer)]
        if len(found) > 1:
            raise RequestError("several transactions are open: the request has to say which one it belongs to")
        return found[0] if found else ""

    @contextmanager
    def use(self, identity: str, name: str, check: Callable[[], None]) -> Iterator[WriteSession]:
        """Run statements of a transaction inside; it ends if the connection is lost, or a statement ends it.

        Raises
        ------
        RequestError
            It is unknown, or has ended.
        OverloadedError
            Another of its statements goes on for too long.
        """
        transaction = self._find(identity, name)
        with self._alone(transaction, check):
            if transaction.session is None:
                transaction.session = self._enter(transaction)
            try:
                yield transaction.session
            finally:
                with suppress(PgflightError):  # of a connection that is lost, as is seen next
                    transaction.session.abandon()
                if not transaction.session.is_open:
                    self._finish(transaction, "ended by a statement, or with its connection")

    def savepoint(self, identity: str, name: str, check: Callable[[], None]) -> str:
        """Set a savepoint and return its id."""
        with self.use(identity, name, check) as session:
            transaction = self._find(identity, name)
            transaction.savepoints += 1
            number = transaction.savepoints
            session.execute(f"savepoint pgflight_{number}")
        return f"{name}.{number}"

    def end_savepoint(self, identity: str, savepoint: str, check: Callable[[], None], *, release: bool) -> None:
        """Release a savepoint, or go back to it: it stays then."""
        name, _, number = savepoint.partition(".")
        if not number.isdecimal():
            raise RequestError("there is no such savepoint")
        with self.use(identity, name, check) as session:
            session.execute(f"{'release' if release else 'rollback to'} savepoint pgflight_{int(number)}")

    def end(self, identity: str, name: str, check: Callable[[], None], *, commit: bool) -> None:
        """Commit or roll back; a repeat is told what became of the transaction.

        Raises
        ------
        PostgresError
            It could not be committed: it is rolled back.
        OutcomeUnknownError
            Nobody knows whether it is committed.
        RequestError
            It has ended otherwise, or is unknown.
        """
        wanted = COMMITTED if commit else ROLLED_BACK
        past = self._outcomes.get((identity, name))
        if past is not None:
            if past == wanted:
                return
            raise RequestError(f"the transaction was {past}")
        transaction = self._find(identity, name)
        with self._alone(transaction, check):
            outcome = "left in an unknown state: its COMMIT was not answered" if commit else ROLLED_BACK
            try:
                if commit and transaction.session is not None:
                    transaction.session.commit()
                outcome = wanted
            except PgflightError as failure:
                if hasattr(failure, "sqlstate"):
                    outcome = ROLLED_BACK
                raise
            finally:
                self._finish(transaction, outcome)

    def close(self) -> None:
        """Roll all back."""
        self._closed.set()
        for transaction in list(self._open.values()):
            if transaction.busy.acquire(timeout=LOOK_S):
                self._finish(transaction, ROLLED_BACK)
                transaction.busy.release()

    def _find(self, identity: str, name: str) -> Transaction:
        with self._lock:
            transaction = self._open.get(name)
        if transaction is None or transaction.identity != identity:
            past = self._outcomes.get((identity, name))
            raise RequestError(
                f"the transaction was {past}" if past else "there is no such transaction here: begin another"
            )
        return transaction

    @contextmanager
    def _alone(self, transaction: Transaction, check: Callable[[], None]) -> Iterator[None]:
        deadline = time.monotonic() + self._limits.wait_s
        while not transaction.busy.acquire(timeout=LOOK_S):
            check()
            if time.monotonic() >= deadline:
                raise OverloadedError(
                    f"another statement of the transaction went on for {self._limits.wait_s:g} s: "
                    "read its result to the end, or close it"
                )
        try:
            if transaction.ended:
                raise RequestError(f"the transaction was {transaction.ended}")
            yield
        finally:
            transaction.used = time.monotonic()
            transaction.busy.release()

    def _enter(self, transaction: Transaction) -> WriteSession:
        with self._lock:
            holding = sum(each.session is not None for each in self._open.values())
        if holding >= (self._sessions.pool.max_connections + 1) // 2:
            raise OverloadedError("half of the server's connections are held by transactions: try again later")
        request = ReadRequest(sql="", search_path=transaction.search_path)
        session = WriteSession(self._sessions.pool, self._sessions.options(request))
        return session.__enter__()

    def _finish(self, transaction: Transaction, outcome: str) -> None:
        """Give the connection back; what was not committed is rolled back.  The transaction is not in use."""
        if transaction.ended:
            return
        transaction.ended = outcome
        with self._lock:
            self._open.pop(transaction.id, None)
        self._outcomes.put((transaction.identity, transaction.id), outcome, 64)
        if transaction.session is not None:
            transaction.session.__exit__(None, None, None)

    def _reap(self) -> None:
        limits = self._limits
        while not self._closed.wait(TICK_S):
            now = time.monotonic()
            for transaction in list(self._open.values()):
                old = now - transaction.begun > limits.max_s
                if (old or now - transaction.used > limits.idle_s) and transaction.busy.acquire(blocking=False):
                    why = f"older than {limits.max_s:g} s" if old else f"unused for {limits.idle_s:g} s"
                    log.info("transaction rolled back", reason=why)
                    self._finish(transaction, f"rolled back: it was {why}")
                    transaction.busy.release()
