"""`editsafety keys`: the keys of ROME's formula for hard and normal subjects, as a table, a file and a map."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from editsafety import escaping
from editsafety.cli import options
from editsafety.cli.signature import only
from editsafety.runs.settings import Settings

if TYPE_CHECKING:
    from editsafety.research.key_map import Keys


def keys(
    *,
    model: options.Model,
    editor: options.EditorName = "rome",
    settings: Annotated[Settings, only("hard", "normal", "texts_from", "seed", "skip_bad_rows")],
    limit: Annotated[int, typer.Option(min=1, help="maximum number of requests of each stream")] = 30,
    layer: Annotated[int | None, typer.Option(help="one of the editor's layers", show_default="its first")] = None,
    contexts: Annotated[bool, typer.Option("--contexts", help="keep the key of every context, too")] = False,
    texts: Annotated[int, typer.Option(min=0, help="also the keys of first and later tokens of so many texts")] = 0,
    each: Annotated[bool, typer.Option("--each", help="a row for every request")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="save the keys as safetensors")] = None,
    draw: Annotated[
        Path | None, typer.Option("--map", help="draw a map (.svg, .png); coordinates go beside it as .csv and .json")
    ] = None,
    by: Annotated[Literal["pca", "tsne"], typer.Option(help="how vectors are laid onto the plane")] = "pca",
    hparams: options.HparamsFile = None,
    loading: options.Loading,
    quiet: options.Quiet = False,
) -> None:
    """Where the keys of hard and normal subjects lie: k_u, its mean over contexts, and the direction of the update."""
    from editsafety import datasets
    from editsafety.model.loading import model_folder
    from editsafety.research import key_map
    from editsafety.runs import plan as plans

    options.refuse_unwritable(out)
    options.refuse_unwritable(draw)
    specs = {name: spec for name, spec in plans.streams(settings, model).items() if spec}
    requests = {name: options.requests_for(model, spec, settings, loading, limit) for name, spec in specs.items()}
    source = plans.text_source(settings, model)
    ordinary = datasets.texts(source, limit=texts, offline=loading.offline) if texts else ()
    handle = loading.load(model)
    progress = options.show_progress(quiet=quiet)
    chosen = options.make_editor(handle, editor, hparams, settings.seed)
    with options.editors_own(editor):
        if model_folder(model) is not None and chosen.missing() is not None:
            chosen.prepare(progress)  # of a shipped model the texts are here and it takes seconds
        found = key_map.collect(
            chosen, requests, layer=layer, per_context=contexts, texts=ordinary, progress=progress
        )  # fmt: skip
    if not quiet:
        escaping.console().print(_table(found, each=each))
    if out is not None:
        found.save(out)
        typer.echo(f"saved {out} ({len(found.entries)} subjects, {found.bare.shape[1]} numbers a key)")
    if draw is not None:
        files = key_map.project(found, by, seed=settings.seed).save(draw)
        typer.echo(f"drawn {', '.join(map(str, files))}")


def _table(found: Keys, *, each: bool) -> Table:
    from editsafety.numbers import exact

    title = f"keys of {found.editor} on {found.model} at {found.module}; medians of each set"
    table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False)
    for heading in ("set", "n", "first", "cos(k_u, k-bar)", "|denominator|", "|k_u|", "|k-bar|", "|C^-1 k-bar|"):
        table.add_column(heading, justify="left" if heading == "set" else "right")
    figures = ("cosine", "denominator", "bare_norm", "mean_norm", "solved_norm")
    for name, row in found.medians().items():
        share = f"{100 * row['first']:.0f} %"
        table.add_row(escape(name), f"{row['n']:.0f}", share, *(exact(row[figure], 3) for figure in figures))
    for row in found.rows() if each else ():
        first = "yes" if row["first"] else "no"
        said = f"{row['id']} {row['subject']}"
        table.add_row(escape(said), "", first, *(exact(row[figure], 3) for figure in figures))
    return table
