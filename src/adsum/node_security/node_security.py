"""The security of one node while it runs: its certificates, its authority, and its tokens, kept up to date."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from adsum import wire
from adsum.access.registry_addresses import RegistryAddresses, registry_addresses
from adsum.access.registry_authority import AuthorityRecord
from adsum.certificates.authority import token_id_of
from adsum.certificates.expiry import RENEW_AT, CertificateLife, ExpiryWarnings, certificate_life
from adsum.certificates.host_addresses import default_route_address
from adsum.certificates.server_names import ServerNames
from adsum.config.serve import NodeConfig
from adsum.core.access.tokens import TokenParts, TokenRole
from adsum.core.errors import AdsumError, Invalid
from adsum.node_security import node_files
from adsum.node_security.authorities import ExternalAuthority, RegistryAuthority
from adsum.node_security.certificate_lives import certificate_lives, expiry_metric
from adsum.node_security.host_names import find_server_names
from adsum.node_security.local_credentials import LocalCredentials, RegistryDescription, local_address
from adsum.node_security.node_tokens import NodeTokens
from adsum.node_security.peer_certificates import NodePeerCertificates
from adsum.node_security.requested_certificates import (
    RequestCertificate,
    renew_local_by_others,
    renew_node_by_others,
)
from adsum.node_security.security_folder import (
    ADMIN_TOKEN,
    AUTHORITY_CERTIFICATE,
    AUTHORITY_KEY,
    GATEWAY_FOLDER,
    NEW_AUTHORITY,
    NODE_CERTIFICATE,
    NODE_KEY,
    OPERATOR_FOLDER,
    SecurityFolder,
)
from adsum.node_security.server_certificates import NodeCertificates, ServerFiles
from adsum.node_security.token_names import admin_token_name, gateway_token_name
from adsum.outage_log import OutageLog
from adsum.ports import Clock
from adsum.registry import Registry
from adsum.settings import OFF

if TYPE_CHECKING:
    from prometheus_client.core import Metric

LOOK_INTERVAL: Final = 1.0
"""Seconds between two looks at the files of a node."""
RENEWAL_RETRY: Final = 60.0
"""Seconds after a renewal that failed until the next attempt."""
RENEWAL_TIMEOUT: Final = 15.0
"""Seconds that other nodes have to renew the certificate of this one. Then the attempt has failed."""

_log = logging.getLogger("adsum.security")


class NodeSecurity:
    """The security of one node that serves TLS. The constructor makes what is missing, and blocks on the disk."""

    def __init__(self, config: NodeConfig, clock: Clock) -> None:
        """Raises `Invalid` if a file can't be used, and `SecurityFolderInUse`."""
        self._clock = clock
        self._node = config.node
        self.folder = SecurityFolder(config.data_folder(config.store))
        self.folder.create()
        self.folder.lock()
        self._operator = LocalCredentials(self.folder, OPERATOR_FOLDER, "operator", admin_token_name(self._node))
        self._gateway: LocalCredentials | None = None
        if config.gateway != OFF and not config.tls_cert:
            name = gateway_token_name(self._node)
            self._gateway = LocalCredentials(self.folder, GATEWAY_FOLDER, TokenRole.GATEWAY.value, name)
        self._operator_token: TokenParts | None = None
        """The token of the operator's credentials, once it is in the catalog."""
        self._gateway_token: TokenParts | None = None
        """The token of the gateway in the process of this node; None without one."""
        self.names = ServerNames()
        """The names in the certificate that the node makes."""
        self._made: Sequence[str] = ()
        self._warnings = ExpiryWarnings()
        self._renewal = OutageLog(
            _log,
            "the certificate of this node can't be renewed: %s",
            "the certificate of this node can be renewed again",
        )
        self._local_renewal = OutageLog(
            _log,
            "the certificates of programs on this host can't be renewed: %s",
            "the certificates of programs on this host can be renewed again",
        )
        self._files = OutageLog(_log, "the files of this node can't be used: %s", "the files of this node can be used")
        self._renew_after = self._request_local_after = 0.0
        self._task: asyncio.Task[None] | None = None
        self._tokens: NodeTokens | None = None
        self._outer_urls: Sequence[str] = ()
        """URLs of this node that other hosts reach, too. Instances on this host that use them get an address by which
        others reach them, and not that of the loopback."""
        self._addresses: tuple[Sequence[str], Sequence[str]] = (), ()
        self.request_certificate: RequestCertificate | None = None
        """Renews the certificate of a node that does not hold the authority's key; None if nothing does."""
        self.on_authority: Callable[[], None] = lambda: None
        """Called when the authority has another certificate."""
        try:
            self.authority, self.certificates = self._prepare(config)
            self.is_new = node_files.prepare_admin_token(self.folder)
            """True if this is the first start with this folder: the admin token was made in it."""
        except BaseException:
            self.folder.unlock()
            raise

    def _prepare(self, config: NodeConfig) -> tuple[RegistryAuthority | ExternalAuthority, NodeCertificates]:
        extra = [(Path(config.tls_client_ca), "tls_client_ca")] if config.tls_client_ca else []
        if config.tls_cert:
            files = ServerFiles(Path(config.tls_cert), Path(config.tls_key), extra)
            certificates = NodeCertificates(files, self.folder.path)
            return ExternalAuthority(certificates), certificates
        self.names = find_server_names(config)
        made = node_files.prepare_files(self.folder, self._node, self.names, self._clock.wall())
        self._made = made.made
        if made.made:
            _log.info("made in %s: %s", self.folder.path, ", ".join(made.made))
        file = self.folder.file
        authorities = [(file(AUTHORITY_CERTIFICATE), "data"), *extra]
        served = ServerFiles(file(NODE_CERTIFICATE), file(NODE_KEY), authorities, "data", "data")
        return RegistryAuthority(made.authority, self._clock.wall), NodeCertificates(served, self.folder.path)

    @property
    def admin_token_file(self) -> Path:
        """The file with the admin token."""
        return self.folder.file(ADMIN_TOKEN)

    def peer_certificates(self) -> NodePeerCertificates:
        """Returns the certificates with which this node calls the other nodes."""
        return NodePeerCertificates(self.certificates, self.authority, self.folder.path)

    def authority_record(self) -> AuthorityRecord:
        """Returns the authority of this node as the catalog records it."""
        return AuthorityRecord(external=True) if self.authority.is_external else AuthorityRecord(self.authority.hash())

    @property
    def replaces_authority(self) -> bool:
        """True if the authority of this node is to replace that of the registry (`adsum init --new-authority`)."""
        return self.folder.read(NEW_AUTHORITY) == self.authority.hash().encode()

    def authority_recorded(self) -> None:
        """Notes that the authority of this node is that of the registry now."""
        self.folder.remove(NEW_AUTHORITY)

    def discard_new_authority(self) -> None:
        """Removes the files of an authority that was made in this start, because the registry has another one."""
        if AUTHORITY_KEY in self._made:
            for name in (AUTHORITY_KEY, AUTHORITY_CERTIFICATE, NODE_CERTIFICATE, NODE_KEY, ADMIN_TOKEN):
                self.folder.remove(name)

    async def start(self, registry: Registry, urls: Sequence[str], xds: Sequence[str]) -> None:
        """Keeps files, certificates and tokens up to date from now on. When it returns, the admin token is valid.

        `urls` are those of the HTTP server, and `xds` the addresses of xDS. The catalog is loaded.
        """
        self._tokens = NodeTokens(registry, self._node, self._clock)
        self._addresses = [urlsplit(url).netloc for url in urls], xds
        self._outer_urls = self.registry_addresses("", ()).urls[:1]
        await self._look()
        self._task = asyncio.create_task(self._run(), name="adsum-node-security")

    async def stop(self) -> None:
        """Stops, and lets other nodes use the folder. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self.folder.unlock()

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(LOOK_INTERVAL)
            try:
                await self.look()
            except Exception:  # Nothing that this node reads from its disk may end the task.
                _log.exception("the security of this node can't be kept up to date")

    async def look(self) -> None:
        """Looks at the files and the clock once, and does what is due. Must not run twice at a time."""
        await self._renew_if_due()
        await self._request_local_certificates()
        await self._look()

    async def _look(self) -> None:
        """Takes over changed files, logs warnings, and declares the tokens of this node."""
        before = self.authority.certificate_pem()
        try:
            admin = await asyncio.to_thread(self._look_at_files)
        except Invalid as error:
            self._files.failed(error)
            admin = None
        else:
            self._files.recovered()
        if self.authority.certificate_pem() != before:
            self.on_authority()
        for warning in self._warnings.due(self.lives(), self._clock.wall()):
            _log.warning("%s", warning)
        if self._tokens is not None:
            await self._tokens.sync(admin, self._certificate_token(), self._gateway_token)
            self._operator_token = admin

    def _look_at_files(self) -> TokenParts | None:
        """Takes over changed files, and makes the admin token if it is missing. Returns it."""
        self.certificates.poll()
        if isinstance(self.authority, RegistryAuthority):
            authority = node_files.load_authority(self.folder)
            known = self.authority.authority
            # The operator may give the key to this node while it runs.
            if authority is not None and (authority.certificate, authority.can_sign) != (
                known.certificate,
                known.can_sign,
            ):
                self.authority.authority = authority
        if node_files.prepare_admin_token(self.folder):
            _log.warning(
                "the admin token was missing: a new one is in %s, the old one is no longer valid", self.admin_token_file
            )
        admin = node_files.read_admin_token(self.folder)
        if self._addresses[0]:
            self._write_local_credentials(admin)
        return admin

    def _write_local_credentials(self, admin: TokenParts | None) -> None:
        """Keeps the credentials of the operator, and those of the gateway in this process."""
        names = ServerNames.of_certificate(self.certificates.served.pair.leaf)
        hosts, xds = ([local_address(one, names) for one in addresses] for addresses in self._addresses)
        urls = list(dict.fromkeys([*(f"https://{host}" for host in hosts), *self._outer_urls]))
        registry = RegistryDescription(
            urls, list(dict.fromkeys(xds)), self.authority.certificate_pem(), self.authority.hash()
        )
        if admin is not None:
            self._operator.write(admin, registry)
            self._keep_certificate(self._operator, admin.id, TokenRole.PLAIN)
        if self._gateway is not None:
            self._gateway_token = self._gateway.keep_token()
            self._gateway.write(self._gateway_token, registry)
            self._keep_certificate(self._gateway, self._gateway_token.id, TokenRole.GATEWAY)

    def _keep_certificate(self, credentials: LocalCredentials, token_id: str, role: TokenRole) -> None:
        """Keeps a certificate for xDS valid, if this node may sign. Elsewhere its holder has it signed."""
        authority = self.authority
        if isinstance(authority, RegistryAuthority):
            credentials.keep_certificate(authority.authority, token_id, role, self._clock.wall())

    def registry_addresses(self, advertised: str, peer_urls: Sequence[str]) -> RegistryAddresses:
        """Returns the addresses at which other hosts reach this node and its peers. `advertised`: "" if none is set."""
        names = ServerNames.of_certificate(self.certificates.served.pair.leaf)
        certified = [*map(str, names.addresses), *names.dns_names]
        urls, xds = self._addresses
        return registry_addresses(
            urls, xds, peer_urls, advertised=advertised, certified=certified, outbound=default_route_address()
        )

    async def _renew_if_due(self) -> None:
        """Renews the certificate from half of its life on, and at once if it lacks a name of this node."""
        if isinstance(self.authority, ExternalAuthority) or self._clock.now() < self._renew_after:
            return
        wall = self._clock.wall()
        pair = self.certificates.served.pair
        has_names = ServerNames.of_certificate(pair.leaf).includes(self.names)
        is_due = not has_names or wall >= certificate_life(pair.leaf, "node").due(RENEW_AT)
        if not is_due or not (self.authority.issues or self.request_certificate is not None):
            return
        self._renew_after = self._clock.now() + RENEWAL_RETRY
        try:
            if self.authority.issues:
                authority = self.authority.authority
                await asyncio.to_thread(node_files.sign_own, self.folder, authority, self._node, self.names, wall)
            elif self.request_certificate is not None:
                async with asyncio.timeout(RENEWAL_TIMEOUT):
                    own, request = self.authority.authority, self.request_certificate
                    await renew_node_by_others(self.folder, own, self._node, self.names, request)
        except AdsumError as error:
            self._renewal.failed(error)
        except TimeoutError:
            self._renewal.failed(f"no node has signed it within {RENEWAL_TIMEOUT:g} s")
        else:
            self._renewal.recovered()
            _log.info("the certificate of this node was renewed")

    async def _request_local_certificates(self) -> None:
        """Gets the certificates of the operator and of the gateway, if this node can't sign them itself."""
        authority, request = self.authority, self.request_certificate
        if request is None or not isinstance(authority, RegistryAuthority) or authority.issues:
            return
        if self._clock.now() < self._request_local_after:
            return
        holders = [(self._operator, self._operator_token), (self._gateway, self._gateway_token)]
        try:
            async with asyncio.timeout(RENEWAL_TIMEOUT):
                for credentials, token in holders:
                    if credentials is not None and token is not None:
                        now = self._clock.wall()
                        await renew_local_by_others(credentials, token, authority.authority, now, request)
        except (AdsumError, TimeoutError) as error:
            self._request_local_after = self._clock.now() + RENEWAL_RETRY
            self._local_renewal.failed(str(error) or f"no node has signed them within {RENEWAL_TIMEOUT:g} s")
        else:
            self._local_renewal.recovered()

    def _certificate_token(self) -> str:
        """Returns the id of the token in the certificate that this node signed for itself; "" if it did not."""
        leaf = self.certificates.served.pair.leaf
        if isinstance(self.authority, ExternalAuthority) or not self.authority.issues:
            return ""
        return token_id_of(leaf) if self.authority.authority.has_signed(leaf) else ""

    def lives(self) -> list[CertificateLife]:
        """Returns the lives of all certificates in use."""
        is_renewed = self.authority.issues or self.request_certificate is not None
        return certificate_lives(self.certificates.served, self.authority, is_renewed=is_renewed)

    def views(self) -> list[wire.CertificateView]:
        """Returns the certificates in use for the status of the node."""
        return [wire.CertificateView(life.name, life.expires, life.is_renewed) for life in self.lives()]

    def metrics(self) -> Iterable[Metric]:
        """Returns the metrics; called at every scrape."""
        return [expiry_metric(self.lives())]
