"""`editsafety bench`: how many times as fast as the published work, and as with `--plain`, pair by pair."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from editsafety import escaping
from editsafety.cli import options
from editsafety.tensor_files import write_atomically

if TYPE_CHECKING:
    from editsafety.research.speed import Race
    from editsafety.research.speed.jobs import Job


def bench(
    *,
    jobs: Annotated[list[str] | None, typer.Argument(help="which ones, see --list", show_default="all")] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="another model than that of the job")] = "",
    pairs: Annotated[int, typer.Option(min=1, help="how often both ways are run, in alternation")] = 5,
    threads: Annotated[int, typer.Option(min=0, help="threads of a CPU; 0: as torch chooses")] = 1,
    everything: Annotated[bool, typer.Option("--list", help="name every job")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="keep the figures of every pair, as JSON")] = None,
    loading: options.Loading,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:
    """Time jobs of a run against the published algorithms' work, and against `--plain`, and compare the results.

    Both ways are run in one process in alternation; CPU time counts on a CPU. `apart` is the largest relative distance
    of their results; the last column what share of the machine's rate in matrix products the fast way reaches.
    """
    from editsafety.research.speed import jobs as every

    if everything:
        escaping.console().print(_listing(every.JOBS.values()))
        return
    chosen = every.chosen(jobs or [], model)
    options.refuse_unwritable(out)
    import torch

    from editsafety.research.speed import race
    from editsafety.research.speed.machine import matmul_rate, operations
    from editsafety.research.speed.workplace import Workplace

    if threads:
        torch.set_num_threads(threads)
    progress = options.show_progress(quiet=quiet)
    places: dict[str, Workplace] = {}
    found: dict[str, Race] = {}
    shares: dict[str, float] = {}
    with progress.task("races", len(chosen) * pairs) as task:
        for job in chosen:
            if job.model not in places:
                places[job.model] = Workplace.at(loading.spec(job.model), progress, seed)
            place = places[job.model]
            device = place.handle.device
            found[job.name] = race(job.pairs(place, pairs), device, partial(task.step, job.name))
            for once in job.pairs(place, 1):
                once.ready_fast()
                shares[job.name] = operations(once.fast) / found[job.name].seconds[1] / matmul_rate(device)
    if not quiet:
        escaping.console().print(_table(chosen, found, shares))
    if out is not None:
        rows = [_row(job, found[job.name], shares[job.name]) for job in chosen]
        write_atomically(out, (json.dumps(rows, indent=1) + "\n").encode())
        typer.echo(f"written: {out}")


def _table(jobs: tuple[Job, ...], found: dict[str, Race], shares: dict[str, float]) -> Table:
    title = "how many times as fast: the median of the pairs, smallest to largest; * below target"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in ("job", "against"):
        table.add_column(heading)
    for heading in ("slow s", "fast s", "faster", "from-to", "target", "apart", "rate"):
        table.add_column(heading, justify="right", no_wrap=True)
    for job in jobs:
        race = found[job.name]
        slow, fast = race.seconds
        missed = "" if race.median >= job.target else "*"
        table.add_row(
            job.name,
            job.against,
            f"{slow:.2f}",
            f"{fast:.2f}",
            f"{race.median:.2f}",
            f"{min(race.ratios):.1f}-{max(race.ratios):.1f}",
            f"{job.target:g}{missed}",
            f"{race.apart:.0e}" if race.apart else "0",
            f"{100 * shares[job.name]:.0f} %",
        )
    return table


def _listing(jobs: Any) -> Table:
    table = Table("job", "what", "against", "model", "target", box=None, pad_edge=False)
    for job in jobs:
        table.add_row(job.name, escape(job.what), job.against, escape(job.model), f"{job.target:g}x")
    return table


def _row(job: Job, race: Race, share: float) -> dict[str, Any]:
    return {
        "job": job.name,
        "model": job.model,
        "against": job.against,
        "target": job.target,
        "median": race.median,
        "slow_seconds": race.slow,
        "fast_seconds": race.fast,
        "apart": race.apart,
        "share_of_matmul_rate": share,
    }
