"""Descriptors: what a server says is believed only where every bound holds."""

import base64
import copy
import json
import random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgflight.device.descriptor import SLAB_GRAIN_BYTES, Descriptor, parse
from pgflight.device.errors import DescriptorError, VersionError
from pgflight.device.layout import children_of

SLAB = 2 * SLAB_GRAIN_BYTES
ROWS = 100
SCHEMA = pa.schema([
    pa.field("n", pa.int64(), nullable=False),
    pa.field("yes", pa.bool_()),
    pa.field("text", pa.utf8()),
    pa.field("amount", pa.decimal128(15, 2)),
    pa.field("id", pa.uuid()),
    pa.field("list", pa.list_(pa.utf8())),
    pa.field("pair", pa.struct([pa.field("a", pa.int32(), nullable=False), ("v", pa.list_(pa.float32(), 3))])),
    pa.field("map", pa.map_(pa.utf8(), pa.int64())),
])  # fmt: skip
GOOD = {
    "version": 1,
    "gpu": "GPU-00000000-0000-0000-0000-000000000000",
    "remote_handle": base64.b64encode(bytes(64)).decode(),
    "slab_bytes": SLAB,
    "offset": 65536,
    "length": 8192,
    "address": 0x7F0000000000,
    "rows": ROWS,
    "columns": [
        {"null_count": 0, "buffers": [None, [0, 800]]},
        {"null_count": 3, "buffers": [[832, 13], [896, 13]]},
        {"null_count": 100, "buffers": [[960, 16], [1024, 404], [1431, 0]]},
        {"null_count": 0, "buffers": [None, [1472, 1600]]},
        {"null_count": 0, "buffers": [[3072, 64], [3136, 1600]]},
        {
            "null_count": 2,
            "buffers": [[4736, 13], [4800, 404]],
            "children": [{"values": 7, "null_count": 1, "buffers": [[5248, 1], [5312, 32], [5345, 9]]}],
        },
        {
            "null_count": 0,
            "buffers": [None],
            "children": [
                {"values": 100, "null_count": 0, "buffers": [None, [5376, 400]]},
                {
                    "values": 100,
                    "null_count": 1,
                    "buffers": [[5824, 13]],
                    "children": [{"values": 300, "null_count": 0, "buffers": [None, [5888, 1200]]}],
                },
            ],
        },
        {
            "null_count": 0,
            "buffers": [None, [7104, 404]],
            "children": [
                {
                    "values": 5,
                    "null_count": 0,
                    "buffers": [None],
                    "children": [
                        {"values": 5, "null_count": 0, "buffers": [None, [7552, 24], [7576, 5]]},
                        {"values": 5, "null_count": 2, "buffers": [[7616, 1], [7680, 40]]},
                    ],
                }
            ],
        },
    ],
    "client": "a" * 32,
    "stream": 1,
    "lease": 17,
    "expires": 1.7e9,
    "free_data": "/run/lease.sock",
}


def said(**changes):
    return json.dumps(GOOD | changes).encode()


def column(index, **changes):
    columns = copy.deepcopy(GOOD["columns"])
    columns[index] |= changes
    return said(columns=columns)


def test_a_good_one():
    found = parse(said(later="unknown names are passed over"), SCHEMA)
    assert (found.offset, found.length, found.rows, found.lease) == (65536, 8192, ROWS, 17)
    assert found.remote_handle == bytes(64)
    assert found.columns[2].buffers == ((960, 16), (1024, 404), (1431, 0))
    assert found.columns[0].buffers[0] is None


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_another_version(version):
    with pytest.raises(VersionError, match="this client reads 1"):
        parse(said(version=version), SCHEMA)


@pytest.mark.parametrize(
    "changes",
    [
        {"slab_bytes": SLAB + 1},
        {"slab_bytes": 0},
        {"slab_bytes": 2**60},
        {"offset": -64},
        {"offset": 1},
        {"offset": SLAB},
        {"offset": SLAB - 4096},
        {"length": SLAB},
        {"length": -1},
        {"length": 4000},
        {"rows": -1},
        {"rows": 101},
        {"rows": 2**31},
        {"rows": 1.0},
        {"rows": True},
        {"columns": None},
        {"columns": GOOD["columns"][:4]},
        {"columns": [None] * 8},
        {"remote_handle": "AAAA"},
        {"remote_handle": "?" * 88},
        {"remote_handle": None},
        {"lease": "17"},
        {"lease": 2**64},
        {"client": 5},
        {"gpu": None},
        {"expires": "soon"},
        {"expires": -1},
        {"address": -1},
        {"free_data": ["/"]},
    ],
)
def test_what_cannot_be(changes):
    with pytest.raises(DescriptorError):
        parse(said(**changes), SCHEMA)


@pytest.mark.parametrize(
    ("index", "changes"),
    [
        (0, {"null_count": 1}),
        (0, {"buffers": [None, None]}),
        (0, {"buffers": [None, [0, 799]]}),
        (0, {"buffers": [None, [8, 800]]}),
        (0, {"buffers": [None, [8192 - 64, 800]]}),
        (0, {"buffers": [None, [0, 800], [0, 0]]}),
        (0, {"buffers": [None]}),
        (0, {"buffers": {"0": None}}),
        (0, {"buffers": [None, [0, 800, 0]]}),
        (0, {"buffers": [None, [0, -1]]}),
        (0, {"buffers": [None, ["0", 800]]}),
        (1, {"null_count": 101}),
        (1, {"null_count": -1}),
        (1, {"null_count": None}),
        (1, {"buffers": [None, [896, 13]]}),
        (1, {"buffers": [[832, 12], [896, 13]]}),
        (1, {"buffers": [[832, 13], [896, 12]]}),
        (2, {"buffers": [[960, 16], [1024, 403], [1431, 0]]}),
        (2, {"buffers": [[960, 16], [1024, 404]]}),
        (2, {"buffers": [[960, 16], [1024, 404], None]}),
        (2, {"buffers": [[960, 16], [1024, 404], [1431, 8192]]}),
        (3, {"buffers": [None, [1472, 1599]]}),
        (4, {"buffers": [None, [3136, 1599]]}),
        (0, {"children": [{"values": 1, "null_count": 0, "buffers": [None, [0, 64]]}]}),
        (5, {"children": []}),
        (5, {"children": None}),
        (5, {"children": [None]}),
        (5, {"buffers": [[4736, 13], [4800, 403]]}),
        (5, {"buffers": [[4736, 13]]}),
        (5, {"children": [{"null_count": 0, "buffers": [None, [5312, 32], [5345, 9]]}]}),
        (5, {"children": [{"values": -1, "null_count": 0, "buffers": [None, [5312, 32], [5345, 9]]}]}),
        (5, {"children": [{"values": 8, "null_count": 0, "buffers": [None, [5312, 32], [5345, 9]]}]}),
        (5, {"children": [{"values": 7, "null_count": 8, "buffers": [[5248, 1], [5312, 32], [5345, 9]]}]}),
        (5, {"children": [{"values": 7, "null_count": 0, "buffers": [None, [5312, 32], [5345, 9000]]}]}),
        (6, {"buffers": [None, [0, 800]]}),
        (6, {"children": GOOD["columns"][6]["children"][:1]}),
        (6, {"children": GOOD["columns"][6]["children"][::-1]}),
        (6, {"children": [GOOD["columns"][6]["children"][0] | {"values": 99}, GOOD["columns"][6]["children"][1]]}),
        (
            6,
            {
                "children": [
                    GOOD["columns"][6]["children"][0] | {"null_count": 1, "buffers": [[0, 64], [5376, 400]]},
                    GOOD["columns"][6]["children"][1],
                ]
            },
        ),
        (
            6,
            {
                "children": [
                    GOOD["columns"][6]["children"][0],
                    GOOD["columns"][6]["children"][1]
                    | {"children": [{"values": 299, "null_count": 0, "buffers": [None, [5888, 1200]]}]},
                ]
            },
        ),
        (7, {"children": GOOD["columns"][7]["children"][0]["children"]}),
    ],
)
def test_columns_that_cannot_be(index, changes):
    with pytest.raises(DescriptorError):
        parse(column(index, **changes), SCHEMA)


@pytest.mark.parametrize(
    "text", [b"", b"\xff", b"null", b"[]", b"{", b"[" * 100_000, b"9" * 10_000, b"{}" + b" " * (17 << 20)]
)
def test_garbage(text):
    with pytest.raises((DescriptorError, VersionError)):
        parse(text, SCHEMA)


@pytest.mark.parametrize(
    "kind",
    [
        pa.large_list(pa.int32()),
        pa.list_view(pa.int32()),
        pa.dictionary(pa.int32(), pa.utf8()),
        pa.dense_union([pa.field("a", pa.int32())]),
        pa.string_view(),
        pa.large_utf8(),
        pa.null(),
    ],
)
def test_types_of_another_layout(kind):
    with pytest.raises(DescriptorError):
        parse(
            said(columns=[{"null_count": 0, "buffers": [None, [0, 8192]]}]),
            pa.schema([pa.field("nested", kind)]),
        )


def within(found: Descriptor):
    """What must hold of anything that is believed."""
    assert found.offset >= 0
    assert found.offset + found.length <= found.slab_bytes
    for extents, field in zip(found.columns, SCHEMA, strict=True):
        assert extents.values == found.rows
        within_column(extents, field, found.length)


def within_column(extents, field, length):
    assert 0 <= extents.null_count <= extents.values
    assert not extents.null_count or (field.nullable and extents.buffers[0] is not None)
    for extent in extents.buffers:
        assert extent is None or (extent[0] >= 0 <= extent[1] and sum(extent) <= length)
    assert None not in extents.buffers[1:]
    for child, part in zip(extents.children, children_of(field.type), strict=True):
        within_column(child, part, length)


def places(value, path=()):
    """All paths to the values of a JSON document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


PLACES = [path for path in places(GOOD) if path]
OTHERS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, 1, 63, 64, 65, 8191, 8192, 8193, SLAB, SLAB - 65536, 2**31, 2**63 - 1, 2**63]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.lists(st.integers(-1, 9000), max_size=3),
)


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PLACES), OTHERS), min_size=1, max_size=3))
def test_whatever_is_changed_is_refused_or_within_bounds(changes):
    document = copy.deepcopy(GOOD)
    for path, value in changes:
        at = document
        try:
            for key in path[:-1]:
                at = at[key]
            at[path[-1]] = value
        except (TypeError, IndexError, KeyError):
            continue  # an earlier change took it away
    try:
        found = parse(json.dumps(document).encode(), SCHEMA)
    except (DescriptorError, VersionError):
        return
    within(found)


def test_bytes_flipped_at_random():
    source = random.Random(1)
    good = bytearray(said())
    refused = 0
    for _ in range(3000):
        text = bytearray(good)
        for _ in range(source.randint(1, 3)):
            text[source.randrange(len(text))] = source.choice(b'0123456789-,:[]{}"ex \x00\xff')
        try:
            within(parse(bytes(text), SCHEMA))
        except (DescriptorError, VersionError):
            refused += 1
    assert 1000 < refused < 3000
