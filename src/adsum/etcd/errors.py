"""The errors of calls to etcd."""

from __future__ import annotations


class EtcdError(Exception):
    """The base of all errors of etcd. Its text is a sentence for people."""


class EtcdUnreachable(EtcdError):
    """No member answers in time, or the member has no leader. Another attempt may succeed.

    A write may have been applied.
    """


class EtcdRefused(EtcdError):
    """etcd refuses the call: credentials, permissions, certificates, a quota, or an invalid request."""


class RevisionCompacted(EtcdError):
    """The requested revision is compacted: load everything anew."""


class LeaseGone(EtcdError):
    """The lease expired or was revoked."""
