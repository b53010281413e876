"""Models that know every answer of a probe, and models that know none."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from editsafety.abilities import Item
from editsafety.model.handle import Batch, ModelHandle
from tests import tiny

Broken = Callable[[ModelHandle, str], ModelHandle]


@pytest.fixture
def handle() -> ModelHandle:
    return tiny.handle("gpt2")


@pytest.fixture
def shared_data() -> Path:
    """Published files to try the readers on; not part of the project."""
    here = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("EDITSAFETY_SHARED", here.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here: the readers are tried on made-up rows only")
    return folder


def right_answer(item: Item, scorer: str, ending: str = ".") -> str:
    """What a person would answer, as running text."""
    if item.options:
        assert item.gold is not None
        return item.options[item.gold]
    said = item.answers if scorer == "entities" else item.answers[-1:]
    return (", ".join(said) or "none") + ending


def knowing(handle: ModelHandle, items: Sequence[Item], answers: Sequence[str]) -> ModelHandle:
    """Force the logits of a real tiny model so that behind each prompt its answer follows, then an end of text."""
    after: dict[tuple[int, ...], int] = {}
    for item, answer in zip(items, answers, strict=True):
        prompt = item.contexts[item.gold or 0] if item.contexts else item.prompt
        ids = handle.ids(prompt)
        line = [*ids, *handle.target_ids(answer), handle.tokenizer.eos_token_id]
        for at in range(len(ids), len(line)):
            after[tuple(line[:at])] = line[at]
    shortest = min(map(len, after))
    plain = handle.logits

    def logits(batch: Batch) -> Tensor:
        scores = plain(batch)
        for row, ids in enumerate(batch.ids.tolist()):
            for at in range(shortest, len(ids) + 1):
                if (token := after.get(tuple(ids[:at]))) is not None:
                    scores[row, at - 1, token] = 60.0
        return scores

    handle.logits = logits  # type: ignore[method-assign]
    return handle


def broken(handle: ModelHandle, how: str) -> ModelHandle:
    """A dead model: "uniform" (all tokens alike), "nan", "inf", or the text of the one token that it always says."""
    size = handle.model.config.vocab_size

    def logits(batch: Batch) -> Tensor:
        scores = torch.zeros(*batch.ids.shape, size)
        if how in ("nan", "inf"):
            return scores + float(how)
        if how != "uniform":
            scores[..., handle.ids(how, special=False)[0]] = 9.0
        return scores

    handle.logits = logits  # type: ignore[method-assign]
    return handle
