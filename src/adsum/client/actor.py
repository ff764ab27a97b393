"""The actor: the name that the registry records as the author of a program's changes."""

from __future__ import annotations

import os
import platform
import pwd
from typing import Final

from adsum.client.consumer_identity import one_line
from adsum.core.validation import MAX_TEXT_LENGTH, text

ACTOR_VARIABLE: Final = "ADSUM_ACTOR"


def configured_actor(actor: str) -> str:
    """Returns `actor`, else the value of `ADSUM_ACTOR`, stripped; "" if neither is set.

    Raises `Invalid` for what a registry refuses: more than `MAX_TEXT_LENGTH` characters, or more than one line.
    """
    field, value = ("actor", actor) if actor else (ACTOR_VARIABLE, os.environ.get(ACTOR_VARIABLE, ""))
    value = value.strip()
    text(field, value)
    return value


def default_actor() -> str:
    """Returns `user@host`, cut to `MAX_TEXT_LENGTH` characters."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # A container may run as a user id without a name.
        user = f"uid-{os.getuid()}"
    return one_line(f"{user}@{platform.node()}")[:MAX_TEXT_LENGTH]
