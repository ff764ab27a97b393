"""The certificate of a node's servers, read again when its files change."""

from __future__ import annotations

import logging
import os
import secrets
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from adsum.cache_files import write_private_file
from adsum.certificates.certificate import parse_certificates
from adsum.certificates.pairs import KeyPair, make_pair, read_pem
from adsum.core.errors import Invalid

PROTOCOLS: Final = ("http/1.1",)
"""The protocols that the HTTP server negotiates (ALPN)."""

_log = logging.getLogger("adsum.security")


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """The files of a server: chain, key, and the authorities of its clients. Each has the setting that names it."""

    chain: Path
    key: Path
    client_authorities: Sequence[tuple[Path, str]] = ()
    chain_setting: str = "tls_cert"
    key_setting: str = "tls_key"

    def read(self) -> tuple[bytes, ...]:
        """Returns the contents: chain, key, and one of each file of authorities. Raises `Invalid`."""
        return (
            read_pem(self.chain, self.chain_setting),
            read_pem(self.key, self.key_setting),
            *(read_pem(path, setting) for path, setting in self.client_authorities),
        )


@dataclass(frozen=True, slots=True)
class ServedCertificates:
    """Everything that comes from one reading of the files."""

    pair: KeyPair
    authorities: Sequence[x509.Certificate]
    authorities_pem: bytes
    context: ssl.SSLContext = field(repr=False)


class NodeCertificates:
    """Implements `ports.ServerCertificates` by files that are polled.

    New contents are served when they fit, and were found twice in a row: a file may be read while it is written.
    Otherwise the old ones stay in use, and the reason is logged once.
    """

    def __init__(self, files: ServerFiles, folder: Path) -> None:
        """`folder` is a private one for files that exist for an instant. Raises `Invalid` if the files do not fit."""
        self._files = files
        self._folder = folder
        contents = files.read()
        self._contents: tuple[bytes, ...] | str = contents
        self._last_read: tuple[bytes, ...] | str = contents
        self.served: ServedCertificates = self._parse(contents)
        """What is served now."""
        self._version = 1

    @property
    def version(self) -> int:
        return self._version

    def ssl_context(self) -> ssl.SSLContext:
        return self.served.context

    def key_pair(self) -> tuple[bytes, bytes]:
        return self.served.pair.key, self.served.pair.chain

    def client_authorities(self) -> bytes:
        return self.served.authorities_pem

    def poll(self) -> bool:
        """Reads the files again. Returns whether something else is served from now on. Blocks on the disk."""
        found = self._read()
        is_complete, self._last_read = found == self._last_read, found
        if not is_complete or found == self._contents:
            return False
        self._contents = found
        try:
            if isinstance(found, str):
                raise Invalid("data", found)
            served = self._parse(found)
        except Invalid as error:
            problem = found if isinstance(found, str) else str(error)
            _log.error("the certificate is not replaced, and the one before stays in use: %s", problem)
            return False
        is_new = served.pair != self.served.pair or served.authorities_pem != self.served.authorities_pem
        if is_new:
            self.served = served
            self._version += 1
            _log.info("the certificate was replaced; new connections use it")
        return is_new

    def _read(self) -> tuple[bytes, ...] | str:
        """Returns the contents of the files, or the problem of one that can't be read."""
        try:
            return self._files.read()
        except Invalid as error:
            return str(error)

    def _parse(self, contents: tuple[bytes, ...]) -> ServedCertificates:
        files = self._files
        pair = make_pair(contents[0], contents[1], files.chain_setting, files.key_setting)
        authorities = [
            certificate
            for (_, setting), pem in zip(files.client_authorities, contents[2:], strict=True)
            for certificate in parse_certificates(setting, pem)
        ]
        # Written anew, since `ssl` refuses the comments of bundles that are not ASCII.
        pem = b"".join(one.public_bytes(Encoding.PEM) for one in authorities)
        return ServedCertificates(pair, authorities, pem, self._context(pair, pem))

    def _context(self, pair: KeyPair, authorities: bytes) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(list(PROTOCOLS))
        # A resumed session would not prove again that the client has its key, nor that its certificate is still valid.
        context.num_tickets = 0
        load_pair(context, pair, self._folder, self._files.chain_setting)
        if authorities:
            try:
                context.load_verify_locations(cadata=authorities.decode("ascii"))
            except ssl.SSLError as error:
                raise Invalid("tls_client_ca", f"can't be used: {error.reason or 'unknown reason'}") from None
            context.verify_mode = ssl.CERT_OPTIONAL
        return context


def load_pair(context: ssl.SSLContext, pair: KeyPair, folder: Path, setting: str) -> None:
    """Lets a context present a certificate. `folder` is a private one. Raises `Invalid` for the setting of the pair."""
    # The library loads a key only from a file.
    path = folder / f".serving-{os.getpid()}-{secrets.token_hex(8)}.pem"
    try:
        write_private_file(path, pair.chain + pair.key)
        context.load_cert_chain(path)
    except ssl.SSLError as error:
        raise Invalid(setting, f"can't be served: {error.reason or 'unknown reason'}") from None
    except OSError as error:
        raise Invalid("data", f"must be a folder that this user may use: {path.parent}: {error.strerror}") from None
    finally:
        path.unlink(missing_ok=True)
