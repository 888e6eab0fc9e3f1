"""Which statements may write: those run in a transaction that may, once, before anybody reads their result.

A guess in the wrong direction does no harm.  What is taken for reading runs READ ONLY, and PostgreSQL refuses it
if it writes; what is taken for writing runs once, in whole, and its result is kept.
"""

from __future__ import annotations

import time
from itertools import pairwise

import sqlglot
from sqlglot import Token, TokenType
from sqlglot.errors import SqlglotError

from flight_server.reading.sessions import Sessions
from flight_server.request import ReadRequest

READS = frozenset(("SELECT", "WITH", "VALUES", "TABLE", "SHOW", "EXPLAIN", "("))
"""How a statement that only reads can begin."""
WRITES = frozenset(("INSERT", "UPDATE", "DELETE", "MERGE", "INTO"))
"""What then does not stand in it, but in quotes; FOR UPDATE counts, for it locks rows."""
REMEMBERED = 4096
REMEMBERED_S = 60.0

# PostgreSQL's own volatile functions only look (random, clock_timestamp, pg_sleep), but for these.
VOLATILE_SQL = """
select p.proname::pg_catalog.text from pg_catalog.pg_proc p
where p.proname = any($1::pg_catalog.text[]) and p.provolatile = 'v'
  and (p.pronamespace <> 'pg_catalog'::pg_catalog.regnamespace
       or p.proname in ('nextval', 'setval', 'lo_creat', 'lo_create', 'lo_from_bytea', 'lo_put', 'lo_unlink',
                        'lo_truncate', 'lo_truncate64', 'lowrite', 'pg_notify', 'pg_logical_emit_message'))
"""


class Effects:
    """Tells what may write, and remembers for a while which functions may.

    Parameters
    ----------
    sessions : Sessions
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._known: dict[str, tuple[bool, float]] = {}

    def may_write(self, request: ReadRequest) -> bool:
        """Tell whether a statement has to run in a transaction that may write."""
        try:
            tokens = sqlglot.tokenize(request.sql or "", dialect="postgres")
        except SqlglotError:
            return True
        if not tokens or tokens[0].text.upper() not in READS:
            return True
        words = {token.text.upper() for token in tokens if token.token_type is not TokenType.STRING}
        if words & WRITES:
            return True
        return self._any_writes(_called(tokens))

    def _any_writes(self, names: set[str]) -> bool:
        horizon = time.monotonic() - REMEMBERED_S
        known = self._known
        missing = sorted(name for name in names if known.get(name, (False, 0.0))[1] < horizon)
        if missing:
            with self._sessions.open(ReadRequest(sql="")) as session:
                found = session.names(VOLATILE_SQL, missing)
            if len(known) + len(missing) > REMEMBERED:
                known.clear()
            known.update({name: (name in found, time.monotonic()) for name in missing})
        return any(known.get(name, (True, 0.0))[0] for name in names)


def _called(tokens: list[Token]) -> set[str]:
    """Return the names that stand before a bracket, as the catalog writes them."""
    called = set()
    for token, following in pairwise(tokens):
        if following.token_type is TokenType.L_PAREN and token.text and token.text[0].isidentifier():
            called.add(token.text if token.token_type is TokenType.IDENTIFIER else token.text.lower())
    return called
