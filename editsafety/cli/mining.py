"""`editsafety screen` and `editsafety mine`: which single edits of a pool collapse a model, and a set made of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editsafety.cli import options
from editsafety.cli.signature import only
from editsafety.runs.folders import near
from editsafety.runs.settings import Settings

if TYPE_CHECKING:
    from editsafety.lab.lab import Lab
    from editsafety.runs.plan import RunPlan

Pool = Annotated[str, typer.Option(help="requests to screen: a data set, LOADER:FILE or FILE.jsonl")]
Limit = Annotated[
    int | None, typer.Option(help="maximum number of requests, evenly from all over the pool", show_default="all")
]
Screened = Annotated[Settings, only("texts_from", "hparams", "policy", "seed", "skip_bad_rows", *options.LOADING)]


def screen(
    *,
    model: options.Model,
    pool: Pool,
    editor: options.EditorName = "rome",
    collapse_above: options.CollapseAbove = None,
    limit: Limit = None,
    settings: Screened,
    shard: Annotated[str, typer.Option(help="i/n: only every n-th of them; all shards share the --out")] = "",
    preview: Annotated[bool, typer.Option("--preview", help="only count subjects, with the tokenizer alone")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="folder for results, to go on after an interruption, and report.json",
            show_default="reports/screen-...",
        ),
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Run all single edits of a pool: how many collapse the model, which, and what their weights show."""
    if preview:
        _preview(model, pool, limit, settings)
        return
    from editsafety.research.hardcases import mining

    above = options.collapse_limit(collapse_above, settings.policy)
    plan = plan_for(replace(settings, models=(model,), editors=(editor,)), pool)
    lab = lab_for(plan, out, limit, shard, quiet=quiet)
    found = mining.screen(lab, above=above)
    for name, figure in found.summary():
        typer.echo(f"{name}: {figure}")
    path = lab.store.path.parent / f"report{'-' if shard else ''}{shard.replace('/', '-of-')}.json"
    mining.write_report(path, lab, found)
    typer.echo(f"written: {near(path.absolute())}")


def mine(
    *,
    model: options.Model,
    pool: Pool,
    out: Annotated[Path, typer.Option("--out", "-o", help="where the hard cases go (.jsonl)")],
    editor: options.EditorName = "rome",
    collapse_above: options.CollapseAbove = None,
    most: Annotated[int | None, typer.Option(help="keep so many of them, evenly spread over the pool")] = None,
    limit: Limit = None,
    settings: Screened,
    screening: Annotated[
        Path | None,
        typer.Option(help="the folder of a screening, which is gone on with", show_default="reports/screen-..."),
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Screen a pool and keep the edits that collapse the model, with where they come from."""
    from editsafety.research.hardcases import mining

    options.refuse_unwritable(out)
    above = options.collapse_limit(collapse_above, settings.policy)
    plan = plan_for(replace(settings, models=(model,), editors=(editor,)), pool)
    lab = lab_for(plan, screening, limit, "", quiet=quiet)
    found = mining.screen(lab, above=above)
    hard = mining.hard_cases(found, most)
    mining.write(out, lab, found, hard)
    for name, figure in (*found.summary(), ("kept", str(len(hard)))):
        typer.echo(f"{name}: {figure}")
    typer.echo(f"written: {out}")


def plan_for(settings: Settings, pool: str) -> RunPlan:
    """The plan of all single edits of a pool, by the model and the editor of the settings."""
    from editsafety.runs.plan import RunPlan

    return RunPlan.of(replace(settings, normal=pool, controls=0, prepare=True))


def lab_for(plan: RunPlan, folder: Path | None, limit: int | None, shard: str, *, quiet: bool) -> Lab:
    """The lab of a screening. Its folder is that of the whole pool: a larger sample finds what was run before."""
    from editsafety.lab.lab import Lab
    from editsafety.research.hardcases import mining
    from editsafety.runs.folders import STORE
    from editsafety.runs.store import Store

    place = folder or Path("reports") / f"screen-{plan.digest()[:12]}"
    return Lab(mining.sample_cases(plan, limit, shard), Store(place / STORE), options.show_progress(quiet=quiet))


def _preview(model: str, pool: str, limit: int | None, settings: Settings) -> None:
    from editsafety.model.loading import ModelSpec
    from editsafety.research.hardcases.preview import Preview, tokenizer_of
    from editsafety.runs.plan import spread

    requests = options.read_requests(pool, skip_bad_rows=settings.skip_bad_rows, offline=settings.offline)
    chosen = spread(requests, limit or len(requests))
    trusted = settings.trust_remote_code
    spec = ModelSpec(model, revision=settings.revision, offline=settings.offline, trust_remote_code=trusted)
    tokenizer = tokenizer_of(spec)
    counts = Preview.of(tokenizer, chosen)
    typer.echo(f"requests: {counts.rows} of {len(requests)}")
    typer.echo(f"subject in first place: {counts.subject_first}")
    typer.echo(f"a single word there: {counts.one_word_first}")
    typer.echo(f"one token of {model} there: {counts.one_token_first}")
