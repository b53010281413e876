"""`editsafety curves`: what a run's courses did to the model, edit by edit, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from editsafety.cli import options


def curves(
    folders: Annotated[list[Path], typer.Argument(help="folders of runs, or of `editsafety sequence`")],
    out: Annotated[Path, typer.Option("--out", "-o", help=".svg, .png or .pdf")] = Path("curves.svg"),
    figure: Annotated[str, typer.Option(help="ratio (perplexity), kept, drift_growth, or an ability")] = "ratio",
    collapse_above: options.CollapseAbove = None,
) -> None:
    """Draw one panel per schedule and stream, one line per editor. Needs the extra `maps`."""
    from editsafety.errors import StoreError
    from editsafety.reporting import curves as drawing
    from editsafety.runs.folders import STORE
    from editsafety.runs.store import Store

    options.refuse_unwritable(out)
    records = []
    for folder in folders:
        if not (folder / STORE).is_file():
            raise StoreError(f"{folder}: holds no run (no {STORE}). Give a folder under reports/.")
        store = Store(folder / STORE)
        records += [record for record in store.records() if record.is_course]
        store.close()
    drawing.draw(records, out, figure=figure, limit=options.collapse_limit_of_runs(collapse_above, folders))
    typer.echo(f"written: {out}")
