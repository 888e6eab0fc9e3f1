"""What a client may choose: every option is honoured or refused by its name, none is ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from operator import attrgetter
from typing import Any, Literal

from kernels.errors import RequestError
from kernels.plan import TypePolicy
from kernels.policy import (
    ArraysPolicy,
    BpcharPolicy,
    InfinityPolicy,
    MoneyPolicy,
    NestedPolicy,
    NumericPolicy,
    Profile,
    TemporalPolicy,
)
from transport.modes.moving import TRANSPORTS

HEADER_PREFIX = "x-pgflight-"
MIB = 1 << 20
MIN_BATCH_BYTES = 16 << 10
MAX_BATCH_BYTES = 64 * MIB
DEFAULT_BATCH_BYTES = MIB
MANY_STREAMS = 8
MANY_STREAMS_BATCH_BYTES = 2 * MIB
"""Many streams make more batches than one Flight stream should carry: a batch costs the same whatever its size."""
MAX_TIMEOUT_S = 7 * 86_400

NOT_YET = {
    ("profile", "cudf"): "this server has no GPU support",
}
"""Values of the documented grammar that this version refuses, with the reason."""

CHOICES: dict[str, tuple[str, ...]] = {
    "output": ("host", "cuda-ipc"),
    "profile": ("arrow", "plain"),
    "numeric": ("decimal", "string", "float64"),
    "infinity": ("error", "null"),
    "nested": ("arrow", "text"),
    "arrays": ("list", "nd", "text"),
    "temporal": ("arrow", "text"),
    "bpchar": ("keep", "trim"),
    "money": ("text", "int64"),
    "decode": ("auto", "cpu", "gpu"),
    "transport": TRANSPORTS,
    "framing": ("auto", "copy", "extended"),
    "reader": ("auto", "libpq"),
    "compression": ("none", "lz4", "zstd"),
}


_types_of = attrgetter(*(field.name for field in fields(TypePolicy)))
"""What a TypePolicy is made of, in its order."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """The options of one read.

    Parameters
    ----------
    output : {"host", "cuda-ipc"}
        Where batches are delivered: in messages, or in GPU memory to a client on the server's host.
    profile : {"arrow", "plain"}
        With or without Arrow extension types.
    numeric : {"decimal", "string", "float64"}
        Form of ``numeric``.
    infinity : {"error", "null"}
        What an infinite date, timestamp or interval becomes.
    nested : {"arrow", "text"}
        Arrays, composites, ranges, hstore and vectors as nested Arrow types, or as PostgreSQL's text.
    arrays : {"list", "nd", "text"}
        Arrays as lists of one dimension, as structs with all dimensions and bounds, or as PostgreSQL's text.
    temporal : {"arrow", "text"}
        Dates, times and intervals as Arrow types, which do not hold all of them, or as PostgreSQL's text.
    bpchar : {"keep", "trim"}
        Whether ``char(n)`` keeps the blanks at its end.
    money : {"text", "int64"}
        PostgreSQL's text, or the number of the currency's smallest units.
    decode : {"auto", "cpu", "gpu"}
        Where rows are decoded.
    transport : {"pinned", "single", "buffered", "chunked", "gds", "file"}
        How bytes move to where they are decoded; the rows are the same.
    framing : {"auto", "copy", "extended"}
        COPY, or the extended protocol's rows.  The values are the same; auto takes what was measured faster.
    reader : {"auto", "libpq"}
        The fastest way to read the connection, or the way that always works.
    compression : {"none", "lz4", "zstd"}
        Of the batches on their way to the client: for networks slower than a core compresses.
    streams : int
        Sessions that read in parallel, under one snapshot; 0 for auto.  What cannot be split is read by one.
    endpoints : int
        Endpoints wanted at most.
    ordered : bool
        Rows of parallel streams in the order of the table's pages, not as they arrive.
    batch_bytes : int
        Target size of a record batch, in bytes; 0 for the server's choice, by `batch_target`.  A row larger than
        that travels alone.
    timeout_s : float
        Seconds the whole read may take; 0 for the server's own limit.
    max_age_s : float
        A result that was read at most so long ago may be served again from the server's spool, and this one is
        kept there; 0 for always reading anew.
    """

    output: Literal["host", "cuda-ipc"] = "host"
    profile: Profile = "arrow"
    numeric: NumericPolicy = "decimal"
    infinity: InfinityPolicy = "error"
    nested: NestedPolicy = "arrow"
    arrays: ArraysPolicy = "list"
    temporal: TemporalPolicy = "arrow"
    bpchar: BpcharPolicy = "keep"
    money: MoneyPolicy = "text"
    decode: Literal["auto", "cpu", "gpu"] = "auto"
    transport: Literal["pinned", "single", "buffered", "chunked", "gds", "file"] = "pinned"
    framing: Literal["auto", "copy", "extended"] = "auto"
    reader: Literal["auto", "libpq"] = "auto"
    compression: Literal["none", "lz4", "zstd"] = "none"
    streams: int = 0
    endpoints: int = 1
    ordered: bool = False
    batch_bytes: int = 0
    timeout_s: float = 0.0
    max_age_s: float = 0.0

    @property
    def types(self) -> TypePolicy:
        """The part that planning needs."""
        return TypePolicy(*_types_of(self))

    def batch_target(self, streams: int = 1) -> int:
        """Return the target size of a batch, in bytes, of a read by so many streams."""
        chosen = MANY_STREAMS_BATCH_BYTES if streams >= MANY_STREAMS else DEFAULT_BATCH_BYTES
        return self.batch_bytes or chosen

    def changed(self) -> dict[str, Any]:
        """Return the options that differ from their defaults."""
        return {name: getattr(self, name) for name, usual in DEFAULTS.items() if getattr(self, name) != usual}


DEFAULTS = asdict(ReadOptions())


def parse_options(given: Mapping[str, Any]) -> ReadOptions:
    """Check every option by name and value.

    Parameters
    ----------
    given : mapping
        JSON values, or the text of gRPC headers.

    Raises
    ------
    RequestError
        Naming the option that is unknown, malformed or not supported.
    """
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in DEFAULTS:
            raise RequestError(f"unknown option {name!r}; known are: {', '.join(sorted(DEFAULTS))}")
        if name in CHOICES:
            values[name] = _choice(name, value)
        elif name == "ordered":
            values[name] = _boolean(name, value)
        elif name in ("timeout_s", "max_age_s"):
            values[name] = _number(name, value, 0, MAX_TIMEOUT_S)
        elif name == "batch_bytes":
            values[name] = int(_number(name, value, MIN_BATCH_BYTES, MAX_BATCH_BYTES, whole=True))
        elif name == "streams":
            values[name] = _streams(value)
        else:
            values[name] = int(_number(name, value, 1, 4096, whole=True))
    return ReadOptions(**values)


def options_from_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the options out of gRPC headers ``x-pgflight-<name>`` (``-`` and ``_`` are the same there)."""
    found: dict[str, Any] = {}
    for key, values in headers.items():
        name = key.lower()
        if name.startswith(HEADER_PREFIX) and values:
            value = values[-1]
            found[name.removeprefix(HEADER_PREFIX).replace("-", "_")] = (
                value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            )
    return found


def _choice(name: str, value: Any) -> str:
    if isinstance(value, str):
        if value in CHOICES[name]:
            return value
        if (name, value) in NOT_YET:
            raise RequestError(f"option {name}={value} is not supported: {NOT_YET[name, value]}")
    raise RequestError(f"option {name}={value!r}: must be one of {', '.join(CHOICES[name])}")


def _boolean(name: str, value: Any) -> bool:
    text = str(value).lower() if isinstance(value, (bool, str)) else ""
    if text not in ("true", "false"):
        raise RequestError(f"option {name}={value!r}: must be true or false")
    return text == "true"


def _number(name: str, value: Any, low: float, high: float, *, whole: bool = False) -> float:
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):
        number = None
    if number is None or not low <= number <= high or (whole and number != int(number)):
        kind = "a whole number" if whole else "a number"
        raise RequestError(f"option {name}={value!r}: must be {kind} from {low:g} to {high:g}")
    return number


def _streams(value: Any) -> int:
    return 0 if value == "auto" else int(_number("streams", value, 1, 1024, whole=True))
