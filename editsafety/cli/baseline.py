"""`editsafety baseline`: accept what a run found, look at it, hold another run against it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from editsafety.cli.options import refuse_unwritable
from editsafety.cli.run import stored
from editsafety.judging.baselines.baseline import AcceptedBaseline
from editsafety.judging.baselines.gate import Gate
from editsafety.judging.baselines.meaning import CONDITIONS
from editsafety.runs import folders

app = typer.Typer(help="Baselines: accept a run, show what was accepted, compare.", no_args_is_help=True)

Run = Annotated[Path, typer.Argument(help="the folder of a run")]
Allow = Annotated[
    list[str] | None,
    typer.Option(help=f"a condition that may differ: {', '.join(CONDITIONS)}; repeatable", show_default="none"),
]


@app.command()
def accept(
    run: Run,
    out: Annotated[Path, typer.Option("--out", "-o", help="the file to write; made to be committed")],
    costs: Annotated[bool, typer.Option("--costs", help="with what edits cost, for --fail-over")] = False,
) -> None:
    """Keep what a run found as the baseline of later runs (`run --baseline FILE`)."""
    from editsafety.tensor_files import write_atomically

    accepted = AcceptedBaseline.of(stored(run), costs=costs)
    write_atomically(out, accepted.to_text().encode())
    typer.echo(f"{out}: {_about(accepted)}")


@app.command()
def show(file: Annotated[Path, typer.Argument(help="a baseline")]) -> None:
    """What was accepted: editors, verdicts, conditions."""
    from rich.table import Table

    from editsafety.escaping import console, line

    accepted = AcceptedBaseline.read(file)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in ("editor", "model", "verdict", "cases", "weights", "dtype", "device", "editsafety"):
        table.add_column(name, overflow="fold")
    for block in accepted.blocks:
        of = block.conditions
        told = (str(of.get("weights"))[:12], of.get("dtype"), of.get("device"), of.get("editsafety"))
        verdict = "-" if block.verdict is None else block.verdict.value
        cells = (block.editor, block.model, verdict, len(block.cases), *told)
        table.add_row(*(line(str(cell)) for cell in cells))
    console().print(table)


@app.command()
def diff(
    run: Run,
    file: Annotated[Path, typer.Argument(help="a baseline")],
    allow: Allow = None,
    fail_over: Annotated[
        list[str] | None,
        typer.Option(help="a cost that may not be so much worse: latency:20%; repeatable", show_default="none"),
    ] = None,
    comment: Annotated[
        Path | None, typer.Option(help="also write it as one comment for a pull request", show_default="none")
    ] = None,
) -> None:
    """Hold a stored run against a baseline. Exits like `run --baseline`: 12 where it is worse."""
    from editsafety.escaping import line
    from editsafety.publishing import comment as comments
    from editsafety.reporting import against, story

    refuse_unwritable(comment)
    report = Gate.read(file, allow, fail_over).judged(stored(run))
    if comment is not None:
        comments.write(report, comment, suites=folders.suites())
    for sentence in against.sentences(report.against):
        typer.echo(line(sentence, 1000))
    typer.echo(line(story.verdict_line(report), 1000))
    raise typer.Exit(report.exit_code)


def _about(accepted: AcceptedBaseline) -> str:
    blocks, cases = len(accepted.blocks), sum(len(block.cases) for block in accepted.blocks)
    return f"{blocks} editor{'' if blocks == 1 else 's'}, {cases} case{'' if cases == 1 else 's'} accepted"
