"""`editsafety keys`: the keys of ROME's formula for hard and normal subjects, as a table, a file and a map."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from editsafety.cli import options

if TYPE_CHECKING:
    from editsafety.research.key_map import Keys


def keys(
    model: options.Model,
    editor: options.Editor = "rome",
    hard: Annotated[str, typer.Option(help="hard requests [default: those of the model]")] = "",
    normal: Annotated[str, typer.Option(help="normal requests [default: those of the model]")] = "",
    limit: Annotated[int, typer.Option(min=1, help="requests of each set")] = 30,
    layer: Annotated[int | None, typer.Option(help="one of the editor's layers [default: its first]")] = None,
    contexts: Annotated[bool, typer.Option("--contexts", help="keep the key of every context, too")] = False,
    texts: Annotated[int, typer.Option(min=0, help="also the keys of first and later tokens of so many texts")] = 0,
    text_source: Annotated[str, typer.Option("--text-source", help="texts [default: those of the model]")] = "",
    each: Annotated[bool, typer.Option("--each", help="a row for every request")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="save the keys as safetensors")] = None,
    draw: Annotated[
        Path | None, typer.Option("--map", help="draw a map (.svg, .png); coordinates go beside it as .csv and .json")
    ] = None,
    by: Annotated[Literal["pca", "tsne"], typer.Option(help="how vectors are laid onto the plane")] = "pca",
    hparams: options.HparamsFile = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:
    """Where the keys of hard and normal subjects lie: k_u, its mean over contexts, and the direction of the update."""
    from editsafety import datasets, editors
    from editsafety.lab.lab import artifacts_for
    from editsafety.model.handle import ModelHandle
    from editsafety.model.loading import ModelSpec, model_folder
    from editsafety.progress import Progress
    from editsafety.research import key_map
    from editsafety.runs import plan as plans

    settings = plans.Settings((model,), (editor,), hard=hard, normal=normal, texts=text_source)
    specs = {name: spec for name, spec in plans.streams(settings, model).items() if spec}
    requests = {name: datasets.requests(spec, limit=limit) for name, spec in specs.items()}
    ordinary = datasets.texts(plans.text_source(settings, model), limit=texts) if texts else ()
    handle = ModelHandle.load(ModelSpec(model, device, dtype, revision, offline, trust_remote_code))
    progress = Progress(sys.stderr, "quiet" if quiet else "auto")
    chosen = editors.make(editor, handle, artifacts_for(handle), path=hparams, seed=seed)
    if model_folder(model) is not None and chosen.missing() is not None:
        chosen.prepare(progress)  # of a shipped model the texts are here and it takes seconds
    found = key_map.collect(
        chosen, requests, layer=layer, per_context=contexts, texts=ordinary, progress=progress
    )  # fmt: skip
    if not quiet:
        Console(highlight=False).print(_table(found, each=each))
    if output is not None:
        found.save(output)
        typer.echo(f"saved {output} ({len(found.entries)} subjects, {found.bare.shape[1]} numbers a key)")
    if draw is not None:
        files = key_map.project(found, by, seed=seed).save(draw)
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
