"""Ownership: who may change an instance that another caller registered. Pure."""

from __future__ import annotations

from adsum.core.access.principal import Principal
from adsum.core.access.scopes import Right
from adsum.core.errors import NotOwner
from adsum.core.model import Listing


def may_change(principal: Principal, listing: Listing) -> bool:
    """Returns whether the principal may change the instance.

    It may if it registered the instance, or has the right to operate the service. An instance without an owner was
    registered by a caller that proved nothing: whoever may write the service may change it.
    """
    owner, service = listing.owner, listing.key.service
    scopes = principal.scopes
    if scopes.can(Right.OPERATE, service):
        return True
    return (not owner or owner == principal.owner) and scopes.can(Right.WRITE, service)


def require_change(principal: Principal, listing: Listing) -> None:
    """Returns if the principal may change the instance. Raises `NotOwner`."""
    if not may_change(principal, listing):
        raise NotOwner(*listing.key, principal.name)
