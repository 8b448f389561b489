"""A certificate for 127.0.0.1, from its own authority."""

from __future__ import annotations

from pathlib import Path

import trustme


class Certificate:
    """PEM files with the authority, the certificate, its private key, and the latter two in one file."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        self.authority = str(directory / "authority.pem")
        self.cert = str(directory / "cert.pem")
        self.key = str(directory / "key.pem")
        self.both = str(directory / "both.pem")
        authority.cert_pem.write_to_path(self.authority)
        issued.cert_chain_pems[0].write_to_path(self.cert)
        issued.private_key_pem.write_to_path(self.key)
        issued.private_key_and_cert_chain_pem.write_to_path(self.both)

    @property
    def trusting(self) -> dict[str, str]:
        """The environment variables that make requests and ssl trust the authority."""
        return {"REQUESTS_CA_BUNDLE": self.authority, "SSL_CERT_FILE": self.authority}
