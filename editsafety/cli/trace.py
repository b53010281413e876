"""`editsafety trace`: causal tracing: which layers and tokens of a model carry the facts that it knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from editsafety import escaping
from editsafety.cli import options
from editsafety.cli.signature import only
from editsafety.errors import UsageError
from editsafety.runs.settings import Settings

if TYPE_CHECKING:
    from editsafety.research.tracing.effects import CausalTrace

PICTURES = (".svg", ".png", ".pdf")


def trace(
    *,
    model: options.Model,
    requests: Annotated[str, options.known_facts()] = "",
    facts: Annotated[int, typer.Option(min=1, help="how many facts that the model knows")] = 20,
    samples: Annotated[int, typer.Option(min=1, help="runs of each with noise of their own")] = 1,
    window: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="layers whose MLPs or attentions are restored together",
            show_default="10 of 48, as in ROME",
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(help="what is restored: state, mlp or attention; repeatable", show_default="all three"),
    ] = None,
    settings: Annotated[Settings, only("seed", "batch_size", "skip_bad_rows", "plain")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="save all effects as JSON")] = None,
    draw: Annotated[
        Path | None, typer.Option("--map", help="draw the heat maps (.svg, .png, .pdf); the effects go beside as .json")
    ] = None,
    loading: options.Loading,
    quiet: options.Quiet = False,
) -> None:
    """Where a model keeps its facts: how much of an answer comes back when one place is restored under noise."""
    from editsafety.lab.tools import artifacts_for
    from editsafety.research.tracing import drawing, tracing
    from editsafety.research.tracing.effects import KINDS
    from editsafety.research.tracing.facts import known_facts
    from editsafety.research.tracing.runs import Protocol
    from editsafety.runs import plan as plans

    if draw is not None and draw.suffix not in PICTURES:
        raise UsageError(f"--map {draw}: end its name in {', '.join(PICTURES)}.")
    if out is None and draw is not None:
        out = draw.with_suffix(".json")
    options.refuse_unwritable(out)
    options.refuse_unwritable(draw)
    kinds = tuple(dict.fromkeys(kind or KINDS))
    spec = requests or plans.streams(settings, model)["normal"]
    rows = options.requests_for(model, spec, settings, loading)
    handle = loading.load(model)
    handle.engine.plain = settings.plain
    protocol = Protocol(kinds, samples, window or Protocol.window_of(handle.layers), settings.seed, settings.batch_size)
    known = known_facts(handle, rows, facts)
    if len(known) < facts:
        typer.echo(f"{handle.name} knows {len(known)} of the facts in {spec}; {facts} were asked for.", err=True)
    progress = options.show_progress(quiet=quiet)
    found = tracing.trace_facts(handle, known, protocol, artifacts_for(handle), progress)
    if not quiet:
        escaping.console().print(_table(found))
    if out is not None:
        found.save(out)
        typer.echo(f"saved {out}")
    if draw is not None:
        draw.write_bytes(drawing.draw(found, draw.suffix[1:]))
        typer.echo(f"drawn {draw}")


def _table(found: CausalTrace) -> Table:
    title = (
        f"{found.model}: the noise takes {found.total_effect:.3f} of the answer's probability, on average over "
        f"{len(found.facts)} facts; restored, at the layer with the largest effect"
    )
    table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False)
    for heading in ("restored", "at", "facts", "layer", "effect", "error"):
        table.add_column(heading, justify="left" if heading in ("restored", "at") else "right")
    for one in found.averages:
        cells = (str(one.facts), str(one.peak), f"{one.mean[one.peak]:.3f}", f"{one.stderr[one.peak]:.3f}")
        table.add_row(one.kind, one.tokens, *cells)
    return table
