"""The public keys of an identity provider, from a file or a URL; read again when they may have changed."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import structlog

from kernels.errors import ConfigError

log = structlog.get_logger("pgflight.login")

LIFETIME_S = 300.0
"""A key that was withdrawn is believed for so long at most."""
PAUSE_S = 10.0
"""Between two readings: whoever makes up key names makes us ask no more often."""
TIMEOUT_S = 5.0
MAX_BYTES = 1 << 20


class KeySet:
    """Keys by their IDs.  Thread-safe.

    Parameters
    ----------
    source : str
        Path of a JWKS file, or its URL: https, or http of this host.
    lifetime_s, pause_s : float

    Raises
    ------
    ConfigError
        There are no keys.
    """

    def __init__(self, source: str, *, lifetime_s: float = LIFETIME_S, pause_s: float = PAUSE_S) -> None:
        parts = urlsplit(source)
        if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise ConfigError("oidc_jwks: keys that come over http can be anybody's; use https")
        self._source = source
        self._remote = parts.scheme in ("http", "https")
        self._lifetime_s, self._pause_s = lifetime_s, pause_s
        self._reading = threading.Lock()
        self._read_at = self._tried_at = time.monotonic()
        try:
            self._keys = self._read()
        except (OSError, ValueError, jwt.PyJWTError) as failure:
            raise ConfigError(f"oidc_jwks: no keys at {source}: {failure}") from failure

    def find(self, key_id: Any) -> jwt.PyJWK | None:
        """Return the key with an ID; the only one where a token names none."""
        unknown = self._look_up(key_id) is None
        old = time.monotonic() - self._read_at > self._lifetime_s
        # Who asks for a key that is known does not wait for a provider that is slow.
        if (unknown or old) and self._reading.acquire(blocking=unknown):
            try:
                self._refresh()
            finally:
                self._reading.release()
        if time.monotonic() - self._read_at > 2 * self._lifetime_s:
            return None  # nobody knows whether they are still good
        return self._look_up(key_id)

    def _look_up(self, key_id: Any) -> jwt.PyJWK | None:
        if key_id is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(key_id) if isinstance(key_id, str) else None

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._tried_at < self._pause_s:
            return
        self._tried_at = now
        try:
            self._keys = self._read()
        except (OSError, ValueError, jwt.PyJWTError) as failure:
            log.warning("keys could not be read", source=self._source, error=str(failure))
            return
        self._read_at = now

    def _read(self) -> dict[str, jwt.PyJWK]:
        if self._remote:
            with urllib.request.urlopen(self._source, timeout=TIMEOUT_S) as reply:  # noqa: S310 (scheme checked)
                text = reply.read(MAX_BYTES + 1)
        else:
            text = Path(self._source).read_bytes()
        if len(text) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        said = json.loads(text)
        if not isinstance(said, dict) or not isinstance(said.get("keys"), list):
            raise ValueError("no key set")  # noqa: TRY004 (of the file, not of an argument)
        public = [key for key in said["keys"] if isinstance(key, dict) and _for_signatures(key)]
        found = {str(key.get("kid", "")): jwt.PyJWK(key) for key in public}
        if not found:
            raise ValueError("no public key for signatures among them")
        return found


def _for_signatures(key: dict[str, Any]) -> bool:
    """Tell whether a key is a public one for signatures; a shared secret among them is none."""
    return key.get("kty") in ("RSA", "EC", "OKP") and key.get("use", "sig") == "sig"
