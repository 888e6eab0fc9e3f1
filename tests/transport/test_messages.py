"""The protocol's messages: exact bytes out, fields and counts in, and replies that are not whole."""

from __future__ import annotations

import itertools

import pytest

from kernels.column import Column
from kernels.errors import ConnectionLostError, DecodeError, PostgresError
from tests.helpers import wire
from transport import messages
from transport.messages import Request
from transport.reply import Reply

INT4 = Column("v", 23)
ONE = b"\0\0\0\1"
SOUND = {framing: wire.reply([[ONE], [None]], framing) for framing in wire.FRAMINGS}
ERROR = wire.message(b"E", b"SERROR\0VERROR\0C22012\0Mdivision by zero\0Fint.c\0L1\0Rint4div\0\0")
FATAL = wire.message(b"E", b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0")

every_framing = pytest.mark.parametrize("framing", wire.FRAMINGS)


def test_simple_query() -> None:
    request = Request("copy (select 'é') to stdout (format binary)", copy=True)
    text = "copy (select 'é') to stdout (format binary)".encode()
    assert request.encode() == b"Q\0\0\0\x31" + text + b"\0"


def test_extended_query() -> None:
    assert Request("select 1", copy=False).encode() == (
        b"P\0\0\0\x10" + b"\0" + b"select 1\0" + b"\0\0"
        b"B\0\0\0\x0e" + b"\0\0" + b"\0\0" + b"\0\0" + b"\0\1\0\1"
        b"E\0\0\0\x09" + b"\0" + b"\0\0\0\0"
        b"S\0\0\0\x04"
    )  # fmt: skip


def test_parameters() -> None:
    encoded = Request("select $1, $2, $3", copy=False, parameters=("é", None, "")).encode()
    assert (
        b"B\0\0\0\x1c\0\0" + b"\0\0" + b"\0\3" + b"\0\0\0\2\xc3\xa9" + b"\xff\xff\xff\xff" + b"\0\0\0\0" in encoded
    )


@pytest.mark.parametrize(
    ("tag", "rows"),
    [
        (b"COPY 5\0", 5),
        (b"SELECT 0\0", 0),
        (b"SELECT 12345678901\0", 12345678901),
        (b"FETCH 3\0", 3),
        (b"MOVE 3\0", 3),
        (b"INSERT 0 5\0", None),
        (b"EXPLAIN\0", None),
        (b"SHOW\0", None),
        (b"SELECT\0", None),
        (b"SELECT x\0", None),
        (b"SELECT -1\0", None),
        (b"SELECT \xb2\0", None),
        (b"\0", None),
        (b"", None),
    ],
)
def test_row_count(tag: bytes, rows: int | None) -> None:
    assert messages.row_count(tag) == rows


def test_fields_of_an_error() -> None:
    parts = messages.fields(b"SERROR\0C42703\0Mcolumn \xc3\xa9\0P8\0\0")
    assert parts == {"S": "ERROR", "C": "42703", "M": "column é", "P": "8"}
    error = messages.error(parts)
    assert (str(error), error.sqlstate) == ("column é (at character 8) [SQLSTATE 42703]", "42703")


def test_text_in_another_encoding_is_still_an_error() -> None:
    """Before the encoding is agreed on, PostgreSQL writes as it likes."""
    assert (
        str(messages.error(messages.fields(b"C28000\0Mv\xe9rifi\xe9\0\0"))) == "v\ufffdrifi\ufffd [SQLSTATE 28000]"
    )


@pytest.mark.parametrize("payload", [b"", b"\0", b"\0\0", b"\xe9\0\0", b"M\0\0"])
def test_an_empty_error_is_an_error(payload: bytes) -> None:
    error = messages.error(messages.fields(payload))
    assert error.sqlstate == "XX000"


def run(wire_bytes: bytes, framing: str) -> list[object]:
    """Decode a reply of one int4 column."""
    return wire.decode([INT4], wire_bytes, framing).column(0).to_pylist()


@every_framing
def test_a_sound_reply(framing: str) -> None:
    assert run(SOUND[framing], framing) == [1, None]


@every_framing
def test_messages_that_may_come_at_any_time(framing: str) -> None:
    """Notices, parameters and notifications between any two messages."""
    extra = (
        wire.message(b"N", b"SNOTICE\0C00000\0Mnote\0\0")
        + wire.message(b"S", b"TimeZone\0UTC\0")
        + wire.message(b"A", b"\0\0\0\1news\0text\0")
    )
    for at, _, _ in wire.frames(SOUND[framing]):
        assert run(SOUND[framing][:at] + extra + SOUND[framing][at:], framing) == [1, None]


@every_framing
def test_every_truncation_is_noticed(framing: str) -> None:
    for size in range(len(SOUND[framing])):
        with pytest.raises(ConnectionLostError):
            run(SOUND[framing][:size], framing)


@every_framing
def test_every_missing_message_is_noticed(framing: str) -> None:
    """Rows, trailer, CommandComplete; the opening messages say nothing that is needed."""
    ends = [at for at, _, _ in wire.frames(SOUND[framing])] + [len(SOUND[framing])]
    for at, after in itertools.pairwise(ends):
        kind = SOUND[framing][at : at + 1]
        if kind not in b"H12":
            with pytest.raises((DecodeError, ConnectionLostError)):
                run(SOUND[framing][:at] + SOUND[framing][after:], framing)


@every_framing
@pytest.mark.parametrize("claimed", [0, 1, 3, 2**40])
def test_another_row_count_is_noticed(claimed: int, framing: str) -> None:
    tag = {"copy": b"COPY 2\0", "extended": b"SELECT 2\0"}[framing]
    other = wire.message(b"C", tag.replace(b"2", str(claimed).encode()))
    with pytest.raises(DecodeError, match="2 were read"):
        run(SOUND[framing].replace(wire.message(b"C", tag), other), framing)


@every_framing
def test_an_error_in_place_of_the_end(framing: str) -> None:
    """Rows may have come: the reply is an error all the same, once ReadyForQuery says that it is over."""
    for at, _, _ in wire.frames(SOUND[framing]):
        with pytest.raises(PostgresError) as caught:
            run(SOUND[framing][:at] + ERROR + wire.READY, framing)
        assert caught.value.sqlstate == "22012"


@every_framing
@pytest.mark.parametrize("pieces", [(), (1,) * 10_000])
def test_an_error_before_the_connection_closes(framing: str, pieces: tuple[int, ...]) -> None:
    """PostgreSQL says why it goes: a lost connection, with the reason."""
    for at, _, _ in wire.frames(SOUND[framing]):
        with pytest.raises(ConnectionLostError, match="57P01"):
            wire.decode([INT4], SOUND[framing][:at] + FATAL, framing, pieces=pieces)


@every_framing
@pytest.mark.parametrize("kind", [b"R", b"K", b"G", b"W", b"I", b"s", b"n", b"t", b"v", b"\0", b"\xff", b"?"])
def test_a_message_without_a_place(kind: bytes, framing: str) -> None:
    at = len(SOUND[framing]) - len(wire.READY)
    with pytest.raises(DecodeError, match="unexpected message") as caught:
        run(SOUND[framing][:at] + wire.message(kind) + SOUND[framing][at:], framing)
    assert caught.value.offset == at


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"PGCOPY\n\xff\r\n\0",
        b"PGCOPY\n\xff\n\n\0" + bytes(8),
        b"PGCOPY\n\xff\r\n\0" + b"\0\1\0\0" + bytes(4),
        b"PGCOPY\n\xff\r\n\0" + b"\x80\0\0\0" + bytes(4),
        b"PGCOPY\n\xff\r\n\0" + bytes(4) + b"\0\0\0\x20",
        b"PGCOPY\n\xff\r\n\0" + bytes(4) + b"\xff\xff\xff\xff",
    ],
)
def test_another_copy_header(header: bytes) -> None:
    rows = [header + wire.row([ONE]), wire.COPY_TRAILER]
    sent = wire.message(b"H", b"\1\0\0") + b"".join(wire.message(b"d", row) for row in rows)
    with pytest.raises(DecodeError):
        run(sent + wire.message(b"c") + wire.message(b"C", b"COPY 1\0") + wire.READY, "copy")


def test_a_header_with_an_extension() -> None:
    """The format allows bytes behind the header that a reader skips."""
    header = b"PGCOPY\n\xff\r\n\0" + b"\0\0\0\1" + b"\0\0\0\x05" + b"extra"
    rows = [header + wire.row([ONE]), wire.COPY_TRAILER]
    sent = wire.message(b"H", b"\1\0\0") + b"".join(wire.message(b"d", row) for row in rows)
    assert run(sent + wire.message(b"c") + wire.message(b"C", b"COPY 1\0") + wire.READY, "copy") == [1]


@pytest.mark.parametrize("length", [0, 1, 3, -1, -(2**31), -5])
@every_framing
def test_an_impossible_message_length(length: int, framing: str) -> None:
    """At once, not after waiting for so many bytes; at the first row, and at a later one."""
    kind = wire.ROW_KINDS[framing]
    rows = [at for at, letter, _ in wire.frames(SOUND[framing]) if letter == kind]
    for at in rows[:2]:
        broken = bytearray(SOUND[framing])
        broken[at + 1 : at + 5] = length.to_bytes(4, "big", signed=True)
        with pytest.raises(DecodeError):
            run(bytes(broken), framing)


@every_framing
def test_two_replies_one_after_the_other(framing: str) -> None:
    """Pipelined requests: each reply is proven by itself."""
    second = wire.reply([[b"\0\0\0\2"]], framing)
    replies = Reply(
        wire.Replay(SOUND[framing] + second), wire.Memory, block_bytes=4096, max_row_bytes=4096, check=lambda: None
    )
    for _ in range(2):
        replies.send(Request("", copy=framing == "copy"))
    decoder = wire.make_decoder(wire.plan([INT4]), framing)
    ends: list[int] = []
    batches = list(
        wire.decode_replies(
            replies, decoder, copy=framing == "copy", on_complete=lambda: ends.append(decoder.rows)
        )
    )
    assert [value for batch in batches for value in batch.column(0).to_pylist()] == [1, None, 2]
    assert ends == [2, 3]
