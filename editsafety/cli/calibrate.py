"""`editsafety calibrate`: an editor's numbers for a model, found on the model itself, each with its evidence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from editsafety import escaping
from editsafety.cli import options
from editsafety.cli.signature import only
from editsafety.runs.settings import Settings

if TYPE_CHECKING:
    from editsafety.research.calibration.writing import Calibration


def calibrate(
    *,
    model: options.Model,
    editor: options.EditorName,
    requests: Annotated[str, options.known_facts(", rephrasings and neighbours")] = "",
    facts: Annotated[int, typer.Option(min=1, help="how many known facts are traced, for the layers")] = 20,
    edits: Annotated[int, typer.Option(min=1, help="how many known facts every set of numbers is tried on")] = 6,
    others: Annotated[int, typer.Option(min=1, help="how many others beginning and end are compared on")] = 10,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="try no further number after so long", show_default="no limit")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="the file to write", show_default="EDITOR-MODEL.yaml")
    ] = None,
    hparams: options.HparamsFile = None,
    settings: Annotated[Settings, only("seed", "skip_bad_rows")],
    loading: options.Loading,
    quiet: options.Quiet = False,
) -> None:
    """Find an editor's hyperparameters for a model, and write them as --hparams reads them."""
    from editsafety.lab.tools import artifacts_for
    from editsafety.names import label, slug
    from editsafety.research.calibration import calibrating
    from editsafety.runs import plan as plans

    calibrating.refuse_other_methods(editor)
    out = out or Path(f"{label(editor)}-{slug(model)}.yaml")
    options.refuse_unwritable(out)
    spec = requests or plans.streams(settings, model)["normal"]
    rows = options.requests_for(model, spec, settings, loading)
    handle = loading.load(model)
    extent = calibrating.Extent(facts, edits, others, minutes, settings.seed)
    progress = options.show_progress(quiet=quiet)
    with options.editors_own(editor):
        found = calibrating.calibrate(
            handle, editor, rows, spec, artifacts_for(handle), extent, hparams=hparams, progress=progress
        )
    found.save(out)
    if not quiet:
        escaping.console().print(_table(found))
    typer.echo(f"saved {out}; use it with --hparams {label(editor)}={out}")


def _table(found: Calibration) -> Table:
    title = f"{found.editor} on {found.model}, {found.found.after.edits} facts that the search has not seen"
    table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False)
    for heading in ("numbers", "success", "rephrased", "neighbours", "score"):
        table.add_column(heading, justify="left" if heading == "numbers" else "right")
    for name, one in ((found.origin, found.found.before), ("found", found.found.after)):
        figures = (one.efficacy, one.generalisation, one.locality, one.score)
        table.add_row(escape(name), *(f"{figure:.2f}" for figure in figures))
    return table
