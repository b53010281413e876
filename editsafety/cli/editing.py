"""`edit` (one fact typed by hand), `ppl` (perplexity of a model) and `prepare` (the slow part of an editor)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from editsafety.cli import options
from editsafety.datasets.request import EditRequest
from editsafety.errors import NotPreparedError
from editsafety.runs.measurement import Measurement


def edit(
    model: options.Model,
    editor: options.Editor,
    prompt: Annotated[str, typer.Option(help="with {} for the subject: '{} works as a'")],
    subject: Annotated[str, typer.Option(help="whom or what the fact is about")],
    target: Annotated[str, typer.Option(help="the new continuation")],
    true: Annotated[str | None, typer.Option(help="the old continuation, for comparison")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="save the edit as safetensors")] = None,
    texts: Annotated[str, typer.Option(help="texts for perplexity [default: those of the model]")] = "",
    hparams: options.HparamsFile = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
    seed: options.Seed = 0,
) -> None:
    """Write one fact into a model and show text and probabilities before and after."""
    from editsafety import editors
    from editsafety.edits.session import EditSession
    from editsafety.lab.lab import artifacts_for
    from editsafety.lab.trial import compute
    from editsafety.model import scoring
    from editsafety.model.handle import ModelHandle
    from editsafety.model.loading import ModelSpec

    request = EditRequest("typed-by-hand", prompt, subject, target, true, source="the command line")
    handle = ModelHandle.load(ModelSpec(model, device, dtype, revision, offline, trust_remote_code))
    chosen = editors.make(editor, handle, artifacts_for(handle), path=hparams, seed=seed)
    for line in editors.set_aside(editor, hparams):
        typer.echo(f"{chosen.name}: {line}", err=True)
    missing = chosen.missing()
    if missing is not None:
        raise NotPreparedError(chosen.name, handle.spec.name, missing)
    chosen_texts = _texts(model, texts)

    def look() -> tuple[dict[str, Measurement], str]:
        found = _measured(handle, request, chosen_texts)
        row = handle.ids(request.filled)
        return found, handle.text(scoring.continuations(handle, [row], [20])[0])

    before, said = look()
    made, cost, _ = compute(handle, chosen, (request,))
    with EditSession(handle) as session:
        session.apply(made)
        after, says = look()
    _show(request, (before, said), (after, says), made.notes, cost.edit)
    if output is not None:
        made.save(output)
        typer.echo(f"saved {output} ({', '.join(made.parameters) or 'no parameters'})")


def ppl(
    model: options.Model,
    texts: Annotated[str, typer.Option(help="a data set, me_ppl:FILE, or a text file with one text per line")] = "",
    limit: Annotated[int | None, typer.Option(help="how many texts [default: all]")] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
) -> None:
    """Perplexity of a model, as ME-PPL defined it, with the robust figures beside it."""
    from editsafety import measures
    from editsafety.model.handle import ModelHandle
    from editsafety.model.loading import ModelSpec

    chosen = _texts(model, texts, limit)
    handle = ModelHandle.load(ModelSpec(model, device, dtype, revision, offline, trust_remote_code))
    found = measures.load("perplexity")(handle, measures.Inputs(texts=chosen))
    table = Table("figure", "value", "n", title=f"{escape(handle.name)} on {len(chosen)} texts", title_justify="left")
    for one in found:
        table.add_row(one.name, _number(one), str(one.n))
    Console(highlight=False).print(table)


def prepare(
    model: options.Model,
    editor: options.Editor,
    corpus: Annotated[
        Path | None,
        typer.Option(help="texts (one per line, or JSON lines), published .npz statistics, or a folder of them"),
    ] = None,
    hparams: options.HparamsFile = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:
    """Run the slow, data-hungry part of an editor once; it is kept, keyed by the weights' fingerprint."""
    from editsafety import editors
    from editsafety.lab.lab import artifacts_for
    from editsafety.model.handle import ModelHandle
    from editsafety.model.loading import ModelSpec
    from editsafety.progress import Progress

    handle = ModelHandle.load(ModelSpec(model, device, dtype, revision, offline, trust_remote_code))
    chosen = editors.make(editor, handle, artifacts_for(handle), path=hparams, seed=seed)
    for line in editors.set_aside(editor, hparams):
        typer.echo(f"{chosen.name}: {line}", err=True)
    if chosen.missing() is None and corpus is None:
        typer.echo(f"{chosen.name} on {handle.name} is ready; nothing to prepare.")
        return
    progress = Progress(sys.stderr, "quiet" if quiet else "auto")
    chosen.prepare(progress, corpus)
    typer.echo(f"{chosen.name} on {handle.name} is ready.")


def _texts(model: str, spec: str, limit: int | None = None) -> tuple[str, ...]:
    from editsafety import datasets
    from editsafety.runs.plan import Settings, text_source

    return datasets.texts(spec or text_source(Settings((model,), ()), model), limit=limit or (None if spec else 50))


def _measured(handle: object, request: EditRequest, texts: tuple[str, ...]) -> dict[str, Measurement]:
    from editsafety import measures
    from editsafety.lab.trial import measure
    from editsafety.measures import Inputs
    from editsafety.model.handle import ModelHandle

    assert isinstance(handle, ModelHandle)
    inputs = Inputs((request,), texts)
    chosen = measures.needed()
    return {**measure(chosen, handle, inputs, "model"), **measure(chosen, handle, inputs, "case")}


def _show(
    request: EditRequest,
    before: tuple[dict[str, Measurement], str],
    after: tuple[dict[str, Measurement], str],
    notes: object,
    seconds: float | None,
) -> None:
    console = Console(highlight=False)
    table = Table(
        "", "before", "after", title=escape(f"{request.filled} -> {request.target_new}"), title_justify="left"
    )
    table.add_row("says", escape(before[1].strip()), escape(after[1].strip()))
    for name in ("target_probability", "efficacy", "me_ppl", "ppl_worst"):
        if name in before[0]:
            table.add_row(name, _number(before[0][name]), _number(after[0][name]))
    console.print(table)
    if isinstance(notes, dict):
        said = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in notes.items())
        console.print(escape(f"{said}{', ' if said else ''}{seconds:.2f} s" if seconds is not None else said))


def _number(found: Measurement) -> str:
    return f"{found.value:.4g}" if found.value is not None else escape(found.reason or "-")
