"""The URL that a node over etcd advertises to the others."""

from __future__ import annotations

from random import Random

import pytest

from adsum.client.local_address import LOOPBACK
from adsum.config.serve import ServeConfig
from adsum.core.errors import Invalid
from adsum.etcd.address import EtcdAddress
from adsum.etcd.client import EtcdClient
from adsum.etcd.errors import EtcdUnreachable
from adsum.etcd.values import Member
from adsum.peers import advertised_url


def _config(listen: str, store: str, advertise: str = "") -> ServeConfig:
    return ServeConfig(listen=listen, store=store, advertise=advertise, xds="off", node="n1")


@pytest.mark.parametrize("listen", ["127.0.0.1:23786", "localhost:23786", "[::1]:23786"])
@pytest.mark.parametrize("hosts", ["10.0.0.1:2379", "etcd", "127.0.0.1:2379,10.0.0.2:2379"])
def test_a_loopback_address_is_refused_where_etcd_is_on_other_hosts(listen: str, hosts: str) -> None:
    with pytest.raises(Invalid, match="must be an address that nodes on other hosts reach") as refused:
        _config(listen, f"etcd://{hosts}")
    assert refused.value.field == "listen"
    assert f"--advertise http://{listen}" in str(refused.value)
    _config(listen, f"etcd://{hosts}", advertise="http://127.0.0.1:23786")


@pytest.mark.parametrize(
    ("listen", "store"),
    [
        ("127.0.0.1:23786", "etcd://127.0.0.1"),
        ("127.0.0.1:23786", "etcd://localhost:2379,[::1]:2379"),
        ("10.0.0.5:23786", "etcd://10.0.0.1"),
        ("10.0.0.5:23786", "etcd://127.0.0.1"),
        ("0.0.0.0:23786", "etcd://10.0.0.1"),
        ("[::]:23786", "etcd://etcd:2379"),
        ("127.0.0.1:23786", "sqlite:////x.db"),
    ],
)
def test_other_listen_addresses_are_accepted(listen: str, store: str) -> None:
    _config(listen, store)


@pytest.mark.parametrize("listen", ["0.0.0.0:23786", "[::]:23786"])
def test_a_node_on_every_address_must_advertise_one_where_etcd_is_on_this_host(listen: str) -> None:
    with pytest.raises(Invalid, match="must say where other nodes reach this one"):
        _config(listen, "etcd://127.0.0.1:2379")


async def test_a_node_on_one_address_advertises_it() -> None:
    url = "http://10.0.0.5:23786"
    assert await advertised_url.resolve_advertised_url(url, EtcdAddress.parse("etcd://10.0.0.1"), Random()) == url


@pytest.mark.parametrize(
    ("address", "url"), [("10.0.0.7", "http://10.0.0.7:23786"), ("fd00::7", "http://[fd00::7]:23786")]
)
async def test_a_node_on_every_address_advertises_the_one_that_faces_etcd(
    address: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "adsum.client.local_address.outbound_address", lambda peer: LOOPBACK if peer[0] == "127.0.0.1" else address
    )
    etcd = EtcdAddress.parse("etcd://127.0.0.1:2379,10.0.0.1:2381")
    assert await advertised_url.resolve_advertised_url("http://0.0.0.0:23786", etcd, Random()) == url


@pytest.mark.parametrize(
    ("host", "words"),
    [("no-such-host.invalid", "no route to no-such-host.invalid"), ("127.0.0.1", "is on this host")],
)
async def test_a_node_on_every_address_that_faces_no_other_host_names_the_remedy(host: str, words: str) -> None:
    with pytest.raises(Invalid, match=words) as refused:
        await advertised_url.resolve_advertised_url(
            "http://0.0.0.0:23786", EtcdAddress.parse(f"etcd://{host}"), Random()
        )
    assert refused.value.field == "advertise"


@pytest.mark.parametrize(
    ("peers", "refused"),
    [
        (["http://10.0.0.1:2380", "http://10.0.0.2:2380"], True),
        (["http://127.0.0.1:2380", "http://127.0.0.1:2382"], False),
        (["http://10.0.0.1:2380"], False),
        ([], False),
    ],
)
async def test_a_loopback_address_is_refused_beside_a_member_of_an_etcd_of_several_hosts(
    peers: list[str], refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def members(_: EtcdClient) -> tuple[Member, ...]:
        if not peers:
            raise EtcdUnreachable("it does not answer")
        return tuple(Member(number, f"e{number}", (), (url,)) for number, url in enumerate(peers))

    monkeypatch.setattr(EtcdClient, "members", members)
    etcd = EtcdAddress.parse("etcd://127.0.0.1:2379")
    assert await advertised_url.resolve_advertised_url("http://10.0.0.5:1", etcd, Random()) == "http://10.0.0.5:1"
    if refused:
        with pytest.raises(Invalid, match=r"listen: must be .* at 10\.0\.0\.1, 10\.0\.0\.2; .*--advertise"):
            await advertised_url.resolve_advertised_url("http://127.0.0.1:1", etcd, Random())
    else:
        assert await advertised_url.resolve_advertised_url("http://127.0.0.1:1", etcd, Random()) == "http://127.0.0.1:1"
