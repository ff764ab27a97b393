from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.core.address_policy import ALWAYS_DENIED, AddressPolicy
from adsum.core.addresses import is_ipv4_address
from adsum.core.errors import Invalid

FORBIDDEN = [
    "169.254.169.254",
    "169.254.0.1",
    "0.0.0.0",
    "0.1.2.3",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
]
FORBIDDEN_V6 = ["::", "fe80::1", "fe80::1%2", "fd00:ec2::254", "fd20:ce::254", "ff02::1"]
FORMS = [
    "::ffff:{}",  # mapped
    "::{}",  # compatible
    "64:ff9b::{}",  # NAT64, well-known
    "64:ff9b:1::{}",  # NAT64, local
    "::ffff:0:{}",  # SIIT
    "2001:db8::5efe:{}",  # ISATAP
    "2001:db8::200:5efe:{}",  # ISATAP of a public address
]


def sixtofour(ip: str) -> str:
    return str(IPv6Address(0x2002 << 112 | int(IPv4Address(ip)) << 80))


@pytest.mark.parametrize("ip", [*FORBIDDEN, *FORBIDDEN_V6])
def test_addresses_that_are_never_an_instance_are_denied_with_a_sentence(ip: str) -> None:
    reason = AddressPolicy().denial_reason(ip)
    assert reason is not None
    assert reason.startswith(f"{ip} ")


def test_the_denial_of_the_cloud_metadata_address_gives_the_reason() -> None:
    assert AddressPolicy().denial_reason("169.254.169.254") == (
        "169.254.169.254 is link-local, where clouds keep their instances' credentials"
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ip", FORBIDDEN)
def test_a_denied_address_is_denied_in_its_ipv6_forms(ip: str, form: str) -> None:
    assert AddressPolicy().denial_reason(form.format(ip)) is not None
    assert AddressPolicy().denial_reason(sixtofour(ip)) is not None


def test_the_denial_of_a_translated_address_names_the_embedded_one() -> None:
    assert "stands for 169.254.169.254" in (AddressPolicy().denial_reason("64:ff9b::169.254.169.254") or "")
    assert "stands for 169.254.169.254" in (AddressPolicy().denial_reason("2002:a9fe:a9fe::") or "")


@pytest.mark.parametrize(
    "ip", ["127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "100.64.0.7", "8.8.8.8", "fd12::1", "2a00::1", "192.0.2.1"]
)
def test_usual_addresses_of_instances_are_allowed_loopback_included(ip: str) -> None:
    assert AddressPolicy().denial_reason(ip) is None


@pytest.mark.parametrize("ip", ["::ffff:10.0.0.1", "64:ff9b::8.8.8.8"])
def test_an_ipv6_form_of_an_allowed_address_is_allowed(ip: str) -> None:
    assert AddressPolicy().denial_reason(ip) is None


@pytest.mark.parametrize("ip", ["127.0.0.1", "127.9.9.9", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1", "::1"])
def test_loopback_can_be_denied(ip: str) -> None:
    assert AddressPolicy(denied=("127.0.0.0/8", "::1")).denial_reason(ip) is not None


def test_if_networks_are_allowed_all_others_are_denied() -> None:
    policy = AddressPolicy(allowed=("10.0.0.0/8", "fd00::/8"))
    assert policy.denial_reason("10.1.2.3") is None
    assert policy.denial_reason("::ffff:10.1.2.3") is None
    assert policy.denial_reason("fd00::1") is None
    assert policy.denial_reason("127.0.0.1") == "127.0.0.1 is not in the networks that checks may go to"


def test_denied_addresses_stay_denied_in_allowed_networks() -> None:
    policy = AddressPolicy(denied=("10.9.0.0/16",), allowed=("0.0.0.0/0", "::/0"))
    assert policy.denial_reason("10.9.0.1") == "10.9.0.1 is in a network that checks may not go to"
    assert policy.denial_reason("169.254.169.254") is not None


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0.1/8", "localhost", "", "10.0.0.0-10.0.0.9", "x" * 5000])
def test_the_error_of_a_bad_network_names_its_position(text: str) -> None:
    with pytest.raises(Invalid, match="must be a network such as") as caught:
        AddressPolicy(denied=("10.0.0.0/8", text))
    assert caught.value.field == "denied[1]"
    with pytest.raises(Invalid) as caught:
        AddressPolicy(allowed=(text,))
    assert caught.value.field == "allowed[0]"
    assert len(str(caught.value)) < 300


def test_a_network_of_mapped_addresses_is_refused_instead_of_never_matching() -> None:
    with pytest.raises(Invalid, match="must be written as an IPv4 network"):
        AddressPolicy(denied=("::ffff:10.0.0.0/104",))


@pytest.mark.parametrize("text", ["localhost", "", "127.1", "0x7f.0.0.1", "10.0.0.1:80", "[::1]", "2130706433"])
def test_text_that_is_no_ip_address_is_denied(text: str) -> None:
    assert "is not an IP address" in (AddressPolicy().denial_reason(text) or "")


@given(st.ip_addresses(v=4))
def test_a_mapped_address_is_treated_as_its_ipv4_address(address: IPv4Address) -> None:
    policy = AddressPolicy(denied=("10.0.0.0/8",))
    assert (policy.denial_reason(str(address)) is None) == (policy.denial_reason(f"::ffff:{address}") is None)


@given(st.ip_addresses())
def test_no_always_denied_address_is_allowed(address: IPv4Address | IPv6Address) -> None:
    if any(address in network for network, _ in ALWAYS_DENIED) or address.is_multicast or address.is_link_local:
        assert AddressPolicy(allowed=("0.0.0.0/0", "::/0")).denial_reason(str(address)) is not None


@given(st.text(max_size=50))
def test_any_text_has_a_result(text: str) -> None:
    reason = AddressPolicy().denial_reason(text)
    if reason is None:
        ip_address(text)


EDGES = [edge for network, _ in ALWAYS_DENIED if network.version == 4 for edge in (network[0], network[-1])]
"""The first and the last address of each IPv4 network that is always denied."""

ipv4_networks = st.builds(
    lambda number, bits: str(ip_network((number, bits), strict=False)), st.integers(0, 2**32 - 1), st.integers(0, 32)
)
ipv4_numbers = st.integers(0, 2**32 - 1) | st.builds(
    lambda edge, step: (int(edge) + step) % 2**32, st.sampled_from(EDGES), st.sampled_from([-1, 0, 1])
)


def reason_by_networks(policy: AddressPolicy, address: IPv4Address) -> str | None:
    """The reason by the definition of the policy, with the networks of the standard library."""
    if policy.allowed and not any(address in ip_network(text) for text in policy.allowed):
        return f"{address} is not in the networks that checks may go to"
    for network, reason in ALWAYS_DENIED:
        if address in network:
            return f"{address} {reason}"
    denied = any(address in ip_network(text) for text in policy.denied)
    return f"{address} is in a network that checks may not go to" if denied else None


@given(st.data(), st.lists(ipv4_networks, max_size=4), st.lists(ipv4_networks, max_size=3))
def test_an_ipv4_address_is_denied_by_the_networks_that_contain_it(
    data: st.DataObject, denied: list[str], allowed: list[str]
) -> None:
    policy = AddressPolicy((*denied, "fd00::/8"), (*allowed, *(("fd00::/8",) if allowed else ())))
    given_networks = [ip_network(text) for text in (*denied, *allowed)]
    ends = [int(end) + step for network in given_networks for end in (network[0], network[-1]) for step in (-1, 0, 1)]
    for number in data.draw(st.lists(ipv4_numbers, min_size=1, max_size=8)) + ends:
        address = IPv4Address(number % 2**32)
        assert policy.denial_reason(str(address)) == reason_by_networks(policy, address)


@given(
    st.text("0123456789.", max_size=16) | st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){3}\n?", fullmatch=True) | st.text()
)
def test_an_ipv4_address_is_a_text_that_the_standard_library_reads_as_one(text: str) -> None:
    try:
        IPv4Address(text)
    except ValueError:
        assert not is_ipv4_address(text)
    else:
        assert is_ipv4_address(text)
