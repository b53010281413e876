"""The command line. Each command is a thin layer over a module that can be used without it."""

from __future__ import annotations

import sys

from editsafety.errors import EditSafetyError

USAGE = 4  # as pytest: the command itself cannot be meant


def main() -> None:
    """Entry point of the `editsafety` command. Our own errors become one sentence on standard error and exit code 4."""
    from editsafety.cli.app import app

    try:
        app()
    except EditSafetyError as error:
        print(f"editsafety: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(USAGE) from None
