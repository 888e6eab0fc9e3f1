"""Reading: endpoints, locations, once only, and how it ends early."""

import gc
import threading

import pyarrow as pa
import pytest
from pyarrow import flight

import pgflight

ROWS = 10_000
IN_ORDER = list(range(ROWS))


def test_everything_in_order(client):
    reader = client.query("numbers")
    table = reader.to_arrow()
    assert table.schema == reader.schema
    assert table["n"].to_pylist() == IN_ORDER
    assert reader.estimated_rows == ROWS
    assert reader.estimated_bytes is None


def test_nothing_is_read_before_it_is_asked_for(client, server):
    before = server.wait_idle()["started"]
    reader = client.query("select * from numbers")
    assert reader.schema.names == ["n", "text"]
    assert server.counts()["started"] == before
    assert next(iter(reader)).num_rows == 1000


def test_several_endpoints_in_order(client):
    assert client.query("numbers", endpoints=3).to_arrow()["n"].to_pylist() == IN_ORDER


def test_endpoints_elsewhere(client, other_server):
    before = other_server.wait_idle()["finished"]
    reader = client.query("numbers", endpoints=3, locations=[other_server.uri])
    assert reader.to_arrow()["n"].to_pylist() == IN_ORDER
    assert other_server.wait_idle()["finished"] == before + 3


def test_the_next_location_is_tried_when_one_is_down(client, other_server):
    reader = client.query("numbers", locations=["grpc://127.0.0.1:1", other_server.uri])
    assert reader.to_arrow().num_rows == ROWS


def test_the_last_location_s_error_is_raised(client):
    with pytest.raises(flight.FlightUnavailableError):
        client.query("numbers", locations=["grpc://127.0.0.1:1"]).to_arrow()


def test_reuse_connection_location(client):
    reader = client.query("numbers", locations=["arrow-flight-reuse-connection://?"])
    assert reader.to_arrow().num_rows == ROWS


@pytest.mark.parametrize("again", [list, pgflight.Reader.to_arrow, pgflight.Reader.to_reader])
def test_read_once(client, again):
    reader = client.query("numbers")
    reader.to_arrow()
    with pytest.raises(RuntimeError, match="read already"):
        again(reader)


def test_a_closed_reader_is_not_read(client):
    with client.query("numbers") as reader:
        pass
    with pytest.raises(RuntimeError, match="read already"):
        reader.to_arrow()


def test_to_reader_streams(client):
    with client.query("numbers").to_reader() as stream:
        assert stream.read_next_batch().num_rows == 1000
        assert stream.read_all().num_rows == ROWS - 1000


def test_chunks_carry_data_and_metadata(client):
    chunk = next(client.query("numbers").chunks())
    assert chunk.data.num_rows == 1000
    assert chunk.app_metadata is None


def test_progress(client):
    seen = []
    table = client.query("numbers", endpoints=2).on_progress(seen.append).to_arrow()
    assert [step.rows for step in seen] == list(range(1000, ROWS + 1, 1000))
    assert seen[-1].bytes == pytest.approx(table.nbytes, rel=0.05)
    assert {(step.estimated_rows, step.estimated_bytes) for step in seen} == {(ROWS, None)}


def test_an_error_at_the_start(client):
    with pytest.raises(flight.FlightUnauthorizedError, match="permission denied for table secret"):
        client.query("fails_at_once").to_arrow()


@pytest.mark.parametrize("read", [pgflight.Reader.to_arrow, lambda reader: reader.to_reader().read_all()])
def test_an_error_midway_keeps_its_class(client, read):
    with pytest.raises(flight.FlightServerError, match="invalid value in row 5000"):
        read(client.query("fails_midway"))


def test_batches_before_an_error_are_seen(client):
    batches = iter(client.query("fails_midway"))
    assert [next(batches).num_rows for _ in range(5)] == [1000] * 5
    with pytest.raises(flight.FlightServerError):
        next(batches)


def test_a_schema_that_changed_is_an_error(client):
    with pytest.raises(pa.ArrowInvalid, match="schema changed between planning and reading"):
        client.query("numbers", schema_change=True).to_arrow()


def test_leaving_a_loop_cancels(client, server):
    before = server.wait_idle()["broken_off"]
    for batch in client.query("endless"):
        assert batch.num_rows == 1000
        break
    gc.collect()
    assert server.wait_idle()["broken_off"] == before + 1


@pytest.mark.parametrize("end", ["close", "cancel"])
def test_ending_a_reader_cancels(client, server, end):
    before = server.wait_idle()["broken_off"]
    reader = client.query("endless")
    batches = iter(reader)
    next(batches)
    getattr(reader, end)()
    with pytest.raises(flight.FlightCancelledError):
        list(batches)
    assert server.wait_idle()["broken_off"] == before + 1


def test_closing_the_client_cancels(server):
    before = server.wait_idle()["broken_off"]
    with pgflight.connect(server.uri) as client:
        batches = iter(client.query("endless"))
        next(batches)
    with pytest.raises(flight.FlightCancelledError):
        list(batches)
    assert server.wait_idle()["broken_off"] == before + 1


def test_cancel_from_another_thread_while_waiting(client, server):
    reader = client.query("stalls")
    batches = iter(reader)
    next(batches)
    timer = threading.Timer(0.1, reader.cancel)
    timer.start()
    with pytest.raises(flight.FlightCancelledError):
        next(batches)
    timer.join()
    server.wait_idle()


def test_cancel_before_reading(client):
    reader = client.query("numbers")
    reader.cancel()
    with pytest.raises(flight.FlightCancelledError):
        reader.to_arrow()


def test_cancel_between_endpoints(client):
    reader = client.query("numbers", endpoints=10)
    batches = iter(reader)
    next(batches)
    reader.cancel()
    with pytest.raises(flight.FlightCancelledError):
        list(batches)


def test_close_after_the_end(client, server):
    before = server.wait_idle()
    with client.query("numbers") as reader:
        assert reader.to_arrow().num_rows == ROWS
    reader.close()
    after = server.wait_idle()
    assert after["broken_off"] == before["broken_off"]
    assert after["finished"] == before["finished"] + 1


@pytest.mark.parametrize("name", ["never_planned", "never_opened", "stalls"])
def test_deadline(server, name):
    with pgflight.connect(server.uri, timeout_s=0.3) as client, pytest.raises(flight.FlightTimedOutError):
        client.query(name).to_arrow()


def test_buffers_are_aligned_for_their_type(client, server):
    server.put("large", pa.table({"text": ["x"], "n": [1]}).take([0] * 2_000_000))
    for batch in client.query("large"):
        assert batch["n"].buffers()[1].address % 8 == 0
        assert batch["text"].buffers()[1].address % 4 == 0
