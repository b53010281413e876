"""The command line. Each command is a thin layer over a module that can be used without it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from editsafety import escaping
from editsafety.errors import EditSafetyError
from editsafety.supervision.stop_signals import stopping_like_ctrl_c

INTERRUPTED, USAGE = 2, 4  # as pytest; the latter: an invalid command
_CTRL_C = 130  # what typer makes of it
_LONGEST = 4000  # characters of a sentence about what is wrong


def main() -> None:
    """Entry point of the `editsafety` command.

    Our own errors become one sentence on standard error and exit code 4, as an unknown option does; so does what the
    system refuses (a full disk, a folder in the way). Ctrl-C is 2. Nothing but plain lines reaches either stream.
    """
    from editsafety.cli.app import app
    from editsafety.cli.options import Interrupted, WasInterrupted

    with _clean_streams():
        try:
            with stopping_like_ctrl_c():
                app()
        except Interrupted:
            print("editsafety: interrupted; the same command goes on where this one stopped.", file=sys.stderr)  # noqa: T201
            raise SystemExit(INTERRUPTED) from None
        except WasInterrupted:
            raise SystemExit(INTERRUPTED) from None
        except SystemExit as end:
            raise SystemExit({2: USAGE, _CTRL_C: INTERRUPTED}.get(end.code, end.code)) from None  # type: ignore[arg-type]
        except EditSafetyError as error:
            print(f"editsafety: {escaping.line(error, _LONGEST)}", file=sys.stderr)  # noqa: T201
            raise SystemExit(USAGE) from None
        except OSError as error:
            where = f"{error.filename}: " if error.filename is not None else ""
            reason = error.strerror or type(error).__name__
            said = escaping.line(f"{where}{reason}", _LONGEST)
            print(f"editsafety: {said}. Mend this and run again.", file=sys.stderr)  # noqa: T201
            raise SystemExit(USAGE) from None


@contextmanager
def _clean_streams() -> Iterator[None]:
    """Let nothing but plain lines out while a command runs: what editors print is not ours, tracebacks included."""
    with escaping.clean_streams() as (_, clean_err):
        try:
            yield
        except Exception:
            # Python itself would print this one past the stream that is put back below.
            import traceback

            traceback.print_exc(file=clean_err)
            raise SystemExit(1) from None
