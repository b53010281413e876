"""`editsafety export`: what a run says to the page of its model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from editsafety.cli import options
from editsafety.errors import UsageError


def export(
    run: Annotated[Path, typer.Argument(help="the folder of a run, or a report.json")],
    badge: Annotated[
        Path | None, typer.Option(help="an SVG with the verdict and the hash of the weights", show_default="none")
    ] = None,
    model_card: Annotated[
        Path | None, typer.Option(help="Markdown for the card of the model", show_default="none")
    ] = None,
    eval_results: Annotated[
        Path | None, typer.Option(help="YAML for .eval_results/ on the Hugging Face hub", show_default="none")
    ] = None,
    dataset: Annotated[
        str, typer.Option(help="with --eval-results: id of the data set on the hub, owner/name", show_default="none")
    ] = "",
    dataset_revision: Annotated[str, typer.Option(help="its commit", show_default="none")] = "",
    source_url: Annotated[str, typer.Option(help="where more can be read", show_default="none")] = "",
) -> None:
    """Write what a run says to the page of its model: a badge, a text for its card, evaluation results."""
    from editsafety.publishing.badge import badge as badge_of
    from editsafety.publishing.eval_results import Benchmark
    from editsafety.publishing.eval_results import eval_results as results_of
    from editsafety.publishing.model_card import model_card as card_of
    from editsafety.publishing.published import PublishedRun
    from editsafety.tensor_files import write_atomically

    wanted = [path for path in (badge, model_card, eval_results) if path is not None]
    if not wanted:
        raise UsageError("nothing to export: give --badge, --model-card or --eval-results.")
    if eval_results is None and (dataset or dataset_revision or source_url):
        raise UsageError("--dataset, --dataset-revision and --source-url go with --eval-results.")
    if eval_results is not None and not dataset:
        raise UsageError("--eval-results needs --dataset: the id of the data set on the hub that the results are of.")
    for path in wanted:
        options.refuse_unwritable(path)
    found = PublishedRun.read(run)
    written = {}
    if badge is not None:
        written[badge] = badge_of(found)
    if model_card is not None:
        written[model_card] = card_of(found)
    if eval_results is not None:
        written[eval_results] = results_of(found, Benchmark(dataset, dataset_revision, source_url))
    for path, text in written.items():
        write_atomically(path, text.encode("utf-8", "backslashreplace"))
        typer.echo(f"{path}: {found.said} of {found.name}, {found.bound}")
