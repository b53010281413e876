"""Generation: does the edited model still write text that goes on, or does it say the same again and again?

Free text behind each request's prompt, 100 tokens with the prompt, as in ROME (arXiv 2202.05262): the tokens are drawn
from the five most probable, a token that ends a text is one like any other, and the prompt counts as part of the text.
Drawn, not greedy: greedily even an intact small model repeats itself (pocket-qwen comes to 428 in the unit of the
published tables, 635 when drawn; theirs begin at 600). Of equal length, because entropy grows with length.

Where we differ: the draws are seeded by the request, so that the unedited and the edited model are given the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch

from editsafety.datasets.request import EditRequest
from editsafety.errors import DataError
from editsafety.measures import Inputs, _fluency
from editsafety.measures.answers import with_gaps
from editsafety.model.generation import generate
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Measurement

TOKENS = 100  # with the prompt
LEAST = 25  # behind a prompt that leaves less room than that
TOP = 5
UNITS = {"fluency": "bits", "repetition": "share", "longest_run": "tokens", "unigram_entropy": "share"}


class Generation:
    """Per request, then the mean over requests:

    - `fluency`: generation entropy of the text, ((2/3) H_2 + (4/3) H_3) / 2 over words, in bits; published tables show
      100 times this (whole models 600 to 635, degenerate ones below 500)
    - `repetition`: share of the text's three-word runs that were there before, 0 to 1
    - `longest_run`: how often at most the model said one token in a row
    - `unigram_entropy`: H_1 / log2(number of distinct words), 0 to 1 ("Rebuilding ROME", arXiv 2403.07175)

    Answers of `fluency`: the texts. Not run by default: a hundred tokens take about as long as a whole other case.
    """

    name: ClassVar[str] = "generation"
    version: ClassVar[int] = 1
    scope: ClassVar[Literal["model", "case", "edit"]] = "case"
    default: ClassVar[bool] = False
    gives: ClassVar[tuple[str, ...]] = ("fluency", "repetition", "longest_run", "unigram_entropy")

    def __call__(self, handle: ModelHandle, inputs: Inputs) -> tuple[Measurement, ...]:
        """The four figures of the requests. Raises DataError for a prompt that leaves no room in the context."""
        prompts = [handle.ids(request.filled) for request in inputs.requests]
        lengths = [_length(handle, request, len(ids)) for request, ids in zip(inputs.requests, prompts, strict=True)]
        replies = generate(
            handle,
            prompts,
            lengths,
            top=TOP,
            generators=[_generator(request) for request in inputs.requests],
            ends=False,
            batch_size=inputs.batch_size,
        )
        texts = [
            None if ids is None else handle.text([*prompt, *ids]) for prompt, ids in zip(prompts, replies, strict=True)
        ]
        items: dict[str, Sequence[float | None]] = {
            "fluency": [_of(text, _fluency.generation_entropy(text or "")) for text in texts],
            "repetition": [_of(text, _fluency.repetition(_fluency.words(text or ""))) for text in texts],
            "longest_run": [math.nan if ids is None else float(_fluency.longest_run(ids)) for ids in replies],
            "unigram_entropy": [_of(text, _fluency.unigram_entropy([text or ""])) for text in texts],
        }
        reason = "no text is long enough" if inputs.requests else "no requests"
        return tuple(
            with_gaps(name, unit, items[name], reason, answers=texts if name == "fluency" else ())
            for name, unit in UNITS.items()
        )


def _of(text: str | None, figure: float | None) -> float | None:
    return math.nan if text is None else figure


def _length(handle: ModelHandle, request: EditRequest, prompt: int) -> int:
    """How many tokens to write behind a prompt of so many."""
    wanted = max(TOKENS - prompt, LEAST)
    if prompt + LEAST > handle.context:
        raise DataError(
            f"request {request.id!r}: {prompt} tokens leave no room for a text of {LEAST}; {handle.name} takes "
            f"{handle.context} in all. Shorten the prompt."
        )
    return min(wanted, handle.context - prompt)


def _generator(request: EditRequest) -> torch.Generator:
    return torch.Generator().manual_seed(int(request.digest()[:15], 16))


MEASURE = Generation()
