"""Meaning: under which conditions a block's numbers were found, field by field, and what was under test. No torch here.

Two numbers can be compared when the conditions are the same; what is under test (the editor's code and numbers) is what
may differ, and is told beside the comparison.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from editsafety.judging.report import RunReport
from editsafety.names import slug
from editsafety.runs.plan import text_digest

Fields = Mapping[str, Any]

# Each field of the conditions, in words; the names are what `--allow` takes.
CONDITIONS: Mapping[str, str] = {
    "weights": "fingerprint of the unedited model's weights",
    "dtype": "type of the weights",
    "attention": "attention implementation",
    "device": "kind of device",
    "texts": "sha256 of the texts for perplexity",
    "seed": "seed of everything random",
    "batch": "texts per forward pass",
    "adaptive": "whether texts were read only until enough was known",
    "policy": "sha256 of the limits",
    "editsafety": "version of this tool",
    "torch": "version of torch",
    "transformers": "version of transformers",
}


def conditions(report: RunReport, model: str) -> dict[str, Any]:
    """The conditions of a model's numbers in a run, by the model's short name; None where the run does not know."""
    facts, settings = report.facts, report.plan.settings
    texts = next((text_digest(found) for name, found in report.plan.texts.items() if slug(name) == model), None)
    loaded = facts.models.get(model)
    return {
        "weights": loaded and loaded.fingerprint,
        "dtype": loaded and loaded.dtype,
        "attention": loaded and loaded.attention,
        "device": loaded and loaded.device,
        "texts": texts,
        "seed": settings.seed,
        "batch": settings.batch_size,
        "policy": report.policy.digest(),
        **({"adaptive": True} if settings.adaptive else {}),  # baselines of earlier versions have no word on it
        **{name: facts.software.get(name) for name in ("editsafety", "torch", "transformers")},
    }


def subject(report: RunReport, model: str, editor: str) -> dict[str, Any]:
    """What was under test: the editor's code and its hyperparameters."""
    made = report.facts.editors.get((model, editor))
    return {} if made is None else {"code": made.code, **{f"hparams.{k}": v for k, v in sorted(made.hparams.items())}}


def differing(then: Fields, now: Fields) -> Iterator[tuple[str, Any, Any]]:
    """Name, earlier and present value of every field that differs."""
    for name in sorted({*then, *now}):
        if _plain(then.get(name)) != _plain(now.get(name)):
            yield name, then.get(name), now.get(name)


def _plain(value: Any) -> Any:
    """A tuple and the list that it becomes in a file are the same value."""
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
