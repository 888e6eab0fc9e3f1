"""The messages: what is generated is what the .proto files say, and that is what Arrow publishes."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from flight_sql.proto import flight_sql_pb2, session_pb2

FOLDER = Path(flight_sql_pb2.__file__).parent
GENERATED = {"flight_sql": flight_sql_pb2, "session": session_pb2}
SCOPE = re.compile(r"^\s*(?:message|enum|oneof)\s+(\w+)\s*\{\s*(\})?")
FIELD = re.compile(r"^\s*(?:(optional|repeated)\s+)?(map<[^>]*>|[\w.]+)\s+(\w+)\s*=\s*(-?\d+);")
VALUE = re.compile(r"^\s*(\w+)\s*=\s*(-?\d+);")


def written(name: str) -> dict[str, int]:
    """Read the numbers out of a .proto file: ``Message.field`` and ``Enum.VALUE``."""
    numbers: dict[str, int] = {}
    scopes: list[tuple[str, bool]] = []
    for line in (FOLDER / f"{name}.proto").read_text().splitlines():
        text = line.split("//")[0]
        scope = SCOPE.match(text)
        if scope:
            # The fields of a oneof belong to its message.
            if not scope[2]:
                scopes.append((scope[1], "oneof" not in text))
        elif text.strip() == "}":
            scopes.pop()
        elif scopes:
            path = ".".join(name for name, counts in scopes if counts)
            for pattern, at in ((FIELD, 3), (VALUE, 1)):
                found = pattern.match(text)
                if found:
                    numbers[f"{path}.{found[at]}"] = int(found[at + 1])
                    break
    return numbers


def compiled(name: str) -> dict[str, int]:
    """Read the same out of the generated code."""
    numbers: dict[str, int] = {}

    def enum(path: str, described: object) -> None:
        numbers.update({f"{path}.{value.name}": value.number for value in described.values})

    def message(path: str, described: object) -> None:
        if described.GetOptions().map_entry:
            return
        numbers.update({f"{path}.{field.name}": field.number for field in described.fields})
        for nested in described.nested_types:
            message(f"{path}.{nested.name}", nested)
        for nested in described.enum_types:
            enum(f"{path}.{nested.name}", nested)

    file = GENERATED[name].DESCRIPTOR
    for top in file.message_types_by_name.values():
        message(top.name, top)
    for top in file.enum_types_by_name.values():
        enum(top.name, top)
    return numbers


@pytest.mark.parametrize("name", GENERATED)
def test_the_code_is_made_of_the_file(name: str) -> None:
    """Somebody who edits one and forgets the other is told, with no compiler at hand."""
    assert len(written(name)) > 10
    assert compiled(name) == written(name)


def without_json_names(messages: Iterable[descriptor_pb2.DescriptorProto]) -> None:
    """Forget what the generated code leaves out."""
    for message in messages:
        for field in message.field:
            field.ClearField("json_name")
        without_json_names(message.nested_type)


@pytest.mark.parametrize("name", GENERATED)
def test_the_compiler_agrees(name: str, tmp_path: Path) -> None:
    """Any version of protoc makes the same descriptor of the file."""
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    source, target = f"flight_sql/proto/{name}.proto", tmp_path / "descriptor"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--descriptor_set_out={target}", source]
    subprocess.run(command, cwd=FOLDER.parents[1], check=True)
    [file] = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file
    without_json_names(file.message_type)
    assert file == descriptor_pb2.FileDescriptorProto.FromString(GENERATED[name].DESCRIPTOR.serialized_pb)


def test_generated_code_is_not_tied_to_one_version_of_the_library() -> None:
    """Newer compilers write a check of the library's version that refuses the majors after the next."""
    for name in GENERATED:
        text = (FOLDER / f"{name}_pb2.py").read_text()
        assert "runtime_version" not in text
        assert "Protobuf Python Version: 4.25" in text


def test_numbers_that_clients_send() -> None:
    """A sample of the published numbers, so that a slip in the file does not pass for a change."""
    pb = importlib.import_module("flight_sql.proto.flight_sql_pb2")
    assert pb.CommandGetTables(catalog="c", table_types=["T"], include_schema=True).SerializeToString() == (
        b'\x0a\x01c"\x01T(\x01'
    )
    assert pb.ActionCreatePreparedStatementResult(is_update=False).SerializeToString() == b"\x20\x00"
    assert pb.CommandStatementIngest(options={"a": "b"}).SerializeToString() == b"\xc2\x3e\x06\x0a\x01a\x12\x01b"
    assert (pb.SQL_KEYWORDS, pb.SQL_STORED_FUNCTIONS_USING_CALL_SYNTAX_SUPPORTED) == (508, 576)
    assert session_pb2.SessionOptionValue(int64_value=1).SerializeToString() == b"\x19\x01" + bytes(7)
