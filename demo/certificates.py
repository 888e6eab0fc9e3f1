"""A throwaway certificate authority and server certificate for clusters that speak TLS."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from demo.distribution import Owner


@dataclass(frozen=True)
class Certificates:
    """Paths of the authority's certificate (public), and of the server's with its key (private)."""

    ca: Path
    server: Path

    @classmethod
    def make(cls, directory: Path, host: str, owner: Owner | None) -> Self:
        """Issue a certificate for ``host`` and localhost, unless ``directory`` has one already."""
        made = cls(directory / "ca.pem", directory / "server.pem")
        if not made.server.exists():
            import trustme  # noqa: PLC0415 - a test dependency: only clusters with TLS need it

            directory.mkdir(mode=0o755, exist_ok=True)
            authority = trustme.CA()
            authority.cert_pem.write_to_path(made.ca)
            made.server.touch(mode=0o600)  # PostgreSQL refuses a key that others can read
            authority.issue_cert(host, "localhost").private_key_and_cert_chain_pem.write_to_path(made.server)
            if owner is not None:
                os.chown(made.server, owner.uid, owner.gid)
        return made

    def settings(self) -> dict[str, str]:
        """Server settings that switch TLS on; one file holds both certificate and key."""
        return {"ssl": "on", "ssl_cert_file": str(self.server), "ssl_key_file": str(self.server)}
