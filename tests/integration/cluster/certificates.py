"""A certificate authority and certificates for the tests' brokers and clients, made by the ``openssl`` command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.requirements import require_program


@dataclass(frozen=True)
class Certificate:
    """Paths of PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Makes certificates in ``directory`` that are trusted by whoever trusts `Authority.root`.

    Without ``openssl`` the test is skipped.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = name
        self.root = Certificate(directory / f"{name}.pem", directory / f"{name}.key")
        _openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-keyout", str(self.root.key), "-out", str(self.root.certificate)),
        )

    def issue(self, name: str) -> Certificate:
        """A certificate for a server at 127.0.0.1, or for a client of this name."""
        made = Certificate(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        request, extensions = self._directory / f"{name}.csr", self._directory / f"{name}.ext"
        extensions.write_text("subjectAltName=IP:127.0.0.1\n")
        _openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
            *("-keyout", str(made.key), "-out", str(request)),
        )
        _openssl(
            *("x509", "-req", "-days", "2", "-in", str(request), "-extfile", str(extensions), "-CAcreateserial"),
            *("-CA", str(self.root.certificate), "-CAkey", str(self.root.key), "-out", str(made.certificate)),
        )
        return made


def _openssl(*arguments: str) -> None:
    openssl = require_program("a broker with certificates", "openssl", "openssl")
    subprocess.run([openssl, *arguments], check=True, capture_output=True, timeout=60)
