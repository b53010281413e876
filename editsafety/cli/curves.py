"""`editsafety curves`: what a run's courses did to the model, edit by edit, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def curves(
    folders: Annotated[list[Path], typer.Argument(help="folders of runs, or of `editsafety sequence`")],
    output: Annotated[Path, typer.Option("-o", "--output", help=".svg, .png or .pdf")] = Path("curves.svg"),
    figure: Annotated[str, typer.Option(help="ratio (perplexity), kept, drift_growth, or an ability")] = "ratio",
    limit: Annotated[float, typer.Option(help="the line past which a model is broken")] = 2.0,
) -> None:
    """Draw one panel per schedule and stream, one line per editor. Needs the extra `maps`."""
    from editsafety.errors import StoreError
    from editsafety.reporting import curves as drawing
    from editsafety.runs.folders import STORE
    from editsafety.runs.store import Store

    records = []
    for folder in folders:
        if not (folder / STORE).is_file():
            raise StoreError(f"{folder}: holds no run (no {STORE}). Give a folder under reports/.")
        store = Store(folder / STORE)
        records += store.course_records()
        store.close()
    drawing.draw(records, output, figure=figure, limit=limit)
    typer.echo(f"written: {output}")
