"""`editsafety mine`: make a set of hard cases for a model and an editor out of a pool of requests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from editsafety.cli import options


def mine(
    model: options.Model,
    pool: Annotated[str, typer.Option(help="requests to screen: a data set, LOADER:FILE or FILE.jsonl")],
    output: Annotated[Path, typer.Option("-o", "--output", help="where the hard cases go (.jsonl)")],
    editor: options.Editor = "rome",
    above: Annotated[float, typer.Option(help="keep edits that multiply the perplexity by more than this")] = 2.0,
    most: Annotated[int | None, typer.Option(help="keep so many of them, evenly spread over the pool")] = None,
    texts: Annotated[str, typer.Option(help="texts for perplexity [default: those of the model]")] = "",
    hparams: options.HparamsFile = None,
    limit: Annotated[int | None, typer.Option(help="screen only the first requests")] = None,
    store: Annotated[Path | None, typer.Option(help="folder for results, to go on after an interruption")] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:
    """Run all single edits of a pool and keep those that collapse the model."""
    from editsafety import mining
    from editsafety.lab import Lab
    from editsafety.plan import RunPlan, Settings
    from editsafety.progress import Progress
    from editsafety.runs import STORE
    from editsafety.store import Store

    settings = Settings(
        (model,), (editor,), normal=pool, texts=texts, limit=limit, hparams=(str(hparams),) if hparams else (),
        device=device, dtype=dtype, revision=revision, offline=offline, trust_remote_code=trust_remote_code,
        seed=seed, controls=0, prepare=True,
    )  # fmt: skip
    plan = RunPlan.of(settings)
    folder = store or Path("reports") / f"mine-{plan.digest()[:12]}"
    lab = Lab(plan, Store(folder / STORE), Progress(sys.stderr, "quiet" if quiet else "auto"))
    found = mining.mine(lab, above=above, most=most)
    mining.write(output, plan, found, above=above)
    for name, figure in mining.summary(found):
        typer.echo(f"{name}: {figure}")
    typer.echo(f"written: {output}")
