"""Perplexity of an edited model from as many texts as it takes, against all of them."""

from __future__ import annotations

import pytest
import torch

from editsafety.judging.stopping import EnoughTexts, reading_order
from editsafety.measures import Inputs
from editsafety.measures.perplexity import MEASURE
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Measurement
from tests import tiny

TEXTS = tuple(f"{sentence} {word}." for word in ("Bread", "Wheat", "A flute") for sentence in tiny.SENTENCES)[:20]
LIMITS = (0.5, 1.25, 2.0)


def measured(handle: ModelHandle, enough: EnoughTexts | None = None) -> dict[str, Measurement]:
    return {one.name: one for one in MEASURE(handle, Inputs(texts=TEXTS, enough=enough))}


def rule(handle: ModelHandle, *limits: float) -> EnoughTexts:
    before = measured(handle)["me_ppl"].items
    return EnoughTexts(tuple(item for item in before if item is not None), limits or LIMITS)


@pytest.fixture
def handle() -> ModelHandle:
    return tiny.handle("gpt2")


@torch.no_grad()
def scale(handle: ModelHandle, factor: float) -> None:
    for weight in handle.model.parameters():
        weight *= factor


def test_a_model_that_stands_is_told_by_eight_texts_and_the_rest_is_not_read(handle: ModelHandle) -> None:
    assert len(TEXTS) > 16
    enough = rule(handle)
    scale(handle, 1.001)
    whole, found = measured(handle), measured(handle, enough)
    value = found["me_ppl"]
    assert (value.n, value.of) == (8, len(TEXTS))
    assert value.between is not None
    assert whole["me_ppl"].value is not None
    assert value.between[0] <= whole["me_ppl"].value <= value.between[1]
    read = [place for place, item in enumerate(value.items) if item is not None]
    assert read == sorted(reading_order(TEXTS)[:8])
    assert [value.items[i] for i in read] == pytest.approx([whole["me_ppl"].items[i] for i in read], rel=1e-5)
    assert found["ppl_even"] == Measurement("ppl_even", 1, "perplexity", whole["ppl_even"].value, n=8)
    for name in ("nll_per_token", "ppl_median", "ppl_worst", "ppl_token_weighted"):
        assert found[name].value is None
        assert "needs every text, and 8 of" in (found[name].reason or "")
        assert not found[name].broken


def test_where_it_cannot_be_told_every_text_is_read_and_the_figures_are_those_of_all(handle: ModelHandle) -> None:
    enough = rule(handle, 1.0)  # the model is as it was, and the limit just there
    whole, found = measured(handle), measured(handle, enough)
    assert (found["me_ppl"].n, found["me_ppl"].of, found["me_ppl"].between) == (len(TEXTS), len(TEXTS), None)
    for name, one in whole.items():
        assert found[name].value == pytest.approx(one.value, rel=1e-5)
        assert found[name].items == pytest.approx(one.items, rel=1e-5)


def test_a_text_that_is_not_finite_is_a_collapse_at_once(handle: ModelHandle) -> None:
    enough = rule(handle)
    scale(handle, float("nan"))
    found = measured(handle, enough)
    assert (found["me_ppl"].broken, found["me_ppl"].value, found["me_ppl"].of) == (True, None, len(TEXTS))
    assert found["me_ppl"].reason == "the logits are not finite on 8 of 8 texts, first on text 1"
    assert all(one.broken for one in found.values())


def test_without_the_rule_nothing_is_said_of_it(handle: ModelHandle) -> None:
    found = measured(handle)["me_ppl"]
    assert (found.of, found.between, found.n) == (0, None, len(TEXTS))
