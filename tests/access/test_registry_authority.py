"""The record of the registry's authority, and the nodes that it keeps out."""

from __future__ import annotations

import pytest

from adsum.access.registry_authority import (
    AUTHORITY_KEY,
    AnotherAuthority,
    AuthorityRecord,
    claim_authority,
    find_authority,
    require_no_authority,
    require_same_scheme,
)
from adsum.core.catalog import declarations
from adsum.core.catalog.changes import Batch
from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.declarations import Declaration
from adsum.core.catalog.documents import ACCESS_KINDS, DocumentKey, DocumentKind
from adsum.core.catalog.snapshots import EMPTY_SNAPSHOT, Snapshot
from adsum.core.errors import CatalogFull, Invalid
from adsum.core.nodes.sharding import Peer

ANN = Caller("ann", 100.0)
FIRST, SECOND, EXTERNAL = AuthorityRecord("a" * 64), AuthorityRecord("b" * 64), AuthorityRecord(external=True)


def _after(start: Snapshot, declaration: Declaration) -> Snapshot:
    return start.apply(Batch(start.revision + 1, [], declaration(start)))


CLAIMED = _after(EMPTY_SNAPSHOT, claim_authority(FIRST, ANN))


def test_the_first_node_records_its_authority_and_its_next_start_changes_nothing() -> None:
    assert find_authority(EMPTY_SNAPSHOT.documents) is None
    assert find_authority(CLAIMED.documents) == FIRST
    assert claim_authority(FIRST, ANN)(CLAIMED) == []
    assert AUTHORITY_KEY.kind in ACCESS_KINDS, "it is no route, and its history is for administrators"


@pytest.mark.parametrize("other", [SECOND, EXTERNAL])
def test_a_node_with_another_authority_is_refused(other: AuthorityRecord) -> None:
    with pytest.raises(AnotherAuthority) as caught:
        claim_authority(other, ANN)(CLAIMED)
    assert "the registry has the authority with the hash aaaaaaaaaaaaaaaa…" in str(caught.value)


def test_of_two_nodes_that_claim_at_the_same_time_the_second_is_refused() -> None:
    both = claim_authority(FIRST, ANN), claim_authority(SECOND, ANN)
    snapshot = _after(EMPTY_SNAPSHOT, both[0])
    with pytest.raises(AnotherAuthority):
        both[1](snapshot)


def test_nodes_with_certificates_of_the_operator_agree() -> None:
    snapshot = _after(EMPTY_SNAPSHOT, claim_authority(EXTERNAL, ANN))
    assert claim_authority(EXTERNAL, ANN)(snapshot) == []
    with pytest.raises(AnotherAuthority, match="of the operator's own certificates, not with the hash"):
        claim_authority(FIRST, ANN)(snapshot)


def test_an_authority_may_be_replaced_where_no_other_node_can_be() -> None:
    snapshot = _after(CLAIMED, claim_authority(SECOND, ANN, replaces=True))
    assert find_authority(snapshot.documents) == SECOND


def test_there_is_one_record() -> None:
    key = DocumentKey(DocumentKind.AUTHORITY, "another")
    with pytest.raises(CatalogFull):
        declarations.declare(key, b"{}", ANN)(CLAIMED)


def test_a_record_of_a_later_version_is_one_of_another_authority() -> None:
    later = _after(EMPTY_SNAPSHOT, declarations.declare(AUTHORITY_KEY, b'{"hash": 7}', ANN))
    assert find_authority(later.documents) == AuthorityRecord()
    with pytest.raises(AnotherAuthority, match="that a later version has recorded"):
        claim_authority(FIRST, ANN)(later)


def test_an_open_node_is_refused_by_the_record() -> None:
    require_no_authority(EMPTY_SNAPSHOT.documents)
    with pytest.raises(Invalid, match="adsum token invite --for node") as caught:
        require_no_authority(CLAIMED.documents)
    assert caught.value.field == "secure"


SECURE, OPEN, SILENT = Peer("1", "n1", "https://10.0.0.1:1"), Peer("2", "n2", "http://10.0.0.2:1"), Peer("3", "n3")


def test_living_nodes_serve_all_with_tls_or_all_without() -> None:
    require_same_scheme([SECURE, SILENT], serves_tls=True)
    require_same_scheme([OPEN, SILENT], serves_tls=False)
    with pytest.raises(Invalid, match=r"while n2 at http://10\.0\.0\.2:1 serves without TLS.*stop all nodes"):
        require_same_scheme([SECURE, OPEN], serves_tls=True)
    with pytest.raises(Invalid, match=r"since n1 at https://10\.0\.0\.1:1 serves TLS: join"):
        require_same_scheme([OPEN, SECURE], serves_tls=False)
