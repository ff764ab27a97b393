"""The settings of a registry node about TLS and tokens, which are part of the table [serve]."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import unquote

from adsum.config.addresses import is_loopback
from adsum.core.errors import Invalid
from adsum.core.validation import address
from adsum.settings import setting

SecurityMode = Literal["loopback", "secure", "insecure"]
"""How a node is protected: by listening on loopback alone, by TLS and tokens, or not at all."""

MAX_TLS_NAMES: Final = 16
"""Names that `tls_name` adds to a certificate. More are refused: beside them there is room for those that are found."""
INSECURE_WARNING: Final = "--insecure: without TLS and tokens, whoever reaches this node may change everything"
"""The warning of a node with `--insecure`, at each start and in its status."""

_SQLITE: Final = "sqlite:///"


@dataclass(frozen=True)
class SecuritySettings:
    """The settings about TLS and tokens."""

    secure: bool = setting(
        "Serve TLS and require tokens. Makes an authority, a certificate and an admin token in the data folder, unless "
        "they exist",
        default=False,
    )
    insecure: bool = setting(
        "Listen on a network without TLS and tokens: whoever reaches the node may change everything", default=False
    )
    data: str = setting(
        "Folder in which the node keeps its keys, its certificates and its admin token, below security/ (default: the "
        "folder of the SQLite file, else your data folder)",
        metavar="FOLDER",
        default="",
    )
    tls_cert: str = setting(
        "Serve TLS with this certificate, and require tokens: a PEM file with the whole chain. It is read again when "
        "it changes",
        metavar="FILE",
        default="",
    )
    tls_key: str = setting("Private key of the certificate: a PEM file", metavar="FILE", default="")
    tls_client_ca: str = setting(
        "Also accept client certificates of these authorities: a PEM file. `certificate_scopes` says what they may do",
        metavar="FILE",
        default="",
    )
    tls_name: tuple[str, ...] = setting(
        "Further name or address in the certificate that the node makes, besides those of its host; may be given "
        "several times",
        metavar="NAME",
        default=(),
    )

    def check_security(self) -> None:
        """Raises `Invalid` if a value is wrong, or contradicts another one."""
        if self.insecure and (self.secure or self.tls_cert):
            raise Invalid(
                "insecure", f"contradicts {'--secure' if self.secure else '--tls-cert'}: leave one of them out"
            )
        if self.tls_key and not self.tls_cert:
            raise Invalid("tls_cert", "must be given, too: the certificate of --tls-key")
        if self.tls_cert and not self.tls_key:
            raise Invalid("tls_key", "must be given, too: the private key of --tls-cert")
        if self.tls_client_ca and not self.serves_tls:
            raise Invalid("tls_client_ca", "needs TLS: add --secure, or --tls-cert and --tls-key")
        if len(self.tls_name) > MAX_TLS_NAMES:
            raise Invalid("tls_name", f"must be at most {MAX_TLS_NAMES} names, not {len(self.tls_name)}")
        for name in self.tls_name:
            address("tls_name", name)

    @property
    def serves_tls(self) -> bool:
        """True if all listeners of the node speak TLS; then it requires tokens, too."""
        return self.secure or bool(self.tls_cert)

    @property
    def is_open(self) -> bool:
        """True if callers that prove nothing may do everything, because the node serves no TLS."""
        return not self.serves_tls

    @property
    def security(self) -> SecurityMode:
        """How the node is protected."""
        return "secure" if self.serves_tls else "insecure" if self.insecure else "loopback"

    def check_exposure(self, addresses: Mapping[str, str]) -> None:
        """Raises `Invalid` if the node would listen on a network without TLS and tokens, unless it is `insecure`.

        `addresses`: setting → the address that it makes the node listen on.
        """
        if self.serves_tls or self.insecure:
            return
        for name, listen in addresses.items():
            if not is_loopback(listen):
                raise Invalid(
                    name,
                    f"must not be {listen} without TLS and tokens, since whoever reaches a registry may change it: add "
                    "--secure, which makes certificates and an admin token (or --tls-cert and --tls-key: your own), "
                    "or --insecure to allow it",
                )

    def data_folder(self, store: str) -> Path:
        """Returns the folder of the node's files, for this store. Raises `Invalid` if the user has no home folder."""
        if self.data:
            return Path(self.data).expanduser().absolute()
        if store.startswith(_SQLITE):
            path = unquote(store.removeprefix(_SQLITE).partition("?")[0])
            return Path(path).expanduser().absolute().parent
        return user_data_folder("data", "--data FOLDER")


def user_data_folder(field: str, remedy: str) -> Path:
    """Returns Adsum's folder among the user's data. Raises `Invalid` with the remedy if the user has no home folder."""
    try:
        home = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    except RuntimeError:  # A container may run under a user id that has no home.
        raise Invalid(
            field, f"must be given, since this user has no home: use {remedy}, or set XDG_DATA_HOME"
        ) from None
    return Path(home) / "adsum"
