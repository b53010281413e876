"""Inputs that every measure can work on, and a model that says what a test wants it to say."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from editsafety.abilities import Item, Probe
from editsafety.edits.edit import Edit
from editsafety.measures import Inputs, degenerate, format
from editsafety.model.handle import Batch, ModelHandle
from tests import tiny

CHOICES = tuple(
    Item(f"where-{i}", f"{name} lives in", ("Kelmar", "Ostrin"), i % 2)
    for i, name in enumerate(("Ashurn", "Mirel", "Toren", "The baker"))
)
Script = Callable[[ModelHandle, Mapping[str, str]], ModelHandle]


FOLLOWS = [{"kind": "alias", "prompt": "The son of Mirel works as a", "answer": "teacher"}]


@pytest.fixture(autouse=True)
def few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts are a hundred tokens long: here a few of a few tokens show the same."""
    monkeypatch.setattr(degenerate, "PROMPTS", 3)
    monkeypatch.setattr(degenerate, "TOKENS", 12)
    monkeypatch.setattr(format, "TOKENS", 5)


@pytest.fixture
def handle() -> ModelHandle:
    return tiny.handle("gpt2")


@pytest.fixture
def edit(handle: ModelHandle) -> Edit:
    notes = {"numerator": 4.0, "denominator": 0.5, "key_cosine": 0.9, "first_token": True}
    delta = tiny.low_rank(handle.mlp_out(1))
    return Edit("test", ("case-0",), handle.identity, (delta,), notes=notes)


@pytest.fixture
def inputs() -> Inputs:
    return Inputs(
        requests=(tiny.request(portability=FOLLOWS), tiny.request("case-1", subject="Mirel")),
        texts=tiny.SENTENCES[:4],
        prefixes=("A baker bakes bread. ", "A teacher teaches children. "),
        probes=(Probe("where", "where", "choice", 0.5, CHOICES),),
    )


@pytest.fixture
def script() -> Script:
    """Make a model answer by heart: behind a prompt its text, elsewhere always a full stop."""
    return by_heart


@pytest.fixture
def shared() -> Path:
    """The folder of figures and files to check against, which is not part of the project."""
    here = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("EDITSAFETY_SHARED", here.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here: the published figures cannot be compared")
    return folder


def by_heart(handle: ModelHandle, answers: Mapping[str, str]) -> ModelHandle:
    """A model that says what `answers` hold just now, and a full stop to everything else."""
    size = handle.model.config.vocab_size

    def logits(batch: Batch) -> Tensor:
        lines = [handle.ids(prompt) + handle.ids(answer, special=False) for prompt, answer in answers.items()]
        scores = torch.zeros(*batch.ids.shape, size)
        scores[..., handle.ids(".", special=False)[0]] = 5.0
        for row, ids in enumerate(batch.ids.tolist()):
            for at in range(len(ids)):
                for line in lines:
                    if line[: at + 1] == ids[: at + 1] and len(line) > at + 1:
                        scores[row, at, line[at + 1]] = 10.0
        return scores

    handle.logits = logits  # type: ignore[method-assign]
    return handle
