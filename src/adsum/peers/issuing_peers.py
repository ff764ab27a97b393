"""Sends requests about joining and certificates to a node that has the key of the registry's authority."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final, NamedTuple

from adsum import wire
from adsum.client.credentials.client_credentials import AUTHORIZATION, ClientCredentials
from adsum.client.credentials.folder import RegistryCredentials
from adsum.client.errors import NodeNotConnected, NodeNotTrusted, NodeUnreachable
from adsum.client.native.access_api import AccessApi
from adsum.client.native.request_sender import API_PATH, RequestSender
from adsum.core.errors import AdsumError
from adsum.core.nodes.sharding import Peer
from adsum.peers.peer_clients import PeerClients, PeerNotSecure

FORWARD_TIMEOUT: Final = 3.0
"""Seconds that a node has to answer a forwarded request. Then the caller gets an error."""

_DECLINED: Final = frozenset({421, 429, 500, 502, 503, 504})
"""Statuses by which a node declines a forwarded request, for example because it lacks the key as well."""


class NoIssuingNode(AdsumError):
    """No node that has the key of the authority can be reached."""


class ForwardedReply(NamedTuple):
    """The answer of another node, to be passed on as it is."""

    status: int
    body: bytes
    content_type: str

    def __repr__(self) -> str:
        return f"ForwardedReply({self.status})"  # Without the body: the token of a joiner must not reach a log.


class NewCertificate(NamedTuple):
    """A certificate that another node has signed: a chain, and the certificate of the authority, both as PEM."""

    chain: bytes
    authority: bytes


class IssuingPeers:
    """The nodes among the peers of this one that have the key of the registry's authority."""

    def __init__(self, peers: Callable[[], Sequence[Peer]], clients: PeerClients, rng: Random, node: str) -> None:
        """`peers` returns the living other nodes. `node` is the name of this one."""
        self._peers = peers
        self._clients = clients
        self._rng = rng
        self._node = node
        self._latest = ""
        """The id of the node that answered last, which is tried first."""

    async def forward(self, path: str, body: bytes, authorization: str, address: str) -> ForwardedReply:
        """Forwards a POST of a caller at `address` to an issuing node. `path` is below the base of the API.

        `authorization` is the header by which the caller proves who it is; "" without one. The receiver does not
        forward the request again. Raises `NoIssuingNode`.
        """
        headers = {
            wire.FORWARDED_BY_HEADER: self._node,
            wire.FORWARDED_FOR_HEADER: address,
            "Content-Type": "application/json",
            **({AUTHORIZATION: authorization} if authorization else {}),
        }
        problems = []
        for peer in self._in_order():
            try:
                # A used connection may have been cut off unnoticed, and a join must not be sent twice.
                reply = await self._clients.api(peer).transport.request(
                    "POST",
                    peer.url + API_PATH + path,
                    body=body,
                    headers=headers,
                    timeout=FORWARD_TIMEOUT,
                    fresh=True,
                )
            except (NodeNotConnected, NodeNotTrusted, PeerNotSecure) as error:
                problems.append(f"{peer.name}: {error}")
                continue
            except NodeUnreachable as error:
                raise NoIssuingNode(f"{peer.name} did not answer, and may have served the request: {error}") from None
            if reply.status not in _DECLINED:
                self._latest = peer.id
                return ForwardedReply(reply.status, reply.body, reply.headers.get("content-type", "application/json"))
            problems.append(f"{peer.name}: it declined with status {reply.status}")
        raise NoIssuingNode("; ".join(problems) or "this node knows no other one")

    async def request_certificate(self, request: bytes, token: str, authority: bytes, hash: str) -> NewCertificate:
        """Returns a new certificate for this node, proved by its token.

        It works when the certificates of this node, and of the authority, have expired: another certificate of the
        authority is accepted if its public key has the hash. Raises `AdsumError`.
        """
        urls = [peer.url for peer in self._in_order() if peer.url.startswith("https://")]
        if not urls:
            raise NoIssuingNode("no other node that serves TLS is there to sign it")
        known = RegistryCredentials(tuple(urls), authority=authority.decode(), authority_hash=hash, token=token)
        credentials = ClientCredentials(known)
        sender = RequestSender(urls, rng=self._rng, credentials=credentials)
        try:
            result = await AccessApi(sender).renew_certificate(request.decode())
        finally:
            await sender.close()
        return NewCertificate(result.certificate.encode(), credentials.authority.encode())

    def _in_order(self) -> list[Peer]:
        return sorted(self._peers(), key=lambda peer: (peer.id != self._latest, peer.name, peer.id))
