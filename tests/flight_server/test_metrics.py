"""What Prometheus reads of a server."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from flight_server.config import http_address
from tests.helpers.server import ServerProcess
from tests.helpers.waiting import eventually


@pytest.fixture(scope="module")
def observed(postgres: EmbeddedPostgres) -> Iterator[ServerProcess]:
    with ServerProcess(postgres.dsn(), "--http-listen", "0", "--stall-timeout-s", "60") as server:
        yield server


def scrape(server: ServerProcess) -> dict[tuple[str, ...], float]:
    port = next(line["http_port"] for line in server.log if line.get("event") == "listening")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_reads_are_counted(observed: ServerProcess) -> None:
    before = scrape(observed)
    with flight.connect(observed.uri) as client:
        assert client.do_get(flight.Ticket(b"select generate_series(1, 1000)")).read_all().num_rows == 1000
    rows, calls = ("pgflight_rows_total",), ("pgflight_requests_total", "ok", "do_get")
    after = eventually(lambda: scrape(observed), lambda now: now.get(calls, 0) == before.get(calls, 0) + 1)
    assert not any("start_call" in key for key in after), "a call is counted once"
    assert after[rows] - before[rows] == 1000
    assert after["pgflight_postgres_bytes_total",] > before["pgflight_postgres_bytes_total",]
    assert after["pgflight_streams_total", "complete"] == before.get(("pgflight_streams_total", "complete"), 0) + 1


def test_errors_are_counted_by_class(observed: ServerProcess) -> None:
    key = ("pgflight_requests_total", "ArrowInvalid", "do_get")
    before = scrape(observed).get(key, 0)
    with flight.connect(observed.uri) as client, pytest.raises(Exception, match="syntax error"):
        client.do_get(flight.Ticket(b"select select")).read_all()
    assert scrape(observed)[key] == before + 1


def test_a_running_stream_is_seen_and_then_gone(observed: ServerProcess) -> None:
    with flight.connect(observed.uri) as client:
        reader = client.do_get(flight.Ticket(b"select generate_series(1, 1000000000)"))
        reader.read_chunk()
        before = now = scrape(observed)
        assert now["pgflight_streams_active",] == 1
        assert now["pgflight_pg_connections", "lent"] == 1
        reader.cancel()
    after = eventually(lambda: scrape(observed), lambda now: now["pgflight_streams_active",] == 0)
    abandoned, failed = (("pgflight_streams_total", outcome) for outcome in ("abandoned", "failed"))
    assert after[abandoned] == before.get(abandoned, 0) + 1
    assert after.get(failed, 0) == before.get(failed, 0)


@pytest.mark.parametrize("text", ["nowhere", "host:", "1:2:x", "70000", "-1"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="neither a port nor HOST:PORT"):
        http_address(text)


def test_no_host_is_this_host() -> None:
    assert http_address("9464") == ("127.0.0.1", 9464)
    assert http_address("0.0.0.0:9464") == ("0.0.0.0", 9464)
