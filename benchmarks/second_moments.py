"""What texts second moments are made from, and what that does to edits: angles between updates, and figures of edits.

    python benchmarks/second_moments.py --model FOLDER --corpus texts.txt --tokens 300000 --edits 10

The reference is C of so many tokens of the corpus. Beside it: as few tokens of it as are the default, what the model
writes by itself, and the texts that ship. A line of JSON for each figure. v* does not depend on C, so the angle between
two updates of ROME is the angle between their C^-1 k.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
from collections.abc import Iterator, Sequence

import torch

from editsafety import datasets, editors, measures
from editsafety.datasets.request import EditRequest
from editsafety.editing import contexts
from editsafety.edits.edit import Edit, LowRank
from editsafety.edits.seal import Keepsake
from editsafety.judging.policy import Policy
from editsafety.lab.attempt import Made, Questions, attempt, compute
from editsafety.lab.bench import Bench
from editsafety.lab.tools import artifacts_for
from editsafety.model.handle import ModelHandle
from editsafety.model.loading import ModelSpec
from editsafety.progress import Progress
from editsafety.research.tracing.facts import known_requests
from editsafety.shipped import shipped

ASKED = ("efficacy", "generalisation", "locality")
Source = tuple[str, dict[str, object]]


def main() -> None:
    """Read the options, and print a line for each figure as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", required=True, help="real texts, one per line, or JSON lines with the field text")
    parser.add_argument("--tokens", type=int, default=300_000, help="of the reference")
    parser.add_argument("--editor", action="append", default=[], help="repeatable; rome and memit")
    parser.add_argument("--edits", type=int, default=10, help="known facts that are edited")
    parser.add_argument("--texts", type=int, default=50, help="for perplexity")
    asked = parser.parse_args()
    handle = ModelHandle.load(ModelSpec(asked.model, "auto", offline=True))
    for name in asked.editor or ["rome", "memit"]:
        for figures in measured(handle, name, asked):
            print(json.dumps({"editor": name, **figures}), flush=True)


def sources(asked: argparse.Namespace) -> tuple[Source, ...]:
    """What C is made from; the reference first."""
    ours = str(shipped("data") / "english" / "texts.jsonl")
    return (
        ("corpus, all", {"mom2_corpus": asked.corpus, "mom2_tokens": asked.tokens}),
        ("corpus, as many as the default", {"mom2_corpus": asked.corpus}),
        ("the model itself", {"mom2_corpus": "self"}),
        ("the model itself, four times as many", {"mom2_corpus": "self", "mom2_tokens": 61_440}),
        ("english/texts", {"mom2_corpus": ours}),
    )


def measured(handle: ModelHandle, name: str, asked: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Figures of edits with C of every source, and how far their updates are from those of the reference."""
    artifacts = artifacts_for(handle)
    known = known_requests(handle, [row for row in datasets.requests("english/normal") if row.rephrasings])
    requests = list(itertools.islice(known, asked.edits))
    texts = datasets.texts("english/texts", limit=asked.texts)
    prefixes = contexts.prefixes(handle, artifacts, seed=0)
    bench = Bench(handle, texts, prefixes, 64, Keepsake.of(handle, most_bytes=0), measures.needed())
    bench.open(Policy.read("default"))
    reference: list[Edit] = []
    # The numbers of Llama leave C out of ROME, as EasyEdit's file does.
    used = {"mom2_adjustment": True} if "mom2_adjustment" in editors.load(name).Hparams.model_fields else {}
    for source, changes in sources(asked):
        editor = editors.make(name, handle, artifacts, changes={**changes, **used}, seed=0)
        if editor.missing() is not None:
            editor.prepare(Progress.quiet())
        edits, rows = [], []
        for request in requests:
            made = compute(handle, editor, (request,))
            edits.append(made.edit)
            rows.append(figures_of(bench, request, made))
        reference = reference or edits
        angles = [cosine(one, other) for one, other in zip(edits, reference, strict=True)]
        means = {figure: round(statistics.fmean(row[figure] for row in rows), 4) for figure in rows[0]}
        yield {"C from": source, "cosine": [round(min(angles), 4), round(statistics.fmean(angles), 4)], **means}


def figures_of(bench: Bench, request: EditRequest, made: Made) -> dict[str, float]:
    """The rates of one edit and the ratio of perplexities."""
    before = {**bench.base, **bench.unedited((request,))}
    step, _ = attempt(bench, made, [Questions((request,), before)])
    rates = {figure: float(step.found[figure].value or 0.0) for figure in ASKED}
    after, then = step.found["me_ppl"].value, before["me_ppl"].value
    return {**rates, "perplexity": float("inf") if after is None or then is None else after / then}


def cosine(one: Edit, other: Edit) -> float:
    """Of two edits with the same low-rank sites, over all of them together; by inner products of the factors."""
    return inner(one, other) / math.sqrt(inner(one, one) * inner(other, other))


def inner(one: Edit, other: Edit) -> float:
    """The sum over sites of trace(A^T B)."""
    return sum(product(a, b) for a, b in zip(lowrank(one), lowrank(other), strict=True))


def lowrank(edit: Edit) -> Sequence[LowRank]:
    """Its deltas, which have to be of low rank."""
    return [delta for delta in edit.deltas if isinstance(delta, LowRank)]


def product(a: LowRank, b: LowRank) -> float:
    """trace((L_a R_a)^T L_b R_b)."""
    return float(torch.trace((a.left.T @ b.left).double() @ (b.right @ a.right.T).double()))


if __name__ == "__main__":
    main()
