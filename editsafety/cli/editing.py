"""`edit` (one fact typed by hand), `ppl` (perplexity of a model) and `prepare` (the slow part of an editor)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from editsafety import escaping
from editsafety.cli import options
from editsafety.datasets.request import EditRequest
from editsafety.errors import EditError, NotPreparedError
from editsafety.runs.measurement import Measurement

BATCH = 64  # texts per forward pass


def edit(
    *,
    model: options.Model,
    editor: options.EditorName,
    prompt: Annotated[str, typer.Option(help="with {} for the subject: '{} works as a'")],
    subject: Annotated[str, typer.Option(help="whom or what the fact is about")],
    target: Annotated[str, typer.Option(help="the new continuation")],
    true: Annotated[str | None, typer.Option(help="the old continuation, for comparison")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="save the edit as safetensors")] = None,
    texts_from: options.TextsFrom = "",
    hparams: options.HparamsFile = None,
    chat: options.Chat = False,
    loading: options.Loading,
    seed: options.Seed = 0,
) -> None:
    """Write one fact into a model and show text and probabilities before and after."""
    from editsafety.edits.seal import Keepsake
    from editsafety.lab.asking import as_asked
    from editsafety.lab.attempt import Questions, attempt, compute
    from editsafety.lab.bench import Bench
    from editsafety.model import scoring

    request = EditRequest("typed-by-hand", prompt, subject, target, true, source="the command line")
    options.refuse_unwritable(out)
    handle = loading.load(model, chat=chat)
    chosen = options.make_editor(handle, editor, hparams, seed)
    with options.editors_own(editor):
        missing = chosen.missing()
    if missing is not None:
        raise NotPreparedError(chosen.name, handle.spec.name, missing)
    bench = Bench(
        handle, _texts(model, texts_from, offline=loading.offline), (), BATCH, Keepsake.of(handle, most_bytes=0)
    )
    says: list[str] = []

    (asked,) = as_asked(handle, (request,))

    def listen(_session: object = None) -> None:
        says.append(handle.text(scoring.continuations(handle, [handle.ids(asked.filled)], [20])[0]))

    listen()
    before = {**bench.measure("model"), **bench.unedited((request,))}
    with options.editors_own(editor):
        made = compute(handle, chosen, (request,))
    with options.editors_own(editor):  # a sidecar of it runs while the model is measured
        step, _ = attempt(bench, made, [Questions((request,), before)], look=listen)
    _show(request, (before, says[0]), (dict(step.found), says[1]), made.edit.notes, made.cost.edit)
    if out is not None:
        try:
            made.edit.save(out)
        except OSError as error:
            reason = error.strerror or error
            raise EditError(f"{out}: cannot be written ({reason}). What was there before is whole.") from error
        typer.echo(f"saved {out} ({', '.join(made.edit.parameters) or 'no parameters'})")


def ppl(
    *,
    model: options.Model,
    texts_from: Annotated[
        str,
        typer.Option(
            help="a data set, me_ppl:FILE, or a text file with one text per line", show_default="those of the model"
        ),
    ] = "",
    texts: Annotated[int | None, typer.Option(min=1, help="how many texts", show_default="all of --texts-from")] = None,
    loading: options.Loading,
) -> None:
    """Perplexity of a model, as ME-PPL defined it, with the robust figures beside it."""
    from editsafety import measures

    chosen = _texts(model, texts_from, texts, offline=loading.offline)
    handle = loading.load(model)
    found = measures.load("perplexity")(handle, measures.Inputs(texts=chosen))
    table = Table("figure", "value", "n", title=f"{escape(handle.name)} on {len(chosen)} texts", title_justify="left")
    for one in found:
        table.add_row(one.name, _number(one), str(one.n))
    escaping.console().print(table)


def prepare(
    *,
    model: options.Model,
    editor: options.EditorName,
    corpus: Annotated[
        Path | None,
        typer.Option(help="texts (one per line, or JSON lines), published .npz statistics, or a folder of them"),
    ] = None,
    hparams: options.HparamsFile = None,
    loading: options.Loading,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:
    """Run the slow, data-hungry part of an editor once; it is kept, keyed by the weights' fingerprint."""
    handle = loading.load(model)
    chosen = options.make_editor(handle, editor, hparams, seed)
    with options.editors_own(editor):
        if chosen.missing() is None and corpus is None:
            typer.echo(f"{chosen.name} on {handle.name} is ready; nothing to prepare.")
            return
        chosen.prepare(options.show_progress(quiet=quiet), corpus)
    typer.echo(f"{chosen.name} on {handle.name} is ready.")


def _texts(model: str, spec: str, count: int | None = None, *, offline: bool) -> tuple[str, ...]:
    """All texts of a source, or so many; of those that ship for the model as many as a run takes."""
    from editsafety import datasets
    from editsafety.runs.plan import text_source
    from editsafety.runs.settings import Settings

    usual = Settings((model,), ())
    most = count or (None if spec else usual.texts)
    return datasets.texts(spec or text_source(usual, model), limit=most, offline=offline)


def _show(
    request: EditRequest,
    before: tuple[dict[str, Measurement], str],
    after: tuple[dict[str, Measurement], str],
    notes: object,
    seconds: float | None,
) -> None:
    console = escaping.console()
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
