"""Every way in which etcd says no."""

from __future__ import annotations


class EtcdError(Exception):
    """The base of the others; a sentence for people."""


class EtcdUnreachable(EtcdError):
    """Nobody answers in time, or who answers has no leader. A write may have been done nevertheless; try again."""


class EtcdRefused(EtcdError):
    """It answers, and says no: credentials, permissions, certificates, a quota, a request that it can't take."""


class RevisionCompacted(EtcdError):
    """The revision asked for is not kept any more: load everything anew."""


class LeaseGone(EtcdError):
    """The lease expired or was revoked."""
