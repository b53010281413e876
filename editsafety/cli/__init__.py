"""The command line. Each command is a thin layer over a module that can be used without it."""

from __future__ import annotations

import sys

from editsafety.errors import EditSafetyError
from editsafety.supervision.stop_signals import stopping_like_ctrl_c

INTERRUPTED, USAGE = 2, 4  # as pytest; the latter: an invalid command
_CTRL_C = 130  # what typer makes of it


def main() -> None:
    """Entry point of the `editsafety` command.

    Our own errors become one sentence on standard error and exit code 4, as an unknown option does; Ctrl-C is 2.
    """
    from editsafety.cli.app import app
    from editsafety.cli.options import Interrupted

    try:
        with stopping_like_ctrl_c():
            app()
    except Interrupted:
        print("editsafety: interrupted; the same command goes on where this one stopped.", file=sys.stderr)  # noqa: T201
        raise SystemExit(INTERRUPTED) from None
    except SystemExit as end:
        raise SystemExit({2: USAGE, _CTRL_C: INTERRUPTED}.get(end.code, end.code)) from None  # type: ignore[arg-type]
    except EditSafetyError as error:
        print(f"editsafety: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(USAGE) from None
