"""Runs a command line. It turns every outcome into an exit code and at most one sentence."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Final

import click

from adsum.cli.root import root

DEBUG_VARIABLE: Final = "ADSUM_DEBUG"


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line `args` (default: the arguments of this process) and return its exit code."""
    _escape_unencodable_characters()
    try:
        code = root.main(args, prog_name="adsum", standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except Exception as error:
        return _report(error)
    return code if isinstance(code, int) else 0


def _escape_unencodable_characters() -> None:
    """Make the standard streams escape characters that their encoding lacks, as in ASCII and Latin-1 terminals."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _report(error: Exception) -> int:
    if os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0"):
        raise error
    from adsum.cli.exit_codes import exit_code_of
    from adsum.cli.output import print_message
    from adsum.core.errors import AdsumError

    sentence = str(error)
    if isinstance(error, ImportError) and error.name and not error.name.startswith("adsum"):
        sentence = f"this command needs {error.name}, which is not installed: pip install 'adsum[registry]'"
    elif not isinstance(error, (AdsumError, TimeoutError, OSError)):
        sentence = f"unexpected {type(error).__name__}: {error}; run with {DEBUG_VARIABLE}=1 for the traceback"
    if sentence:
        print_message(f"adsum: {sentence}")
    return int(exit_code_of(error))
