"""The settings about TLS and tokens: what contradicts what, and where a node may listen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adsum.config.serve import ServeConfig
from adsum.core.access.scopes import EVERYTHING, NO_SCOPES
from adsum.core.errors import Invalid

OWN: dict[str, Any] = {"tls_cert": "/c.pem", "tls_key": "/k.pem", "tls_client_ca": "/ca.pem"}


def _check(**settings: Any) -> None:
    config = ServeConfig(**{"store": "memory:", "node": "n1"} | settings)
    config.check_exposure(config.listen_addresses)


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:23786", "[::]:23786", "10.0.0.5:23786", "registry.example:1", "[fd00::1]:1"]
)
@pytest.mark.parametrize("setting", ["listen", "xds"])
def test_a_node_on_a_network_needs_tls_and_tokens_or_a_flag_that_allows_it(setting: str, listen: str) -> None:
    with pytest.raises(Invalid) as refused:
        _check(**{setting: listen})
    assert refused.value.field == setting
    for words in (listen, "--secure", "--tls-cert", "--insecure"):
        assert words in refused.value.problem
    _check(**{setting: listen, "insecure": True})
    _check(**{setting: listen, "secure": True})
    _check(**{setting: listen, **OWN})


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.9.9.9:1", "[::1]:23786", "localhost:23786"])
def test_a_node_on_loopback_needs_nothing(listen: str) -> None:
    _check(listen=listen, xds=listen)
    _check(listen=listen, xds="off")


def test_what_does_not_listen_is_not_checked() -> None:
    assert ServeConfig(store="memory:", xds="off").listen_addresses == {"listen": "127.0.0.1:23786"}
    assert ServeConfig(store="memory:").listen_addresses == {"listen": "127.0.0.1:23786", "xds": "127.0.0.1:23787"}


@pytest.mark.parametrize(
    ("settings", "mode", "is_open"),
    [
        ({}, "loopback", True),
        ({"secure": True}, "secure", False),
        (OWN, "secure", False),
        ({"secure": True, **OWN}, "secure", False),
        ({"insecure": True}, "insecure", True),
        ({"insecure": True, "listen": "0.0.0.0:1"}, "insecure", True),
        ({"secure": True, "listen": "0.0.0.0:1"}, "secure", False),
    ],
)
def test_only_an_open_node_lets_callers_do_everything_that_prove_nothing(
    settings: dict[str, Any], mode: str, is_open: bool
) -> None:
    config = ServeConfig(**{"store": "memory:"} | settings)
    assert (config.security, config.is_open) == (mode, is_open)
    assert config.default_anonymous() == (EVERYTHING if is_open else NO_SCOPES)
    assert config.url_scheme == ("http" if is_open else "https")


@pytest.mark.parametrize(
    ("settings", "field", "words"),
    [
        ({"secure": True, "insecure": True}, "insecure", "contradicts --secure"),
        ({"insecure": True, **OWN}, "insecure", "contradicts --tls-cert"),
        ({"tls_cert": "/c.pem"}, "tls_key", "the private key of --tls-cert"),
        ({"tls_key": "/k.pem"}, "tls_cert", "the certificate of --tls-key"),
        ({"tls_client_ca": "/ca.pem"}, "tls_client_ca", "add --secure"),
        ({"tls_cert": "/c.pem", "tls_key": "/k.pem"}, "tls_client_ca", "--xds off"),
        ({"tls_name": ("*.example",)}, "tls_name", "host name"),
        ({"tls_name": ("0.0.0.0",)}, "tls_name", "callers can reach"),
        ({"tls_name": tuple(f"n{n}" for n in range(17))}, "tls_name", "at most 16"),
        ({"secure": True, "advertise": "http://10.0.0.5:23786"}, "advertise", "must begin with https://"),
        ({"advertise": "ftp://10.0.0.5"}, "advertise", "https://"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(settings: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(Invalid, match=words) as refused:
        ServeConfig(**{"store": "memory:"} | settings)
    assert refused.value.field == field


def test_a_node_advertises_https_where_it_serves_tls() -> None:
    assert ServeConfig(store="memory:", secure=True, advertise="https://10.0.0.5:23786").advertise
    with pytest.raises(Invalid, match="--advertise https://127"):
        ServeConfig(store="etcd://10.0.0.1", secure=True)


def test_the_data_folder_is_beside_the_database_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/xdg")
    monkeypatch.chdir(tmp_path)
    config = ServeConfig(store="memory:")
    for store, folder in (
        ("sqlite:////var/lib/adsum/adsum.db", "/var/lib/adsum"),
        ("sqlite:////var/lib/my%20data/adsum.db?epoch=new", "/var/lib/my data"),
        ("sqlite:///adsum.db", str(tmp_path)),
        ("memory:", "/xdg/adsum"),
        ("etcd://10.0.0.1", "/xdg/adsum"),
    ):
        assert config.data_folder(store) == Path(folder)
    assert ServeConfig(store="memory:", data="here").data_folder("memory:") == tmp_path / "here"


def test_a_user_without_a_home_must_name_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(Path, "home", staticmethod(_no_home))
    with pytest.raises(Invalid, match="use --data FOLDER, or set XDG_DATA_HOME") as refused:
        ServeConfig(store="memory:").data_folder("memory:")
    assert refused.value.field == "data"


def _no_home() -> Path:
    raise RuntimeError("no home")


def test_own_certificates_without_authorities_of_clients_serve_http_alone() -> None:
    assert ServeConfig(store="memory:", tls_cert="/c.pem", tls_key="/k.pem", xds="off").serves_tls
