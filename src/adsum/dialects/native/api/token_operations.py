"""The part of the table of operations about tokens, invites, and hosts that join."""

from __future__ import annotations

from typing import Final

from adsum import wire
from adsum.core.access.actions import Action
from adsum.dialects.native.api.operation import BASE, ApiOperation
from adsum.dialects.native.api.parameters import REASON_PARAMETER
from adsum.wire import tokens

_TOKENS: Final = f"{BASE}/tokens"
_TOKEN: Final = f"{_TOKENS}/{{token}}"
_INVITES: Final = f"{BASE}/invites"

TOKEN_OPERATIONS: Final = (
    ApiOperation(
        "list_tokens",
        "GET",
        _TOKENS,
        Action.MANAGE_TOKENS,
        "List all tokens, by name, without their secrets",
        {200: tokens.TokenList},
        (503,),
    ),
    ApiOperation(
        "create_token",
        "POST",
        _TOKENS,
        Action.MANAGE_TOKENS,
        "Create a token",
        {201: tokens.IssuedToken},
        (409, 422, 503, 507),
        body=tokens.TokenBody,
        description="The response is the only place that shows the token: the registry keeps a hash of it. A token "
        "gets no scope that its creator lacks. The token `anonymous` has no secret: its scopes are those of callers "
        "that prove nothing, in place of the default ones. The token `etcd-naming` has no secret either: its scopes "
        "limit which services keys in etcd list and show. Creating one of these two again replaces its scopes.",
    ),
    ApiOperation(
        "read_token",
        "GET",
        _TOKEN,
        Action.MANAGE_TOKENS,
        "Read a token, without its secrets",
        {200: tokens.TokenView},
        (404, 422, 503),
    ),
    ApiOperation(
        "rotate_token",
        "POST",
        f"{_TOKEN}/rotate",
        Action.MANAGE_TOKENS,
        "Give a token a new secret",
        {200: tokens.IssuedToken},
        (404, 422, 503),
        body=tokens.RotateBody,
        description="The older secrets stay valid for `overlap` seconds; with 0 they end at once, and so do the "
        "streams of the token. Name, scopes and expiry stay.",
    ),
    ApiOperation(
        "revoke_token",
        "DELETE",
        _TOKEN,
        Action.MANAGE_TOKENS,
        "Revoke a token: its streams end, and its certificate is no longer accepted",
        {200: wire.WriteResult},
        (422, 503),
        (REASON_PARAMETER,),
        description="Idempotent: succeeds if there is no such token. What the token registered stays listed until its "
        "leases expire. The tokens that a node makes, `admin@NODE` and `node@NODE`, come back by themselves, so the "
        "last token with the scope admin may be revoked. To change the secret of `admin@NODE`, remove the file "
        "`security/admin-token` in the data folder of the node.",
    ),
    ApiOperation(
        "list_invites",
        "GET",
        _INVITES,
        Action.MANAGE_TOKENS,
        "List all invites, without their secrets",
        {200: tokens.InviteList},
        (503,),
    ),
    ApiOperation(
        "create_invite",
        "POST",
        _INVITES,
        Action.MANAGE_TOKENS,
        "Create an invite: the line with which a host joins the registry",
        {201: tokens.IssuedInvite},
        (409, 422, 503, 507),
        body=tokens.InviteBody,
        description="The response is the only place that shows the line. An invite of a gateway or a node joins one "
        "host. It gives no scope that its creator lacks. Refused with 409 if the registry has no authority: there is "
        "nothing by which a joiner could recognize it.",
    ),
    ApiOperation(
        "revoke_invite",
        "DELETE",
        f"{_INVITES}/{{invite}}",
        Action.MANAGE_TOKENS,
        "Revoke an invite; hosts that joined by it stay",
        {200: wire.WriteResult},
        (422, 503),
        (REASON_PARAMETER,),
        description="Idempotent: succeeds if there is no such invite.",
    ),
    ApiOperation(
        "join",
        "POST",
        f"{BASE}/join",
        Action.JOIN,
        "Join the registry by an invite: get a token, and a certificate",
        {201: tokens.JoinResult},
        (401, 409, 422, 503, 507),
        body=tokens.JoinBody,
        description="Needs no token: the secret of the invite is the proof. A certificate is signed by a node that has "
        "the key of the authority.",
    ),
    ApiOperation(
        "certify",
        "POST",
        f"{BASE}/certificate",
        Action.CERTIFY,
        "Get a new certificate for the token of the caller",
        {200: tokens.CertificateResult},
        (409, 422, 503),
        body=tokens.CertificateBody,
        description="The token must be sent: a certificate can't renew itself. So the certificate may have expired.",
    ),
    ApiOperation(
        "read_authority",
        "GET",
        f"{BASE}/authority",
        Action.JOIN,
        "Read the certificate of the registry's authority",
        {200: tokens.AuthorityView},
        description="`certificate` is empty if the registry has no authority. Compare the hash of its public key with "
        "a known one before you trust it.",
        needs_no_catalog=True,
    ),
    ApiOperation(
        "read_caller",
        "GET",
        f"{BASE}/caller",
        Action.IDENTIFY,
        "Read who the registry takes the caller for",
        {200: tokens.CallerView},
        (503,),
    ),
)
