"""A registry's authority, the certificate of its servers, and the credentials folders of hosts that have joined it."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import trustme

from adsum.certificates.authority import LIFETIMES, Authority
from adsum.certificates.requests import create_request, decode_key, encode_key, new_key
from adsum.certificates.server_names import ServerNames
from adsum.client.credentials.folder import CredentialsFolder, RegistryCredentials
from adsum.core.access.tokens import TokenRole

NODE_ID = "0" * 16
"""The id of the token that the certificate of the servers names."""


class SecureRegistry:
    """A `ports.ServerCertificates` of an authority that also signs for hosts that join."""

    def __init__(self, names: tuple[str, ...] = ("localhost", "127.0.0.1", "::1")) -> None:
        self.authority = Authority.create(time.time())
        self.version = 0
        self._names = ServerNames.of(names)
        self._pair = self._issue(time.time())

    def expire_server(self) -> None:
        """Gives the servers a certificate that expired some days ago."""
        self._pair = self._issue(time.time() - LIFETIMES[TokenRole.NODE] - 86_400.0)
        self.version += 1

    def renew_server(self) -> None:
        """Gives the servers a new certificate."""
        self._pair = self._issue(time.time())
        self.version += 1

    def ssl_context(self) -> ssl.SSLContext:
        key, chain = self._pair
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=self.client_authorities().decode())
        with trustme.Blob(key + chain).tempfile() as file:
            context.load_cert_chain(file)
        return context

    def key_pair(self) -> tuple[bytes, bytes]:
        return self._pair

    def client_authorities(self) -> bytes:
        return self.authority.certificate_pem()

    def join(
        self,
        path: Path,
        *,
        xds: str,
        url: str = "https://127.0.0.1:23786",
        role: TokenRole = TokenRole.GATEWAY,
        token_id: str = "1" * 16,
        age: float = 0.0,
    ) -> CredentialsFolder:
        """Writes the credentials folder of a host that joined `age` seconds ago."""
        key = new_key()
        request = create_request(key, "edge")
        chain = self.authority.sign(request, name="edge", token_id=token_id, role=role, now=time.time() - age)
        folder = CredentialsFolder(path)
        folder.write(
            RegistryCredentials(
                urls=(url,),
                name="edge",
                role=role.value,
                xds=(xds,),
                authority=self.authority.certificate_pem().decode(),
                authority_hash=self.authority.hash,
                token=f"adsum_{token_id}_{'s' * 43}",
            ),
            chain.decode(),
            encode_key(key).decode(),
        )
        return folder

    def renew(self, folder: CredentialsFolder, token_id: str = "1" * 16) -> None:
        """Replaces the certificate in the folder by a new one of the same key, as a renewal does."""
        credentials = folder.read()
        assert credentials.key is not None
        request = create_request(decode_key("key", credentials.key.read_bytes()), "edge")
        role = TokenRole(credentials.role)
        chain = self.authority.sign(request, name="edge", token_id=token_id, role=role, now=time.time())
        folder.replace_certificate(chain.decode())

    def _issue(self, now: float) -> tuple[bytes, bytes]:
        key = new_key()
        request = create_request(key, "node", self._names.dns_names, self._names.addresses)
        chain = self.authority.sign(request, name="node", token_id=NODE_ID, role=TokenRole.NODE, now=now)
        return encode_key(key), chain
