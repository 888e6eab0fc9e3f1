"""The server's settings: flags, PGFLIGHT_* environment, a TOML file; checked before anything starts."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from kernels.errors import ConfigError

DEFAULT_LISTEN = "grpc://127.0.0.1:8815"
OIDC_ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
"""With public keys all: a token signed with a public key as if it were a secret is none of these."""
SCHEMES = ("grpc", "grpc+tcp", "grpc+tls", "grpc+unix")


class Settings(BaseSettings):
    """Everything that can be set; immutable.  Flags win over the environment, that over the file."""

    model_config = SettingsConfigDict(
        env_prefix="PGFLIGHT_", frozen=True, extra="forbid", hide_input_in_errors=True
    )

    dsn: SecretStr = Field(
        SecretStr(""),
        description="Conninfo or URI of PostgreSQL. What it leaves open, libpq takes from PG* variables, "
        "service and password files.",
    )
    listen: str = Field(DEFAULT_LISTEN, description="URI to listen on: grpc://, grpc+tls:// or grpc+unix://.")
    login: Literal["token", "postgres", "oidc", "certificate"] = Field(
        "token",
        description="How clients log in: a token of the server's (or nothing, on this host), a user and password "
        "of PostgreSQL, a JWT of an identity provider, or a client certificate.",
    )
    auth_token: SecretStr | None = Field(None, description="Bearer token that clients must send.")
    auth_token_file: Path | None = Field(None, description="File that holds the bearer token.")
    auth_tokens_file: Path | None = Field(
        None, description="TOML file of several tokens, each with an identity and its PostgreSQL login."
    )
    login_map: Path | None = Field(
        None, description='TOML file of lines "name" = "PostgreSQL login" for oidc and certificate.'
    )
    login_recheck_s: float = Field(
        60.0, gt=0, description="A password is shown to PostgreSQL again when it was last accepted so long ago."
    )
    identity_connections: int = Field(
        4, ge=1, description="PostgreSQL connections of one identity at most, where logins tell them apart."
    )
    identity_idle_s: float = Field(
        900.0, gt=0, description="What is kept for an identity is closed when it has not called for so long."
    )
    oidc_jwks: str = Field("", description="File or https URL of the identity provider's public keys (JWKS).")
    oidc_issuer: str = Field("", description="Issuer that tokens must name.")
    oidc_audience: str = Field("", description="Audience that tokens must name.")
    oidc_algorithms: str = Field("RS256,ES256", description="Signatures that are believed, with commas between.")
    oidc_claim: str = Field("sub", description="Claim that names the caller.")
    allow_plaintext: bool = Field(
        False, description="Accept tokens and passwords over an unencrypted connection from other hosts."
    )
    tls_cert: Path | None = Field(None, description="PEM file of the server's certificate chain.")
    tls_key: Path | None = Field(None, description="PEM file of its private key.")
    tls_client_ca: Path | None = Field(
        None, description="PEM file of authorities: clients must bring a certificate that one of them signed."
    )
    signing_key: SecretStr | None = Field(
        None, description="Key that signs tickets, shared by replicas; random by default."
    )
    signing_key_file: Path | None = Field(None, description="File that holds the signing key.")
    ticket_lifetime_s: float = Field(900.0, gt=0, description="How long a ticket is good for.")
    replicas: str = Field(
        "",
        description="URIs of all servers that share database and signing key, this one included, "
        "with commas between.",
    )
    allow_writes: bool = Field(
        False, description="Let Flight SQL clients write: updates, transactions, ingestion."
    )
    transaction_idle_s: float = Field(
        300.0, gt=0, description="A client's transaction that was not used for so long is rolled back."
    )
    transaction_max_s: float = Field(3600.0, gt=0, description="And one that is so old.")
    max_transactions: int = Field(64, ge=1, description="Clients' transactions at once.")
    snapshot_lease_s: float = Field(
        120.0, gt=0, description="A snapshot held for several endpoints ends when unread for so long."
    )
    snapshot_max_s: float = Field(3600.0, gt=0, description="And after so long in any case.")
    max_snapshots: int = Field(4, ge=0, description="Snapshots held at once; each takes a connection.")
    max_connections: int = Field(16, ge=1, le=10_000, description="PostgreSQL connections at most.")
    reserved_connections: int = Field(
        2,
        ge=0,
        description="So many of them, at most a quarter, are for planning and metadata, never for streams.",
    )
    max_streams: int = Field(
        4, ge=1, le=1024, description="Sessions that one read uses at most unless it asks for more."
    )
    max_waiting: int = Field(256, ge=0, description="Requests that may wait for a connection.")
    connection_wait_s: float = Field(30.0, ge=0, description="How long a request waits for a connection.")
    spool_dir: Path | None = Field(
        None, description="Directory for results that clients allow to be served again (option max_age_s)."
    )
    spool_max_mib: int = Field(16384, ge=1, description="Room they may take; the least recently used leave.")
    spool_min_free_mib: int = Field(2048, ge=0, description="Room always left free on that file system.")
    file_dsn: SecretStr | None = Field(
        None,
        description="Conninfo of a login that may write server files, for transport=file; never the users'.",
    )
    file_dir: Path | None = Field(
        None, description="Directory for those files: PostgreSQL on this host writes there, this server reads."
    )
    collect_mib: int = Field(
        512, ge=1, le=1024, description="What the transports single, buffered and chunked may collect of a result."
    )
    memory_mib: int = Field(384, ge=16, description="Memory for blocks and batches, all streams together.")
    max_row_mib: int = Field(128, ge=1, le=1024, description="Largest row that is served.")
    statement_timeout_s: float = Field(0.0, ge=0, description="Longest a read may take; 0 for no limit.")
    stall_timeout_s: float = Field(
        300.0, ge=0, description="A read ends when its client has not taken a batch for so long; 0 for never."
    )
    lock_timeout_s: float = Field(30.0, ge=0, description="How long to wait for a lock; 0 for no limit.")
    drain_grace_s: float = Field(20.0, ge=0, description="How long running streams may go on after SIGTERM.")
    decode: Literal["auto", "cpu", "gpu"] = Field("auto", description="Where rows are decoded.")
    gpus: str = Field("all", description="GPUs to decode on: all, or ordinals and UUIDs with commas between.")
    gpu_memory_mib: int = Field(4096, ge=64, description="Memory for decoding on each GPU.")
    block_mib: int = Field(64, ge=1, le=512, description="Size of pinned blocks, a power of two.")
    pinned_blocks: int = Field(64, ge=4, description="How many there may be.")
    lease_memory_mib: int = Field(
        4096, ge=2, description="Memory of each GPU for batches lent to clients on this host (output=cuda-ipc)."
    )
    lease_slab_mib: int = Field(256, ge=2, description="Allocations it is made of; even, the largest batch.")
    lease_client_mib: int = Field(2048, ge=2, description="What one client may hold of it.")
    lease_s: float = Field(600.0, gt=0, description="How long a lease on a batch is good for.")
    lease_socket: Path | None = Field(
        None, description="Unix socket where clients give batches back; by default in a new directory."
    )
    share_memory: bool = Field(
        True,
        description="Write batches into memory that clients on this host offer, instead of sending them.",
    )
    reader: Literal["auto", "libpq"] = Field(
        "auto", description="How PostgreSQL's replies are read: the fastest way, or libpq's own."
    )
    allow_superuser: bool = Field(
        False,
        description="Start even if the PostgreSQL role is a superuser or may use server files or programs.",
    )
    http_listen: str = Field(
        "",
        description="Port, or HOST:PORT, for /metrics, /healthz and /readyz; on 127.0.0.1 unless a host is given, "
        "off unless set.",
    )
    log_format: Literal["auto", "console", "json"] = Field("auto", description="auto: json unless on a terminal.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severity logged.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (the signature is pydantic's)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: flags, environment, file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together")
        if (self.file_dsn is None) != (self.file_dir is None):
            raise ValueError("file_dsn and file_dir go together")
        parts = urlsplit(self.listen)
        if parts.scheme not in SCHEMES:
            raise ValueError(f"listen: the scheme must be one of {', '.join(SCHEMES)}, not {parts.scheme!r}")
        if (parts.scheme == "grpc+tls") != (self.tls_cert is not None):
            raise ValueError("listen: grpc+tls:// goes with tls_cert and tls_key")
        if self.http_listen:
            http_address(self.http_listen)
        if self.memory_mib < 2 * self.max_row_mib:
            raise ValueError(
                "memory_mib must be at least twice max_row_mib: a row needs its bytes and its Arrow form"
            )
        for uri in self.replica_uris():
            if urlsplit(uri).scheme not in SCHEMES:
                raise ValueError(f"replicas: the scheme of {uri!r} must be one of {', '.join(SCHEMES)}")
        if self.replicas and self.signing_key is None and self.signing_key_file is None:
            raise ValueError("replicas: tickets must be good on all of them; set signing_key_file on each")
        self._check_login()
        if not is_local(self.listen):
            if self.login == "token" and not self._has_token:
                raise ValueError(
                    f"listen: {self.listen} can be reached from other hosts; set auth_token_file or another "
                    "login, or listen on 127.0.0.1"
                )
            if self.tls_cert is None and not self.allow_plaintext:
                raise ValueError(
                    "listen: tokens and passwords would cross the network unencrypted; set tls_cert and tls_key, "
                    "or allow_plaintext if a proxy encrypts"
                )
        return self

    def _check_login(self) -> None:
        """Refuse settings of a login that would be ignored, or be no protection."""
        if self.login != "token" and self._has_token:
            raise ValueError(f"login: {self.login} takes no tokens of the server's; remove auth_token*, or login")
        if self.auth_tokens_file and (self.auth_token or self.auth_token_file):
            raise ValueError("auth_tokens_file: names each token's holder; remove auth_token and auth_token_file")
        if self.tls_client_ca and not self.tls_cert:
            raise ValueError("tls_client_ca: certificates come with TLS alone; set tls_cert and tls_key")
        if self.login == "certificate" and not self.tls_client_ca:
            raise ValueError("login: without tls_client_ca any certificate would do; set it")
        if self.login in ("oidc", "certificate") and self.login_map is None:
            raise ValueError(f"login: {self.login} needs login_map, a file of the callers' PostgreSQL logins")
        if self.login not in ("oidc", "certificate") and self.login_map is not None:
            raise ValueError("login_map: goes with login=oidc or login=certificate")
        if self.login == "oidc":
            if not (self.oidc_jwks and self.oidc_issuer and self.oidc_audience):
                raise ValueError("login: oidc needs oidc_jwks, oidc_issuer and oidc_audience")
            wrong = sorted(set(self.oidc_algorithm_names()) - set(OIDC_ALGORITHMS))
            if wrong or not self.oidc_algorithm_names():
                raise ValueError(
                    f"oidc_algorithms: {', '.join(wrong) or 'none'}; possible are {', '.join(OIDC_ALGORITHMS)}"
                )

    @property
    def _has_token(self) -> bool:
        return any((self.auth_token, self.auth_token_file, self.auth_tokens_file))

    def oidc_algorithm_names(self) -> tuple[str, ...]:
        """Return the names of the signatures that are believed."""
        return tuple(name.strip() for name in self.oidc_algorithms.split(",") if name.strip())

    def replica_uris(self) -> list[str]:
        """Return the URIs of all replicas."""
        return [uri.strip() for uri in self.replicas.split(",") if uri.strip()]

    def token(self) -> str | None:
        """Return the bearer token, None where none is asked for."""
        return _secret(self.auth_token, self.auth_token_file)

    def ticket_key(self) -> bytes | None:
        """Return the signing key, None for a random one."""
        key = _secret(self.signing_key, self.signing_key_file)
        return None if key is None else key.encode()


def http_address(text: str) -> tuple[str, int]:
    """Return host and port of `http_listen`.

    Raises
    ------
    ValueError
        It is neither a port nor HOST:PORT.
    """
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise ValueError(f"http_listen: {text!r} is neither a port nor HOST:PORT")
    return host or "127.0.0.1", int(port)


def is_local(listen: str) -> bool:
    """Tell whether only this host can reach a URI."""
    parts = urlsplit(listen)
    if parts.scheme == "grpc+unix" or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def load(config_file: Path | None = None, **flags: Any) -> Settings:
    """Read the settings from all sources.

    Parameters
    ----------
    config_file : Path, optional
        A TOML file.
    **flags
        Values given on the command line; None means not given.

    Raises
    ------
    ConfigError
        Naming the setting that is wrong.
    """
    if config_file is not None and not config_file.is_file():
        raise ConfigError(f"there is no configuration file {config_file}")

    class FileSettings(Settings):
        model_config = SettingsConfigDict(toml_file=config_file)

    try:
        return FileSettings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as failure:
        problems = "; ".join(
            ".".join(str(part) for part in error["loc"]) + (": " if error["loc"] else "") + error["msg"]
            for error in failure.errors()
        )
        raise ConfigError(problems.replace("Value error, ", "")) from None
    except ValueError as failure:  # a TOML file that cannot be parsed
        raise ConfigError(str(failure)) from failure


def _secret(value: SecretStr | None, file: Path | None) -> str | None:
    if value is not None:
        return value.get_secret_value()
    if file is None:
        return None
    try:
        text = file.read_text().strip()
    except OSError as failure:
        raise ConfigError(f"cannot read {file}: {failure.strerror}") from failure
    if not text:
        raise ConfigError(f"{file} is empty")
    return text
