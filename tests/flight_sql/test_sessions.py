"""Session options: every kind of value, there and back."""

from __future__ import annotations

import pytest

from flight_sql import sessions
from flight_sql.proto import session_pb2 as pb

VALUES = {"text": "a", "yes": True, "no": False, "number": -(2**63), "part": 0.5, "list": ["a", ""], "empty": []}


def test_round_trip() -> None:
    sent = sessions.current(VALUES).SerializeToString()
    request = pb.SetSessionOptionsRequest.FromString(sent)  # the same map in the same field
    got = sessions.wanted(request)
    assert got == VALUES
    assert {name: type(value) for name, value in got.items()} == {
        name: type(value) for name, value in VALUES.items()
    }


def test_no_value_takes_an_option_back() -> None:
    request = pb.SetSessionOptionsRequest()
    request.session_options["a"].SetInParent()
    assert sessions.wanted(request) == {"a": None}


@pytest.mark.parametrize("reason", sessions.Refusal)
def test_refusals(reason: sessions.Refusal) -> None:
    result = sessions.refused({"a": reason})
    assert result.errors["a"].value == int(reason)
    assert not sessions.refused({}).errors
