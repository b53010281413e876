"""Is it the position embedding? The first token is given the second one's position, and the collapses are repeated.

Position ids are raised to at least 1 before they reach the decoder, while the edit is computed as well as while the
edited model is measured: learned absolute positions take the second row of their table, rotary ones turn the first
token like the second. Where a family takes no position ids (ALiBi), it cannot be done. The second moments stay those of
the unchanged model, as any other choice would change the formula, too.
"""

from __future__ import annotations

import inspect
import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import nn

from editsafety.datasets.request import EditRequest
from editsafety.editors import Editor
from editsafety.edits.session import EditSession
from editsafety.errors import UsageError
from editsafety.lab.attempt import compute
from editsafety.lab.bench import Bench
from editsafety.model.handle import ModelHandle
from editsafety.numbers import times
from editsafety.research.experiments import FALL, Cell, Context, Result, over, perplexity, value


class SecondToFirst:
    """Perplexity of the unedited and of the edited models (hard cases), original against Second2First."""

    name: ClassVar[str] = "second-to-first"
    paper: ClassVar[str] = f"{FALL}, table 3"
    title: ClassVar[str] = "perplexity of collapses with the second position in place of the first"

    def __call__(self, context: Context) -> Result:
        """A row for each of the two."""
        handle, requests = context.handle, context.requests("hard")
        refuse(handle)
        original = [ppl for record in context.records("rome", "hard") if (ppl := perplexity(record)) is not None]
        base = value(context.bench.base["me_ppl"])
        editor, moved = context.ready("rome"), list[float]()
        with second_to_first(handle.model):
            shifted = _measure_perplexity(context.bench)
            with context.progress.task("collapses with the second position", len(requests)) as task:
                for request in requests:
                    moved.append(_measure_edited_perplexity(context.bench, editor, request))
                    task.step(f"{request.id} {times(over(moved[-1], shifted))}")
        rows = (_row("original", base, original), _row("Second2First", shifted, moved))
        worst = [times(over(max(found, default=None), was)) for found, was in ((original, base), (moved, shifted))]
        sentence = (
            f"with the second position in place of the first, {sum(_past(moved, shifted))} of {len(moved)} hard edits "
            f"still raise the perplexity more than twofold (by up to {worst[1]}), {sum(_past(original, base))} of "
            f"{len(original)} without (by up to {worst[0]})"
        )
        published = (
            "min / avg / max, original and Second2First: GPT-2 XL 2,177.82 / 19,877.79 / 179,185.99 and 1,008.21 / "
            "1,397.87 / 2,153.86; GPT-J 5,094.73 / 28,835.21 / 85,936.24 and 8,153.70 / 26,978.14 / 124,982.41; "
            "Llama-2-7b 16,279.75 / 67,436.51 / 206,307.60 and 17,561.97 / 72,692.50 / 349,577.58"
        )
        headings = ("positions", "n", "unedited", "minimum", "average", "maximum")
        return Result(self.name, handle.name, headings, rows, sentence, published)


def refuse(handle: ModelHandle) -> None:
    """Raise UsageError for a decoder that takes no position ids."""
    if "position_ids" not in inspect.signature(handle.model.base_model.forward).parameters:
        raise UsageError(
            f"{handle.name} ({handle.kind}) takes no position ids, so its first token cannot be "
            "given another position. Use a model with learned or rotary positions (gpt2, gptj, llama ...)."
        )


@contextmanager
def second_to_first(model: nn.Module) -> Iterator[None]:
    """Inside the block the first token has the position of the second."""

    def raise_ids(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        places = kwargs.get("position_ids")
        if places is None:
            ids = kwargs.get("input_ids")
            ids = args[0] if ids is None else ids
            places = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
        return args, {**kwargs, "position_ids": places.clamp(min=1)}

    body: Any = model.base_model  # reached by whole models and by those who run only the decoder
    hook = body.register_forward_pre_hook(raise_ids, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def _measure_edited_perplexity(bench: Bench, editor: Editor, request: EditRequest) -> float:
    edit = compute(bench.handle, editor, (request,)).edit
    with EditSession(bench.handle) as session:
        session.apply(edit)
        return _measure_perplexity(bench)


def _measure_perplexity(bench: Bench) -> float:
    ppl = bench.measure("model")["me_ppl"].value
    return math.inf if ppl is None else ppl


def _row(name: str, base: float | None, found: Sequence[float]) -> tuple[Cell, ...]:
    if not found:
        return (name, 0, base, None, None, None)
    average = statistics.fmean(found) if math.isfinite(max(found)) else math.inf
    return (name, len(found), base, min(found), average, max(found))


def _past(found: Sequence[float], base: float | None) -> list[bool]:
    return [base is not None and not ppl <= 2 * base for ppl in found]


EXPERIMENT = SecondToFirst()
