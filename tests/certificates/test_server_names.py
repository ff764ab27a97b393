"""The names in the certificate of a node."""

from __future__ import annotations

import ipaddress
from contextlib import suppress

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from adsum.certificates.authority import Authority
from adsum.certificates.host_addresses import default_route_address, find_addresses, parse_fib_trie, parse_if_inet6
from adsum.certificates.requests import MAX_REQUEST_NAMES, create_request, new_key, parse_request
from adsum.certificates.server_names import LOCAL_NAMES, ServerNames, find_host_names, parse_address, server_names
from adsum.core.access.tokens import TokenRole
from adsum.core.errors import Invalid

KEY = new_key()
DNS_NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?(\.[a-z]([a-z0-9-]{0,10}[a-z0-9])?){0,3}", fullmatch=True)
HOSTS = st.one_of(
    st.ip_addresses(v=4).filter(lambda one: not (one.is_unspecified or one.is_multicast)).map(str),
    st.ip_addresses(v=6).filter(lambda one: not (one.is_unspecified or one.is_multicast)).map(str),
    DNS_NAMES,
)


@given(st.lists(HOSTS, max_size=20))
def test_names_survive_a_request_and_a_certificate(hosts: list[str]) -> None:
    names = ServerNames.of(hosts)
    request = create_request(KEY, "n1", names.dns_names, names.addresses)
    parsed = parse_request(request)
    assert ServerNames(parsed.dns_names, parsed.addresses) == names
    authority = Authority.create(1e9)
    chain = authority.sign(request, name="n1", token_id="0" * 16, role=TokenRole.NODE, now=1e9)
    certificate = Authority.load(authority.certificate_pem()).certificate
    assert ServerNames.of_certificate(certificate) == ServerNames()
    assert ServerNames.of_certificate(x509.load_pem_x509_certificate(chain)) == names


@given(st.lists(HOSTS, max_size=20), st.randoms())
def test_order_case_and_repetition_do_not_matter(hosts: list[str], rng: object) -> None:
    shuffled = [*hosts, *hosts, *(host.upper() for host in hosts)]
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert ServerNames.of(shuffled) == ServerNames.of(hosts)


@given(st.text(max_size=40))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    with suppress(Invalid):
        names = ServerNames.of([text])
        assert len(names.texts()) == 1
        create_request(KEY, "n1", names.dns_names, names.addresses)


@pytest.mark.parametrize("name", ["", "*", "*.example.com", "a b", "0.0.0.0", "[::]", "224.0.0.1", "1.2.3", "a" * 300])
def test_a_pattern_or_an_address_of_no_host_is_refused(name: str) -> None:
    with pytest.raises(Invalid):
        ServerNames.of([name])


def test_an_address_may_stand_in_brackets() -> None:
    assert ServerNames.of(["[fd00::1]"]) == ServerNames.of(["fd00::1"])
    assert parse_address("[fd00::1") is None


def test_found_addresses_are_those_that_others_reach_and_loopback() -> None:
    found = ["127.0.0.1", "127.0.0.2", "169.254.0.1", "fe80::1", "10.0.0.5", "fd00::5", "10.0.0.5", "no address"]
    names = server_names(["registry.example"], ["box"], found)
    assert names.texts() == ["box", "localhost", "registry.example", "10.0.0.5", "127.0.0.1", "::1", "fd00::5"]


def test_a_host_with_many_addresses_gets_the_first_ones_and_all_that_are_named() -> None:
    found = [f"10.0.{n // 250}.{n % 250 + 1}" for n in range(500)]
    names = server_names(["10.9.9.9"], ["box"], found)
    assert ipaddress.IPv4Address("10.9.9.9") in names.addresses
    assert len(names.texts()) <= MAX_REQUEST_NAMES
    with pytest.raises(Invalid, match="at most"):
        server_names([f"n{n}" for n in range(MAX_REQUEST_NAMES)], ["box"], [])


def test_names_include_fewer_names() -> None:
    names = ServerNames.of(["a", "10.0.0.1"])
    assert names.includes(ServerNames.of(["a"]))
    assert not ServerNames.of(["a"]).includes(names)


def test_this_host_has_names_and_addresses() -> None:
    assert set(LOCAL_NAMES) <= set(server_names([], find_host_names(), find_addresses()).texts())
    assert "127.0.0.1" in find_addresses()
    assert default_route_address() in ("", *find_addresses())


def test_linux_lists_own_ipv4_addresses_as_local_hosts() -> None:
    text = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
           |-- 127.0.0.1
              /32 host LOCAL
           |-- 10.0.0.255
              /32 link BROADCAST
           |-- 10.0.0.5
              /32 host LOCAL
Local:
           |-- 10.0.0.5
              /32 host LOCAL
           |-- ???
              /32 host LOCAL
"""
    assert parse_fib_trie(text) == ["127.0.0.1", "10.0.0.5"]


def test_linux_lists_own_ipv6_addresses_in_hex() -> None:
    text = (
        "fd000000000000000000000000000002 04 40 00 82     eth0\nzz\n00000000000000000000000000000001 01 80 10 80 lo\n"
    )
    assert parse_if_inet6(text) == ["fd00::2", "::1"]


@given(st.text(max_size=200))
def test_no_text_breaks_the_lists_of_addresses(text: str) -> None:
    for address in [*parse_fib_trie(text), *parse_if_inet6(text)]:
        ipaddress.ip_address(address)
