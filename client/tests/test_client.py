"""Everything beside reading: catalogue, connection settings, what is sent."""

import json

import pyarrow as pa
import pytest
import trustme
from pyarrow import flight

import pgflight

NUMBERS = pa.schema([("n", pa.int64()), ("text", pa.utf8())])


def sent(reader):
    row = reader.to_arrow().to_pylist()[0]
    return json.loads(row["request"]), row["raw"]


def test_tables(client):
    numbers, stalls = client.tables()
    assert numbers == pgflight.TableInfo("public", "numbers", NUMBERS, 10_000, None)
    assert (stalls.name, stalls.estimated_rows) == ("stalls", None)
    assert [table.name for table in client.tables("public.num%")] == ["numbers"]


def test_schema(client):
    assert client.schema("numbers") == NUMBERS
    assert client.schema("select * from numbers where n = $1", [1]) == NUMBERS


def test_info(client):
    assert client.info() == {"server": "pgflight", "decode": "cpu"}


def test_sql_goes_as_text(client):
    assert sent(client.query("select * from echo"))[1] == "select * from echo"


def test_a_name_goes_as_path(client):
    request, raw = sent(client.query("public.Echo"))
    assert request["kind"] == "path"
    assert raw == "public.echo"


def test_table_request(client):
    request, _ = sent(client.table("echo", columns=["a"], where="a > 1", limit=5, profile="plain"))
    assert request["columns"] == ["a"]
    assert request["where"] == "a > 1"
    assert request["limit"] == 5
    assert request["options"] == {"profile": "plain"}


def test_the_server_refuses_options_by_name(client):
    with pytest.raises(flight.FlightServerError, match="unknown option 'colour'"):
        client.query("numbers", colour="red")


def test_server_errors_come_through(client):
    with pytest.raises(flight.FlightServerError, match='relation "nowhere" does not exist'):
        client.query("nowhere")


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("localhost:1", "grpc://localhost:1"),
        ("[::1]:1", "grpc://[::1]:1"),
        ("grpc+tcp://localhost:1", "grpc+tcp://localhost:1"),
        ("grpc+unix:///run/x.sock", "grpc+unix:///run/x.sock"),
    ],
)
def test_uri(given, full):
    with pgflight.connect(given) as client:
        assert repr(client) == f"<pgflight.Client of {full}>"


def test_unknown_scheme():
    with pytest.raises(ValueError, match="unknown scheme 'http'"):
        pgflight.connect("http://localhost:1")


def test_host_and_port_suffice(server):
    with pgflight.connect(server.uri.removeprefix("grpc://")) as client:
        assert client.query("numbers").to_arrow().num_rows == 10_000


def test_a_closed_client_says_so(server):
    client = pgflight.connect(server.uri)
    client.close()
    client.close()
    with pytest.raises(pa.ArrowInvalid, match="closed"):
        client.info()


def test_token(start_server):
    with start_server("--token", "s3cret") as server:
        with pgflight.connect(server.uri, token="s3cret") as client:
            assert client.query("numbers", endpoints=2).to_arrow().num_rows == 10_000
            assert client.info()["server"] == "pgflight"
            assert "s3cret" not in repr(client)
        for wrong in (None, "guess"):
            refused = pytest.raises(flight.FlightUnauthenticatedError)
            with pgflight.connect(server.uri, token=wrong) as client, refused:
                client.query("numbers")


def test_a_token_that_no_header_can_carry_is_refused_unseen(server):
    with pgflight.connect(server.uri, token="s3cret\n") as client:
        with pytest.raises(ValueError, match="'authorization'") as caught:
            client.info()
        assert "s3cret" not in str(caught.value)


def test_the_environment_is_the_command_line_s(server, monkeypatch, start_server):
    with start_server("--token", "s3cret") as guarded:
        monkeypatch.setenv("PGFLIGHT_TOKEN", "s3cret")
        with pgflight.connect(guarded.uri) as client, pytest.raises(flight.FlightUnauthenticatedError):
            client.info()


def test_unix_socket(start_server, tmp_path):
    path = f"grpc+unix://{tmp_path}/s"
    with start_server("--uri", path), pgflight.connect(path) as client:
        assert client.query("numbers").to_arrow().num_rows == 10_000


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def tls_server(authority, start_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    files = ("--cert", str(folder / "cert.pem"), "--key", str(folder / "key.pem"))
    with start_server("--uri", "grpc+tls://127.0.0.1:0", *files, scheme="grpc+tls") as server:
        yield server


def test_tls_with_bytes_and_with_a_path(tls_server, authority, tmp_path):
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    for roots in (authority.cert_pem.bytes(), path, str(path)):
        with pgflight.connect(tls_server.uri, tls_root_certs=roots) as client:
            assert client.query("numbers").to_arrow().num_rows == 10_000


def test_tls_with_a_stranger_s_certificate(tls_server):
    other = trustme.CA().cert_pem.bytes()
    client = pgflight.connect(tls_server.uri, tls_root_certs=other, timeout_s=10)
    with client, pytest.raises(flight.FlightError):
        client.info()


def test_no_way_from_tls_to_plain_text(tls_server, authority, server):
    with pgflight.connect(tls_server.uri, tls_root_certs=authority.cert_pem.bytes()) as client:
        reader = client.query("numbers", locations=[server.uri])
        with pytest.raises(flight.FlightUnauthorizedError, match="not encrypted"):
            reader.to_arrow()
