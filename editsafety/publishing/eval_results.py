"""Evaluation results for a model's repository on the Hugging Face hub: a file below `.eval_results/`.

The layout is the hub's (huggingface.co/docs/hub/eval-results) as huggingface_hub 2.4 reads it: a list of entries, each
with `dataset` (`id`, `task_id`, `revision`), `value`, `source` and `notes`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from editsafety.errors import UsageError
from editsafety.escaping import line
from editsafety.names import tag
from editsafety.publishing.published import DIGITS, PublishedGroup, PublishedRun

STANDS = "stands"  # the task of a model that must not collapse
_NO_RATES = {
    *("cases", "worst_ratio", "median_ratio", "median_update_norm", "median_seconds_per_edit", "peak_bytes"),
    "median_delta_relative",
}


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The data set on the hub that the results are of, and where more can be read. Raises UsageError for no such id."""

    dataset: str
    revision: str = ""
    url: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", self.dataset):
            raise UsageError(f"--dataset {self.dataset!r}: expected the id of a data set on the hub, like owner/name.")
        if self.revision and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise UsageError(f"--dataset-revision {self.revision!r}: expected the 40 hex digits of a commit.")
        if self.url and not re.fullmatch(r"https://[^\s<>\"']+", self.url):
            raise UsageError(f"--source-url {self.url!r}: expected an address that begins with https://.")


def eval_results(run: PublishedRun, of: Benchmark) -> str:
    """The YAML: of each editor the share of cases whose model stands, and every rate. Shares are between 0 and 1.

    Raises UsageError for a run that cannot be relied on: nobody sees on a leaderboard what was the matter with it.
    """
    if not run.document.sound:
        raise UsageError(f"this run is {run.said}: no results of it are to be published. Finish it, or mend it, first.")
    entries = [_entry(run, of, group, task, value) for group in run.document.groups for task, value in _values(group)]
    if not entries:
        raise UsageError("this run has no single edits, so there is no rate to publish. Export a run of them.")
    return str(yaml.safe_dump(entries, sort_keys=False, width=120))


def _values(group: PublishedGroup) -> Iterator[tuple[str, float]]:
    cases = sum(group.planned.values())
    if cases:
        yield STANDS, 1 - group.collapsed / cases
    for name, value in group.whole.items():
        rate = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if rate and name not in _NO_RATES and not name.startswith("median_"):
            yield name, float(value)


def _entry(run: PublishedRun, of: Benchmark, group: PublishedGroup, task: str, value: float) -> Mapping[str, Any]:
    dataset = {"id": of.dataset, "task_id": re.sub(r"[^\w.-]", "-", f"{tag(group.editor)}-{task}")}
    if of.revision:
        dataset["revision"] = of.revision
    entry: dict[str, Any] = {"dataset": dataset, "value": round(value, 6)}
    if of.url:
        entry["source"] = {"url": of.url, "name": f"editsafety {run.document.editsafety}"}
    streams = ", ".join(f"{count} {stream}" for stream, count in group.planned.items())
    policy = run.document.policy
    told = f"{group.editor}: {group.verdict.value} over {streams} cases; policy {policy.name} {policy.digest[:DIGITS]}"
    return {**entry, "notes": line(f"{told}; {run.bound}; editsafety {run.document.editsafety}", 600)}
