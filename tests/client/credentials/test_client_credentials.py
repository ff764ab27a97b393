"""What the errors of a client say about its credentials."""

from __future__ import annotations

import pytest

from adsum.client.credentials.client_credentials import JOINED_ROLES, REJOIN, ClientCredentials
from adsum.client.credentials.folder import CredentialsFolder, RegistryCredentials
from adsum.core.access.tokens import TokenRole
from tests.client.secure_node import TOKEN


@pytest.mark.parametrize("role", ["client", "gateway", "operator"])
def test_a_token_that_came_from_a_line_is_replaced_by_a_line(
    role: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("host") / "registry"
    CredentialsFolder(folder).write(RegistryCredentials(("https://10.0.0.5:1",), token=TOKEN, role=role))
    remedy = "" if role == "operator" else REJOIN
    assert (
        ClientCredentials(CredentialsFolder(folder).read()).origin == f"the token comes from {folder / 'token'}{remedy}"
    )


def test_the_roles_of_lines_for_hosts_are_those_of_tokens() -> None:
    assert {TokenRole.CLIENT.value, TokenRole.GATEWAY.value} == JOINED_ROLES
