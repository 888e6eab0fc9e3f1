"""A file of tokens: each names its holder, who reads with a PostgreSQL login of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from flight_server.auth.login import Logins
from flight_server.auth.state import SessionState
from flight_server.auth.tokens import TokenFile
from kernels.errors import ConfigError, UnauthenticatedError
from tests.flight_server.sql.rpc import RawClient
from tests.helpers.logins import PASSWORDS, basic
from tests.helpers.server import ServerProcess

ANN, BEN, CY = (f"a long token of {name}" for name in ("ann", "ben", "cy"))
WHO = "select current_user::text as who"


def write(directory: Path, text: str) -> Path:
    file = directory / "tokens.toml"
    file.write_text(text)
    return file


def test_holders_read_with_their_logins(people: EmbeddedPostgres, tmp_path: Path) -> None:
    """By password file, by service, and with the server's own login; whose that is gets no other's password."""
    passfile, services = tmp_path / "pgpass", tmp_path / "pg_service.conf"
    passfile.write_text("*:*:*:alice:" + PASSWORDS["alice"].replace(":", "\\:") + "\n")
    passfile.chmod(0o600)
    services.write_text(f"[bobs]\nuser=bob\npassword={PASSWORDS['bob']}\n")
    file = write(
        tmp_path,
        f'[ann]\ntoken = "{ANN}"\nuser = "alice"\npassfile = "{passfile}"\n'
        f'[ben]\ntoken = "{BEN}"\nservice = "bobs"\n'
        f'[cy]\ntoken = "{CY}"\n',
    )
    environment = {"PGSERVICEFILE": str(services)}
    with ServerProcess(people.dsn(), "--auth-tokens-file", str(file), environment=environment) as server:
        for token, role in ((ANN, "alice"), (BEN, "bob"), (CY, "pgflight")):
            for header in (f"Bearer {token}", basic("any", token)):
                with RawClient(server.uri, {"authorization": header}) as client:
                    assert client.query(WHO)["who"].to_pylist() == [role]
        for header in ("Bearer nobody's", basic("ann", "ann"), f"Bearer {ANN[:-1]}", f"Bearer {ANN} {BEN}"):
            with RawClient(server.uri, {"authorization": header}) as client:
                with pytest.raises(flight.FlightUnauthenticatedError, match="wrong"):
                    client.query(WHO)
        with (
            flight.connect(server.uri) as client,
            pytest.raises(flight.FlightUnauthenticatedError, match="missing"),
        ):
            client.do_get(flight.Ticket(b"select 1"))


def test_a_removed_token_ends_its_logins(tmp_path: Path) -> None:
    """So does a changed one; the others' go on."""
    before = Logins(TokenFile.load(write(tmp_path, f'[ann]\ntoken = "{ANN}"\n[ben]\ntoken = "{BEN}"\n')))
    ann, ben = (before.bearer(f"token:{name}", SessionState()) for name in ("ann", "ben"))
    after = Logins(TokenFile.load(write(tmp_path, f'[ben]\ntoken = "{BEN}"\n')))
    assert after.check({"authorization": [ben]}).identity == "token:ben"
    with pytest.raises(UnauthenticatedError, match="wrong"):
        after.check({"authorization": [ann]})
    changed = Logins(TokenFile.load(write(tmp_path, f'[ben]\ntoken = "{BEN} new"\n')))
    with pytest.raises(UnauthenticatedError, match="wrong"):
        changed.check({"authorization": [ben]})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no identity"),
        ("not toml", "tokens.toml"),
        ('[ann]\ntoken = "short"', "ann.token"),
        ('[ann]\nuser = "a"', "ann.token"),
        (f'[ann]\ntoken = "{ANN}"\nrole = "x"', "ann.role"),
        (f'[ann]\ntoken = "{ANN}"\npassfile = "/x"', "passfile goes with"),
        (f'[ann]\ntoken = "{ANN}"\n[ben]\ntoken = "{ANN}"', "same token"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        TokenFile.load(write(tmp_path, text))
    assert ANN not in str(caught.value) and "short" not in str(caught.value).replace("should", "")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        TokenFile.load(tmp_path / "none")
