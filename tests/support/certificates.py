"""Self-signed certificates for tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.programs import need


def certificate(folder: Path, name: str, curve: str = "prime256v1") -> tuple[Path, Path]:
    """Creates a certificate for localhost. Returns the files of the certificate and its key."""
    openssl = str(need("openssl"))
    chain, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{curve}", "-nodes"]
    command += ["-days", "1", "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(chain)], check=True, capture_output=True)
    return chain, key
