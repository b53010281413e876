"""`editsafety merge`: the parts of a run (`run --shard 1/3`, `2/3`, `3/3`) become one run, and are judged as one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from editsafety import escaping
from editsafety.cli import options
from editsafety.cli.run import stored
from editsafety.cli.signature import only
from editsafety.errors import StoreError
from editsafety.judging.baselines.gate import Gate
from editsafety.publishing import github, outlets
from editsafety.reporting import ReportPlace, as_terminal
from editsafety.runs import folders
from editsafety.runs.merging import merge as join
from editsafety.runs.settings import Output
from editsafety.runs.stored_records import reading_many


def merge(
    parts: Annotated[list[Path], typer.Argument(help="the folders of all parts, in any order")],
    out: Annotated[Path, typer.Option("--out", "-o", help="folder of the whole run, to be made")],
    output: Annotated[Output, only("quiet", "baseline", "allow", "fail_over", "comment")],
) -> None:
    """Join the parts of a run that several machines computed (`run --shard 1/3`), and judge it. Exits like `run`."""
    options.refuse_unwritable(output.comment)
    gate = Gate.asked(output.baseline, output.allow, output.fail_over)
    join(parts, out)
    with reading_many():
        report = stored(out)
        report = report if gate is None else gate.judged(report)
        try:
            outlets.write(report, out, output.comment)
        except OSError as error:
            raise StoreError(f"{out}: the report cannot be written ({error}). The results are kept.") from error
        if not output.quiet:
            as_terminal.render(report, escaping.console(), ReportPlace(folders.suites(), folders.near(out)))
            github.annotate(report, sys.stdout)
    raise typer.Exit(report.exit_code)
