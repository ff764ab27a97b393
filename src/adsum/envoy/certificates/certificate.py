"""Reads a gateway's certificate and key from the operator's files, validates them and installs them for Envoy.

Envoy never reads the operator's files, because chain and key can hardly be replaced at the same instant. A pair that
fits is written to one file in Envoy's folder, which is replaced atomically.
"""

from __future__ import annotations

import json
import ssl
import subprocess
from pathlib import Path
from typing import Any, Final

from adsum.cache_files import replace_private_file, write_private_file
from adsum.certificates.pairs import PEM_BLOCK, is_encrypted, read_pem
from adsum.core.errors import Invalid
from adsum.envoy.plan import GatewayPlan
from adsum.envoy.preflight import CannotServe
from adsum.envoy.process.binary import EnvoyBinary

PAIR_FILE: Final = "pair.pem"
"""The file with certificate and key in an Envoy's folder."""
VALIDATION_TIMEOUT: Final = 20.0
"""Seconds that Envoy may take to validate a pair. A cold disk is slow, and the program is large."""

_TLS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"


def read_pair(plan: GatewayPlan) -> bytes:
    """Returns the chain and the key from the operator's files; empty if there are none. Raises `CannotServe`."""
    profile = plan.profile
    if not profile.tls_certificate:
        return b""
    parts = []
    for flag, path, kind in (
        ("--tls-cert", profile.tls_certificate, b"CERTIFICATE"),
        ("--tls-key", profile.tls_key, b"PRIVATE KEY"),
    ):
        try:
            content = read_pem(Path(path), flag)
        except Invalid as error:
            raise CannotServe(f"{flag}: {error.problem}") from None
        # Each file may hold both, so take only certificates from the one and only keys from the other.
        parts += [block[0] for block in PEM_BLOCK.finditer(content) if block[1].endswith(kind)]
    return b"\n".join([*parts, b""])


def validate_pair(pair: bytes, plan: GatewayPlan, folder: Path) -> None:
    """Raises `CannotServe` unless the plan's Envoy can use the pair. Writes temporary files to `folder`."""
    profile = plan.profile
    if not profile.tls_certificate:
        return
    problem = pair_problem(pair, plan, folder)
    if problem:
        raise CannotServe(f"--tls-cert {profile.tls_certificate}, --tls-key {profile.tls_key}: {problem}")


def pair_problem(pair: bytes, plan: GatewayPlan, folder: Path) -> str:
    """Returns why the plan's Envoy can't use the pair; "" if it can. Writes temporary files to `folder`.

    Raises `CannotServe` if it can't be checked.
    """
    path, config = folder / f"check-{PAIR_FILE}", folder / "check.json"
    try:
        write_private_file(path, pair)
        problem = _library_problem(path)
        if not problem:
            config.write_text(json.dumps(_minimal_config(path)))
            problem = _envoy_problem(plan.binary, config, path)
    except OSError as error:
        raise CannotServe(f"the certificate can't be checked in {folder}: {error.strerror}") from None
    finally:
        path.unlink(missing_ok=True)
        config.unlink(missing_ok=True)
    return problem


def install_pair(pair: bytes, folder: Path) -> None:
    """Makes the Envoy of that folder use the pair, from its start or from now on. Raises `OSError`."""
    replace_private_file(folder / PAIR_FILE, pair)


def _library_problem(path: Path) -> str:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, password="")
    except ssl.SSLError as error:
        if "MISMATCH" in str(error):
            return "the key does not belong to the certificate"
        if is_encrypted(path.read_bytes()):
            return "the key is encrypted and there is nobody to enter its passphrase: remove it with `openssl pkey`"
        return "they are not valid PEM files"
    return ""


def _envoy_problem(binary: EnvoyBinary, config: Path, pair: Path) -> str:
    """Returns why Envoy rejects the pair; "" if it does not. Its TLS library rejects some that Python's accepts."""
    argv: list[str | Path] = [binary.path, "--mode", "validate", "-c", config, "-l", "error", "--log-format", "%v"]
    try:
        process = subprocess.run(  # noqa: S603 - the operator's Envoy
            argv, capture_output=True, timeout=VALIDATION_TIMEOUT, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"Envoy can't be run to check them: {error}"
    if process.returncode == 0:
        return ""
    message = process.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    reason = message.rpartition(f"'{config}': ")[2].replace(f" from {pair}", "")
    return f"Envoy rejects them: {reason}"


def _minimal_config(path: Path) -> dict[str, Any]:
    """Returns the smallest configuration that makes Envoy load the pair."""
    pair_file = {"filename": str(path)}
    context = {
        "@type": _TLS,
        "common_tls_context": {"tls_certificates": [{"certificate_chain": pair_file, "private_key": pair_file}]},
    }
    filter_chain = {"filters": [], "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context}}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {"static_resources": {"listeners": [{"name": "check", "address": address, "filter_chains": [filter_chain]}]}}
