"""The actor: whom the registry records as the author of what a program changes."""

from __future__ import annotations

import os
import platform
import pwd
from typing import Final

from adsum.client.consumer_identity import one_line
from adsum.core.validation import MAX_TEXT_LENGTH, text

ACTOR_VARIABLE: Final = "ADSUM_ACTOR"


def configured_actor(actor: str) -> str:
    """`actor`, else `ADSUM_ACTOR`, without blanks around it; "" if neither is given.

    Raises `Invalid` for what no registry takes: more than `MAX_TEXT_LENGTH` characters, or more than one line.
    """
    field, given = ("actor", actor) if actor else (ACTOR_VARIABLE, os.environ.get(ACTOR_VARIABLE, ""))
    given = given.strip()
    text(field, given)
    return given


def default_actor() -> str:
    """`user@host`, cut to what a registry takes."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # A container may run as a number that has no name.
        user = f"uid-{os.getuid()}"
    return one_line(f"{user}@{platform.node()}")[:MAX_TEXT_LENGTH]
