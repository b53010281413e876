"""`editsafety run --plan`: what a run is going to take, before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Table

from editsafety import escaping
from editsafety.names import slug
from editsafety.numbers import in_bytes
from editsafety.runs.plan import RunPlan
from editsafety.runs.settings import Settings

if TYPE_CHECKING:
    import torch

    from editsafety.lab.forecast import Forecast

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


def show(settings: Settings) -> None:
    """Print cases, memory and time of every model of a run. Loads none of them. Raises what laying out a run raises."""
    from editsafety.lab import forecast
    from editsafety.model.loading import ModelSpec, devices_of
    from editsafety.plugin.workers import pick_auto
    from editsafety.research.speed.machine import matmul_rate

    plan = RunPlan.of(settings)
    devices = devices_of(ModelSpec.asked(settings.models[0], settings))
    rate = matmul_rate(devices[0])
    seconds, cases, known = 0.0, len(plan.cases) + len(plan.controls), True
    for model in dict.fromkeys(settings.models):
        found = forecast.of(plan, model, ModelSpec.asked(model, settings), devices)
        if found is None:
            typer.echo(f"{slug(model)}: not on this machine yet, so that nothing is known of its size")
            known = False
            continue
        _show_model(found, devices, rate)
        seconds += found.seconds(rate)
        known = known and all(one.operations is not None for one in found.work)
    more = "" if known else ", and what is not known beforehand"
    typer.echo(
        f"{cases} single edits and controls: about {in_words(seconds)} with one worker{more}; "
        f"{forecast.RECORD * cases / 1e6:.1f} MB of results"
    )
    workers = pick_auto(settings)
    if workers.count > 1:
        typer.echo(f"-n auto shares them between {workers.count} workers, {workers.why}")
    typer.echo("(counted from shapes, not measured: it may be a third of that or three times as much)")


def _show_model(found: Forecast, devices: Sequence[torch.device], rate: float) -> None:
    from editsafety.lab import forecast
    from editsafety.model import room

    shape, there = found.shape, devices[0].type
    typer.echo(
        f"{found.spec.slug}: {shape.parameters / 1e6:.1f} M parameters as {found.spec.dtype} on {room.named(devices)}"
    )
    table = Table("takes", "where", "at most", box=None, pad_edge=False)
    for need in sorted(found.needs, key=lambda one: -one.size):
        table.add_row(escape(need.what), there if need.place == "device" else "cpu", in_bytes(need.size))
    console = escaping.console()
    console.print(table)
    places: tuple[forecast.Place, ...] = ("device",) if there == "cpu" else ("device", "host")
    for place in places:
        free, held = room.free_memory(*devices if place == "device" else ()), found.held(place)
        where = room.named(devices) if place == "device" else "cpu"
        left = "" if free is None else f"; {in_bytes(free)} are free" + (" (too little)" if held > free else "")
        typer.echo(f"together on {where}: {in_bytes(held)}{left}")
    work = Table("editor", "cases", "a case", "all", box=None, pad_edge=False)
    for one in found.work:
        each = None if one.operations is None else one.operations / (rate * forecast.REACHED)
        said = ("not known", "not known") if each is None else (in_words(each), in_words(each * one.cases))
        work.add_row(escape(one.editor), str(one.cases), *said)
    console.print(work)
    if found.uncounted:
        typer.echo(f"not counted, as it cannot be told beforehand: {', '.join(found.uncounted)}")


def in_words(seconds: float) -> str:
    """A length of time as people read it."""
    for unit, name in ((DAY, "days"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
