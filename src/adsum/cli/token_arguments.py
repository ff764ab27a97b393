"""What the commands about tokens and invites share: scopes, lifetimes, and secrets that are printed alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import click

from adsum.cli.arguments import DurationType
from adsum.client.errors import ProtocolViolation
from adsum.core.access.scopes import parse_scopes
from adsum.core.errors import Invalid
from adsum.wire import tokens

MIN_LIFETIME: Final = 1.0
"""Seconds for which a token or an invite is valid, at least."""

TOKEN_LIFETIME: Final = DurationType(MIN_LIFETIME, tokens.MAX_TOKEN_LIFETIME)
"""The type of a lifetime of a token."""
INVITE_LIFETIME: Final = DurationType(MIN_LIFETIME, tokens.MAX_INVITE_LIFETIME)
"""The type of a lifetime of an invite."""
SCOPE_HELP: Final = (
    "RIGHT:PATTERN, such as read:orders, write:team-a-* or operate:*; or admin. May be given several times"
)


def checked_scopes(texts: Sequence[str]) -> list[str]:
    """Returns the scopes. Raises `click.BadParameter`."""
    try:
        return parse_scopes("scope", texts).texts()
    except Invalid as error:
        raise click.BadParameter(error.problem, param_hint="--scope") from None


def checked_secret(parse: Callable[[], str]) -> str:
    """Returns a secret of the registry's answer as it is printed alone. Raises `ProtocolViolation` unless it is one.

    It goes to the terminal in one piece and not escaped, so that it can be copied.
    """
    try:
        return parse()
    except (Invalid, UnicodeError) as error:
        raise ProtocolViolation(f"the registry's answer can't be used: {error}") from None
