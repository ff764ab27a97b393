"""Callers with client certificates: of the registry's own authority, and of others."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from adsum.access import certificate_identity
from adsum.access.certificate_identity import CLOCK_LEEWAY, MAX_CERTIFICATE_BYTES, CertificateIdentities
from adsum.core.access.identity_rules import parse_certificate_rules
from adsum.core.access.scopes import NO_SCOPES
from adsum.core.access.tokens import Token
from adsum.core.errors import Invalid, Unauthenticated
from tests.access.authorities import TestAuthority
from tests.access.tokens import id_of, make_token
from tests.core.access.principals import scopes
from tests.support.fakes import FakeClock

OWN, OTHER = TestAuthority(), TestAuthority("Corporate authority")
IMPOSTOR = TestAuthority()
"""Has the name of the registry's own authority, and another key."""
TOKEN_URI = f"spiffe://adsum/token/{id_of(1)}"
RULES = ("spiffe://corp/ns/*=read:*", "spiffe://corp/ns/team-a/*=write:team-a-*", "CN=gateway-*=read:*")


class Node:
    """The tokens and the verifier of a node."""

    def __init__(self, rules: Sequence[str] = RULES) -> None:
        self.clock = FakeClock()
        self.tokens = {id_of(1): make_token("team-a", 1, "write:a")}
        self.identities = CertificateIdentities(
            self.clock, self._find, authority=OWN.pem, rules=parse_certificate_rules("certificate_scopes", rules)
        )

    def _find(self, id: str) -> Token | None:
        return self.tokens.get(id)

    def refusal(self, certificate: bytes) -> Unauthenticated:
        with pytest.raises(Unauthenticated) as refused:
            self.identities.identify(certificate)
        return refused.value


@pytest.fixture
def node() -> Node:
    return Node()


def test_a_certificate_of_the_own_authority_is_its_token(node: Node) -> None:
    certificate = OWN.issue(TOKEN_URI)
    principal = node.identities.identify(certificate)
    assert (principal.name, principal.scopes, principal.token_id) == ("team-a", scopes("write:a"), id_of(1))
    assert (principal.method, principal.secret_id, principal.is_proven) == ("certificate", "", True)
    assert principal.expires == node.clock.wall() + 3_600.0
    assert node.identities.identify(certificate) is principal


def test_a_revoked_token_revokes_its_certificates_at_once(node: Node) -> None:
    certificate = OWN.issue(TOKEN_URI)
    node.identities.identify(certificate)
    node.tokens = {}
    assert node.refusal(certificate).reason == "wrong-credentials"
    assert node.refusal(OWN.issue(TOKEN_URI)).reason == "wrong-credentials"


def test_changed_scopes_of_the_token_count_at_once(node: Node) -> None:
    certificate = OWN.issue(TOKEN_URI)
    node.identities.identify(certificate)
    node.tokens = {id_of(1): make_token("team-a", 1, "read:b")}
    assert node.identities.identify(certificate).scopes == scopes("read:b")


def test_the_principal_ends_with_the_token_or_the_certificate_whichever_is_earlier(node: Node) -> None:
    now = node.clock.wall()
    node.tokens = {id_of(1): make_token("team-a", 1, expires=now + 60.0)}
    assert node.identities.identify(OWN.issue(TOKEN_URI)).expires == now + 60.0
    node.clock.jump(60.0)
    assert node.refusal(OWN.issue(TOKEN_URI)).reason == "expired"


@pytest.mark.parametrize("authority", [OWN, OTHER])
def test_an_expired_certificate_is_refused_though_it_was_accepted_before(node: Node, authority: TestAuthority) -> None:
    certificate = authority.issue(TOKEN_URI if authority is OWN else "spiffe://corp/ns/x")
    node.identities.identify(certificate)
    node.clock.jump(3_599.0)
    node.identities.identify(certificate)
    node.clock.jump(1.0)
    assert node.refusal(certificate).reason == "expired"


def test_a_certificate_that_is_not_valid_yet_is_refused_beyond_the_difference_of_clocks(node: Node) -> None:
    assert node.identities.identify(OWN.issue(TOKEN_URI, begins=CLOCK_LEEWAY - 1.0)).name == "team-a"
    assert "not valid yet" in str(node.refusal(OWN.issue(TOKEN_URI, begins=CLOCK_LEEWAY + 1.0)))


def test_the_name_of_the_authority_proves_nothing(node: Node) -> None:
    assert IMPOSTOR.certificate.subject == OWN.certificate.subject
    assert node.refusal(IMPOSTOR.issue(TOKEN_URI)).reason == "wrong-credentials"
    principal = node.identities.identify(IMPOSTOR.issue("spiffe://corp/ns/x"))
    assert principal.token_id == ""


@pytest.mark.parametrize("uri", [TOKEN_URI, "spiffe://adsum", "spiffe://adsum/x", "SPIFFE://ADSUM/token/x"])
def test_another_authority_can_not_claim_a_token(node: Node, uri: str) -> None:
    node.identities.configure(rules=parse_certificate_rules("certificate_scopes", ["*=admin"]))
    assert node.refusal(OTHER.issue(uri)).reason == "wrong-credentials"
    assert node.refusal(OTHER.issue("spiffe://corp/ns/x", uri)).reason == "wrong-credentials"


@pytest.mark.parametrize(
    "uris",
    [
        (),
        ("spiffe://adsum/token/",),
        ("spiffe://adsum/token/0123456789abcde",),
        (TOKEN_URI + "0",),
        (TOKEN_URI + "/x",),
        (TOKEN_URI.upper(),),
        (TOKEN_URI, "spiffe://corp/x"),
        ("spiffe://corp/ns/x",),
    ],
)
def test_a_certificate_of_the_own_authority_without_a_token_is_nobody(node: Node, uris: Sequence[str]) -> None:
    assert node.refusal(OWN.issue(*uris)).reason == "wrong-credentials"


def test_the_certificate_of_the_authority_itself_is_nobody(node: Node) -> None:
    certificate = OWN.certificate.public_bytes(Encoding.DER)
    assert node.refusal(certificate).reason == "wrong-credentials"


def test_a_spiffe_id_of_another_authority_gets_the_scopes_of_all_rules_that_match(node: Node) -> None:
    principal = node.identities.identify(OTHER.issue("spiffe://corp/ns/team-a/sa/web", common_names=("gateway-1",)))
    assert principal.name == "spiffe://corp/ns/team-a/sa/web"
    assert principal.scopes == scopes("read:*", "write:team-a-*")
    assert (principal.method, principal.is_proven, principal.token_id) == ("certificate", True, "")


def test_without_a_spiffe_id_the_common_name_is_the_identity(node: Node) -> None:
    principal = node.identities.identify(OTHER.issue("https://corp/x", common_names=("gateway-1",)))
    assert (principal.name, principal.scopes) == ("CN=gateway-1", scopes("read:*"))


def test_an_identity_that_no_rule_concerns_has_no_scopes(node: Node) -> None:
    assert node.identities.identify(OTHER.issue("spiffe://other/x", common_names=("gateway-1",))).scopes == NO_SCOPES
    assert node.identities.identify(OTHER.issue(common_names=("team-a",))).name == "CN=team-a"


@pytest.mark.parametrize("common_names", [(), ("a", "b"), ("a\nb",), ("\u202eb",)])
def test_a_certificate_without_a_clear_name_is_refused(node: Node, common_names: Sequence[str]) -> None:
    node.refusal(OTHER.issue(common_names=common_names))


def test_several_uris_with_a_spiffe_id_are_refused(node: Node) -> None:
    assert node.refusal(OTHER.issue("spiffe://corp/ns/a", "spiffe://corp/ns/b")).reason == "malformed"
    assert node.refusal(OTHER.issue("https://x", "spiffe://corp/ns/b")).reason == "malformed"


def test_other_rules_and_authorities_count_at_once(node: Node) -> None:
    external, own = OTHER.issue("spiffe://corp/ns/x"), OWN.issue(TOKEN_URI)
    assert node.identities.identify(external).scopes == scopes("read:*")
    node.identities.identify(own)
    node.identities.configure(rules=())
    assert node.identities.identify(external).scopes == NO_SCOPES
    assert node.identities.identify(own).name == "team-a"
    node.identities.configure(authority=b"")
    assert node.refusal(own).reason == "wrong-credentials"
    node.identities.configure(authority=OTHER.pem + OWN.pem)
    assert node.identities.identify(own).name == "team-a"
    with pytest.raises(Invalid, match="PEM"):
        node.identities.configure(authority=b"no certificate")


def test_bytes_that_are_no_certificate_are_refused(node: Node) -> None:
    rng, intact = random.Random(5), OTHER.issue("spiffe://corp/ns/x")
    for _ in range(500):
        flipped = bytearray(intact)
        for _ in range(rng.randint(1, 4)):
            flipped[rng.randrange(len(flipped))] = rng.randrange(256)
        try:
            node.identities.identify(bytes(flipped))
        except Unauthenticated as error:
            known = error.reason
        else:
            known = "expired"
        assert known in ("malformed", "expired", "wrong-credentials")
    for length in range(0, len(intact), 7):
        assert node.refusal(intact[:length]).reason == "malformed"
    assert node.refusal(intact + bytes(MAX_CERTIFICATE_BYTES)).reason == "malformed"


def test_the_cache_is_bounded(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate_identity, "MAX_CACHED_CERTIFICATES", 2)
    certificates = [OTHER.issue(f"spiffe://corp/ns/{number}") for number in range(3)]
    first, second, third = (node.identities.identify(certificate) for certificate in certificates)
    assert node.identities.identify(certificates[1]) is second
    assert node.identities.identify(certificates[2]) is third
    again = node.identities.identify(certificates[0])
    assert again is not first
    assert again == first


def test_a_token_that_is_replaced_by_an_equal_one_stays(node: Node) -> None:
    certificate = OWN.issue(TOKEN_URI)
    before = node.identities.identify(certificate)
    node.tokens = {id_of(1): replace(node.tokens[id_of(1)], used=86_400.0)}
    assert node.identities.identify(certificate) == before
