"""Settings: their sources, and the configurations that do not start."""

from __future__ import annotations

from pathlib import Path

import pytest

from flight_server.config import is_local, load
from kernels.errors import ConfigError


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGFLIGHT_LISTEN", "PGFLIGHT_DSN", "PGFLIGHT_MEMORY_MIB"):
        monkeypatch.delenv(name, raising=False)


def test_flags_win_over_environment_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pgflight.toml"
    file.write_text('max_connections = 3\nmemory_mib = 300\ndsn = "service=file"\n')
    monkeypatch.setenv("PGFLIGHT_MEMORY_MIB", "400")
    monkeypatch.setenv("PGFLIGHT_DSN", "service=environment")
    settings = load(file, dsn="service=flag", listen=None)
    assert settings.max_connections == 3
    assert settings.memory_mib == 400
    assert settings.dsn.get_secret_value() == "service=flag"
    assert settings.listen == "grpc://127.0.0.1:8815"


def test_a_variable_of_no_setting_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/upgrading.md warns; in a file, or as a flag, it is refused."""
    monkeypatch.setenv("PGFLIGHT_NO_SUCH_SETTING", "1")
    assert load().max_connections == 16


def test_the_side_port_needs_an_address() -> None:
    with pytest.raises(ConfigError, match="http_listen"):
        load(http_listen="everywhere")


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("s3cret\n")
    settings = load(dsn="password=hunter2", auth_token="t0ken", signing_key_file=key)
    assert "hunter2" not in repr(settings)
    assert "t0ken" not in repr(settings)
    assert settings.ticket_key() == b"s3cret"
    assert settings.token() == "t0ken"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"listen": "grpc://0.0.0.0:8815"}, "auth_token"),
        ({"listen": "grpc://db.example.org:8815"}, "auth_token"),
        ({"listen": "grpc://[::]:8815"}, "auth_token"),
        ({"listen": "grpc://0.0.0.0:8815", "auth_token": "x"}, "unencrypted"),
        ({"listen": "http://127.0.0.1:1"}, "scheme"),
        ({"listen": "grpc+tls://127.0.0.1:1"}, "tls_cert"),
        ({"tls_cert": "a.pem"}, "together"),
        ({"memory_mib": 100, "max_row_mib": 64}, "memory_mib"),
        ({"max_connections": 0}, "max_connections"),
        ({"decode": "tpu"}, "decode"),
        ({"no_such_setting": 1}, "no_such_setting"),
    ],
)
def test_unsafe_or_wrong_settings_are_refused_by_name(flags: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load(**flags)


def test_files_that_are_missing_or_broken(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration file"):
        load(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("a = [")
    with pytest.raises(ConfigError):
        load(broken)
    unknown = tmp_path / "unknown.toml"
    unknown.write_text("speed = 11")
    with pytest.raises(ConfigError, match="speed"):
        load(unknown)
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(ConfigError, match="empty"):
        load(auth_token_file=empty).token()
    with pytest.raises(ConfigError, match="cannot read"):
        load(auth_token_file=tmp_path / "none").token()


@pytest.mark.parametrize(
    ("listen", "local"),
    [
        ("grpc://127.0.0.1:1", True),
        ("grpc://127.8.8.8:1", True),
        ("grpc://[::1]:1", True),
        ("grpc://localhost:1", True),
        ("grpc+unix:///tmp/x", True),
        ("grpc://0.0.0.0:1", False),
        ("grpc://[::]:1", False),
        ("grpc://10.0.0.1:1", False),
        ("grpc://example.org:1", False),
    ],
)
def test_is_local(listen: str, local: bool) -> None:
    assert is_local(listen) is local
