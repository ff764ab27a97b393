"""The entry point of `adsum` and `python -m adsum`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line and exits with its code."""
    try:
        import click  # noqa: F401
    except ImportError:
        sys.exit("adsum: the command line needs more than the library: pip install 'adsum[cli]'")
    from adsum.cli.main import run

    sys.exit(run())


if __name__ == "__main__":
    main()
