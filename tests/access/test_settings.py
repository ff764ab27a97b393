"""Settings of access control: what is refused, and which setting the error names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adsum.access.settings import AccessSettings
from adsum.config.serve import ServeConfig
from adsum.core.errors import Invalid

JWT = {"jwt_issuer": "https://login.example.org", "jwt_audience": "adsum", "jwt_keys": "https://login.example.org/keys"}


def test_without_settings_no_certificate_has_scopes_and_no_jwt_is_accepted() -> None:
    settings = AccessSettings()
    settings.check_access()
    assert (settings.certificate_rules(), settings.claim_rules(), settings.accepts_jwts) == ((), (), False)


def test_valid_settings() -> None:
    settings = replace(
        AccessSettings(("spiffe://corp/*=read:*,write:a",), **JWT),  # type: ignore[arg-type]
        jwt_scopes=("groups=a=read:*",),
    )
    settings.check_access()
    assert settings.accepts_jwts
    assert (len(settings.certificate_rules()), len(settings.claim_rules())) == (1, 1)
    replace(settings, jwt_keys="/etc/adsum/keys.json").check_access()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"certificate_scopes": ("x",)}, "certificate_scopes[0]"),
        ({"jwt_scopes": ("groups=a=read:*",)}, "jwt_issuer"),
        ({**JWT, "jwt_scopes": ("x",)}, "jwt_scopes[0]"),
        ({**JWT, "jwt_issuer": ""}, "jwt_issuer"),
        ({**JWT, "jwt_audience": ""}, "jwt_audience"),
        ({**JWT, "jwt_keys": ""}, "jwt_keys"),
        ({**JWT, "jwt_keys": "http://login.example.org/keys"}, "jwt_keys"),
        ({**JWT, "jwt_keys": "https://user:secret@login.example.org/keys"}, "jwt_keys"),
        ({**JWT, "jwt_keys": "https:///keys"}, "jwt_keys"),
        ({**JWT, "jwt_keys": "https://a:x/keys"}, "jwt_keys"),
        ({**JWT, "jwt_keys": "https://[::1/keys"}, "jwt_keys"),
        ({**JWT, "jwt_keys": "ftp://a/keys"}, "jwt_keys"),
        ({**JWT, "jwt_audience": "a\nb"}, "jwt_audience"),
        ({**JWT, "jwt_issuer": "x" * 2_049}, "jwt_issuer"),
    ],
)
def test_a_wrong_setting_is_refused_and_named(values: dict[str, str], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        AccessSettings(**values).check_access()  # type: ignore[arg-type]
    assert refused.value.field == field
    assert "secret" not in str(refused.value)
    with pytest.raises(Invalid):
        ServeConfig(store="memory:", **values)  # type: ignore[arg-type]


def test_scopes_of_certificates_need_an_authority_that_signs_them() -> None:
    with pytest.raises(Invalid, match="--tls-client-ca") as refused:
        ServeConfig(store="memory:", certificate_scopes=("spiffe://corp/*=read:*",))
    assert refused.value.field == "certificate_scopes"
