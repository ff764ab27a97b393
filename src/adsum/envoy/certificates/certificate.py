"""A gateway's certificate and its key: read from the operator's files, proven, and kept in one file of ours.

Envoy never sees the operator's files. Whoever replaces them can hardly do so at once: what fits is brought together,
and is moved to where Envoy looks in one step.
"""

from __future__ import annotations

import json
import re
import ssl
import subprocess
from pathlib import Path
from typing import Any, Final

from adsum.cache_files import replace_private_file, write_private_file
from adsum.envoy.plan import GatewayPlan
from adsum.envoy.preflight import CannotServe
from adsum.envoy.process.binary import EnvoyBinary
from adsum.gateway.profile import GatewayProfile

PAIR_FILE: Final = "pair.pem"
"""Of the file, in the folder of the Envoy that shows it."""
VALIDATION_TIMEOUT: Final = 20.0
"""Seconds that Envoy has to judge it; a cold disk is slow, and the program is large."""

_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)
_ENCRYPTED: Final = re.compile(rb"-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED", re.MULTILINE)
_TLS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"


def read_pair(profile: GatewayProfile) -> bytes:
    """The chain and the key that are there now; nothing if the shape has none. Raises `CannotServe`."""
    if not profile.tls_certificate:
        return b""
    parts = []
    for flag, path, kind in (
        ("--tls-cert", profile.tls_certificate, b"CERTIFICATE"),
        ("--tls-key", profile.tls_key, b"PRIVATE KEY"),
    ):
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise CannotServe(f"{flag}: {path} can't be read: {error.strerror}") from None
        # Both may be in each of the files: no certificate is to be shown twice, and no other key to be taken.
        parts += [block[0] for block in _BLOCK.finditer(content) if block[1].endswith(kind)]
    return b"\n".join([*parts, b""])


def validate_pair(pair: bytes, plan: GatewayPlan, folder: Path) -> None:
    """Raises `CannotServe` unless the plan's Envoy can show it. `folder` is ours, for the while that takes."""
    if not plan.profile.tls_certificate:
        return
    path, judged = folder / f"judged-{PAIR_FILE}", folder / "judged.json"
    try:
        write_private_file(path, pair)
        why = _misfit(path)
        if not why:
            judged.write_text(json.dumps(_showing(path)))
            why = _refusal(plan.binary, judged, path)
    except OSError as error:
        raise CannotServe(f"a certificate can't be proven in {folder}: {error.strerror}") from None
    finally:
        path.unlink(missing_ok=True)
        judged.unlink(missing_ok=True)
    if why:
        shape = plan.profile
        raise CannotServe(f"--tls-cert {shape.tls_certificate}, --tls-key {shape.tls_key}: {why}")


def install_pair(pair: bytes, folder: Path) -> None:
    """Have the Envoy of that folder show it, from its start or from now on. Raises `OSError`."""
    replace_private_file(folder / PAIR_FILE, pair)


def _misfit(path: Path) -> str:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, password="")
    except ssl.SSLError as error:
        if "MISMATCH" in str(error):
            return "the key is not the certificate's"
        if _ENCRYPTED.search(path.read_bytes()):
            return (
                "the key is encrypted, and nobody can be asked for its passphrase: `openssl pkey` writes it without one"
            )
        return "they are no PEM files that can be used"
    return ""


def _refusal(binary: EnvoyBinary, config: Path, pair: Path) -> str:
    """Envoy's libraries refuse some that ours take, and it would say so only once it serves."""
    argv: list[str | Path] = [binary.path, "--mode", "validate", "-c", config, "-l", "error", "--log-format", "%v"]
    try:
        done = subprocess.run(  # noqa: S603 - the operator's Envoy
            argv, capture_output=True, timeout=VALIDATION_TIMEOUT, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"Envoy can't be asked whether it takes them: {error}"
    if done.returncode == 0:
        return ""
    said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    why = said.rpartition(f"'{config}': ")[2].replace(f" from {pair}", "")
    return f"Envoy refuses them: {why}"


def _showing(path: Path) -> dict[str, Any]:
    """The least that has Envoy load it."""
    file = {"filename": str(path)}
    context = {
        "@type": _TLS,
        "common_tls_context": {"tls_certificates": [{"certificate_chain": file, "private_key": file}]},
    }
    chain = {"filters": [], "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context}}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {"static_resources": {"listeners": [{"name": "judged", "address": address, "filter_chains": [chain]}]}}
