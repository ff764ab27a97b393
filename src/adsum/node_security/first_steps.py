"""What a secure node prints at its first start."""

from __future__ import annotations

from pathlib import Path
from typing import Final

INVITE_COMMAND: Final = "adsum token invite --for client"
"""The command that prints a line with which another host joins."""


def first_steps(admin_token: Path) -> str:
    """Returns the lines: where the admin token is, but not the token, and the next command."""
    return (
        f"the admin token is in {admin_token}; commands of this user on this host find it by themselves\n"
        f"next: {INVITE_COMMAND}    prints a line with which another host joins\n"
    )
