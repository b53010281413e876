"""`editsafety screen` and `editsafety mine`: which single edits of a pool collapse a model, and a set made of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editsafety.cli import options

if TYPE_CHECKING:
    from editsafety.lab.lab import Lab
    from editsafety.runs.plan import RunPlan

Pool = Annotated[str, typer.Option(help="requests to screen: a data set, LOADER:FILE or FILE.jsonl")]
Above = Annotated[float, typer.Option(help="an edit collapses when it multiplies the perplexity by more than this")]
Texts = Annotated[str, typer.Option(help="texts for perplexity [default: those of the model]")]
Limit = Annotated[int | None, typer.Option(help="screen so many requests, evenly from all over the pool")]
StoreAt = Annotated[Path | None, typer.Option("--store", help="folder for results, to go on after an interruption")]


def screen(
    model: options.Model,
    pool: Pool,
    editor: options.Editor = "rome",
    above: Above = 2.0,
    texts: Texts = "",
    hparams: options.HparamsFile = None,
    limit: Limit = None,
    shard: Annotated[str, typer.Option(help="i/n: only every n-th of them; all shards share the --store")] = "",
    preview: Annotated[bool, typer.Option("--preview", help="only count subjects, with the tokenizer alone")] = False,
    json_: Annotated[Path | None, typer.Option("--json", help="write all that was found to this file")] = None,
    store: StoreAt = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:
    """Run all single edits of a pool: how many collapse the model, which, and what their weights show."""
    if preview:
        _preview(model, pool, limit, revision, offline=offline, trust=trust_remote_code)
        return
    from editsafety.research.hardcases import mining

    plan = plan_for(
        model, pool, editor, texts=texts, hparams=(str(hparams),) if hparams else (), device=device, dtype=dtype,
        revision=revision, offline=offline, trust_remote_code=trust_remote_code, seed=seed,
    )  # fmt: skip
    lab = lab_for(plan, store, limit, shard, quiet=quiet)
    found = mining.screen(lab, above=above)
    for name, figure in found.summary():
        typer.echo(f"{name}: {figure}")
    if json_ is not None:
        mining.write_report(json_, lab, found)
        typer.echo(f"written: {json_}")


def mine(
    model: options.Model,
    pool: Pool,
    output: Annotated[Path, typer.Option("-o", "--output", help="where the hard cases go (.jsonl)")],
    editor: options.Editor = "rome",
    above: Above = 2.0,
    most: Annotated[int | None, typer.Option(help="keep so many of them, evenly spread over the pool")] = None,
    texts: Texts = "",
    hparams: options.HparamsFile = None,
    limit: Limit = None,
    store: StoreAt = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:
    """Screen a pool and keep the edits that collapse the model, with where they come from."""
    from editsafety.research.hardcases import mining

    plan = plan_for(
        model, pool, editor, texts=texts, hparams=(str(hparams),) if hparams else (), device=device, dtype=dtype,
        revision=revision, offline=offline, trust_remote_code=trust_remote_code, seed=seed,
    )  # fmt: skip
    lab = lab_for(plan, store, limit, "", quiet=quiet)
    found = mining.screen(lab, above=above)
    hard = mining.hard_cases(found, most)
    mining.write(output, lab, found, hard)
    for name, figure in (*found.summary(), ("kept", str(len(hard)))):
        typer.echo(f"{name}: {figure}")
    typer.echo(f"written: {output}")


def plan_for(model: str, pool: str, editor: str, **settings: Any) -> RunPlan:
    """The plan of single edits of a pool; `settings` are fields of `plan.Settings`."""
    from editsafety.runs.plan import RunPlan, Settings

    return RunPlan.of(Settings((model,), (editor,), normal=pool, controls=0, prepare=True, **settings))


def lab_for(plan: RunPlan, store: Path | None, limit: int | None, shard: str, *, quiet: bool) -> Lab:
    """The lab of a screening. Its folder is that of the whole pool: a larger sample finds what was run before."""
    from editsafety.lab.lab import Lab
    from editsafety.progress import Progress
    from editsafety.research.hardcases import mining
    from editsafety.runs.folders import STORE
    from editsafety.runs.store import Store

    folder = store or Path("reports") / f"screen-{plan.digest()[:12]}"
    progress = Progress(sys.stderr, "quiet" if quiet else "auto")
    return Lab(mining.sampled(plan, limit, shard), Store(folder / STORE), progress)


def _preview(model: str, pool: str, limit: int | None, revision: str | None, *, offline: bool, trust: bool) -> None:
    from editsafety import datasets
    from editsafety.model.loading import ModelSpec
    from editsafety.research.hardcases.preview import Preview, tokenizer_of
    from editsafety.runs.plan import spread

    requests = datasets.requests(pool)
    chosen = spread(requests, limit or len(requests))
    tokenizer = tokenizer_of(ModelSpec(model, revision=revision, offline=offline, trust_remote_code=trust))
    counts = Preview.of(tokenizer, chosen)
    typer.echo(f"requests: {counts.rows} of {len(requests)}")
    typer.echo(f"subject in first place: {counts.subject_first}")
    typer.echo(f"a single word there: {counts.one_word_first}")
    typer.echo(f"one token of {model} there: {counts.one_token_first}")
