"""The main path, once: a table and a statement arrive whole."""

from __future__ import annotations

from pyarrow import flight


def test_select_arrives(client: flight.FlightClient) -> None:
    """A statement's rows come with the right types."""
    table = client.do_get(flight.Ticket(b"select g as n, 'x' || g as t from generate_series(1, 3) g")).read_all()
    assert table.to_pydict() == {"n": [1, 2, 3], "t": ["x1", "x2", "x3"]}
