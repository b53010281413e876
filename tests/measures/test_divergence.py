"""Divergences against figures computed another way, in float64, one place at a time; and that an edit shows in them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from editsafety import datasets
from editsafety.edits.edit import Edit, LowRank
from editsafety.edits.session import EditSession
from editsafety.engine.continuing import unchanged
from editsafety.judging.policy import Policy
from editsafety.judging.verdict import Verdict
from editsafety.measures import Inputs, _divergence, kl_first, kl_tokens, perplexity
from editsafety.model.architectures import Part
from editsafety.model.handle import Batch, ModelHandle
from editsafety.runs.measurement import Measurement
from tests import tiny

TEXTS = tiny.SENTENCES


def by_hand(before: Tensor, after: Tensor) -> float:
    """One row, in float64, with softmax written out."""
    first, second = before.double(), after.double()
    p, q = first.exp() / first.exp().sum(), second.exp() / second.exp().sum()
    return float((p * (p / q).log()).sum())


def asking(handle: ModelHandle, batch_size: int = 4) -> Inputs:
    """Everything the two measures need, the model being unedited."""
    inputs = Inputs(texts=TEXTS, batch_size=batch_size)
    kept = {"kl_first": kl_first.MEASURE.refer(handle, inputs), "kl_tokens": kl_tokens.MEASURE.refer(handle, inputs)}
    return Inputs(texts=TEXTS, batch_size=batch_size, references=kept)


def measured(handle: ModelHandle, inputs: Inputs) -> Mapping[str, Measurement]:
    return {one.name: one for measure in (kl_first.MEASURE, kl_tokens.MEASURE) for one in measure(handle, inputs)}


def edit_of(handle: ModelHandle, size: float = 0.3, layer: int = 1) -> Edit:
    return Edit("test", ("a",), handle.identity, (tiny.low_rank(handle.mlp_out(layer), size=size),))


def logits_of(handle: ModelHandle, ids: list[int]) -> Tensor:
    with torch.no_grad():
        return handle.model(input_ids=torch.tensor([ids])).logits[0].float()


def test_a_divergence_is_that_of_float64_and_of_equal_logits_it_is_exactly_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(5, 1000, generator=generator) * 6
    after = before + torch.randn(5, 1000, generator=generator)
    expected = [by_hand(one, other) for one, other in zip(before, after, strict=True)]
    assert _divergence.divergences(before, after).tolist() == pytest.approx(expected, rel=1e-5)
    assert _divergence.divergences(before, before).tolist() == [0.0] * 5
    assert _divergence.divergences(before, before + 3.0).tolist() == pytest.approx([0.0] * 5, abs=1e-5)


def test_what_was_impossible_counts_nothing_and_what_has_become_so_is_infinite() -> None:
    usual, without = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[1.0, 2.0, -torch.inf]])
    assert _divergence.divergences(without, without).tolist() == [0.0]
    assert math.isfinite(_divergence.divergences(without, usual).item())
    assert _divergence.divergences(usual, without).tolist() == [math.inf]
    assert math.isnan(_divergence.divergences(usual, torch.tensor([[1.0, math.nan, 0.0]])).item())


def test_a_percentile_is_numpys_and_logits_are_narrowed_only_where_nothing_is_lost() -> None:
    values = [0.3, 0.1, 7.0, 0.2, 0.15]
    for share in (0.0, 0.5, 0.99, 1.0):
        found = _divergence.percentile_of("x", 1, values, share).value
        assert found == pytest.approx(float(numpy.quantile(values, share)))
    rough = torch.tensor([1.5, -2.0])
    assert _divergence.narrowed(rough, torch.bfloat16).dtype is torch.bfloat16
    assert _divergence.narrowed(rough + 1e-4, torch.bfloat16).dtype is torch.float32


def test_every_figure_equals_the_one_computed_by_hand(handle: ModelHandle) -> None:
    inputs = asking(handle)
    prompts: Any = inputs.references["kl_first"]
    rows = [handle.ids(text, special=False) for text in TEXTS]
    before = [logits_of(handle, list(ids))[-1] for ids in prompts.prompts]
    was = torch.cat([logits_of(handle, ids)[:-1] for ids in rows])
    with EditSession(handle, prove="never") as session:
        session.apply(edit_of(handle))
        found = measured(handle, inputs)
        after = [logits_of(handle, list(ids))[-1] for ids in prompts.prompts]
        now = torch.cat([logits_of(handle, ids)[:-1] for ids in rows])
    first = [by_hand(*pair) for pair in zip(before, after, strict=True)]
    tokens = [by_hand(*pair) for pair in zip(was, now, strict=True)]
    assert found["kl_first"].value == pytest.approx(sum(first) / len(first), rel=1e-4)
    assert found["kl_first"].items == pytest.approx(first, rel=1e-3, abs=1e-6)
    assert found["kl_first_worst"].value == pytest.approx(max(first), rel=1e-4)
    assert found["kl_first_p99"].value == pytest.approx(float(numpy.quantile(first, 0.99)), rel=1e-4)
    assert found["kl_tokens"].value == pytest.approx(sum(tokens) / len(tokens), rel=1e-4)
    assert found["kl_tokens"].n == len(tokens)
    assert found["kl_tokens_p99"].value == pytest.approx(float(numpy.quantile(tokens, 0.99)), rel=1e-4)
    same = float((was.argmax(-1) == now.argmax(-1)).double().mean())
    assert found["kl_tokens_agreement"].value == pytest.approx(same)
    assert found["kl_first"].n == 60
    assert (found["kl_first"].value or 0) > 0.001


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_an_unchanged_model_has_exactly_nothing_in_whichever_way_its_texts_are_run(family: str) -> None:
    handle = tiny.handle(family)
    inputs = asking(handle)
    nothing = LowRank(handle.mlp_out(2), torch.zeros(handle.mlp_out(2).d_out, 1), torch.ones(1, handle.mlp_out(2).d_in))
    for _ in range(4):  # whole, then from the edited layer on
        with EditSession(handle, prove="never") as session:
            session.apply(Edit("noop", (), handle.identity, (nothing,)))
            found = measured(handle, inputs)
        assert {name: one.value for name, one in found.items()} == {
            name: 1.0 if name.endswith("agreement") else 0.0 for name in found
        }


def test_perplexity_and_divergence_of_tokens_take_one_pass_and_perplexity_is_what_it_was(
    handle: ModelHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = asking(handle)
    passes = 0
    logits = ModelHandle.logits

    def counted(self: ModelHandle, batch: Batch) -> Tensor:
        nonlocal passes
        passes += 1
        return logits(self, batch)

    with EditSession(handle, prove="never") as session:
        session.apply(edit_of(handle))
        alone = perplexity.MEASURE(handle, inputs)
        monkeypatch.setattr(ModelHandle, "logits", counted)
        with unchanged(handle):
            kl_tokens.MEASURE(handle, inputs)
            taken = passes
            assert perplexity.MEASURE(handle, inputs) == alone
            assert passes == taken > 0
        with unchanged(handle):
            kl_tokens.MEASURE(handle, inputs)
            session.apply(edit_of(handle, layer=0))
            assert perplexity.MEASURE(handle, inputs) != alone, "another model is asked anew"


def without_direction(handle: ModelHandle, direction: Tensor) -> Edit:
    """Every matrix that writes the residual stream, without what it writes along one direction."""
    unit = direction / direction.norm()
    sites = [site for layer in range(handle.layers) for part in WRITING for site in handle.sites(part, layer)]
    deltas = tuple(LowRank(site, -unit[:, None], (unit @ handle.weight(site))[None]) for site in sites)
    return Edit("without a direction", (), handle.identity, deltas)


WRITING = (Part.MLP_OUT, Part.ATTENTION_OUT)


def state(handle: ModelHandle, prompts: tuple[str, ...]) -> Tensor:
    """The mean of what the first block gives at the last token of each prompt."""
    with torch.no_grad():
        runs = [handle.model(torch.tensor([handle.ids(text)]), output_hidden_states=True) for text in prompts]
    return torch.stack([run.hidden_states[1][0, -1] for run in runs]).mean(0)


def test_a_removed_direction_that_perplexity_lets_pass_is_found_by_the_first_token() -> None:
    handle = ModelHandle.load("pocket-neo")
    inputs = Inputs(texts=datasets.texts("pocket-world/texts", 50))
    kept = {"kl_first": kl_first.MEASURE.refer(handle, inputs)}
    inputs = Inputs(texts=inputs.texts, references=kept)
    prompts = datasets.texts("pocket-world/prompts")
    direction = state(handle, prompts[::2]) - state(handle, prompts[1::2])  # facts less prose
    before = perplexity.MEASURE(handle, inputs)[0].value
    with EditSession(handle, prove="never") as session:
        session.apply(without_direction(handle, direction))
        after = perplexity.MEASURE(handle, inputs)[0].value
        found = kl_first.MEASURE(handle, inputs)[0].value
    limits = Policy.read("ship").case
    assert before is not None
    assert after is not None
    assert limits["perplexity"].verdict(after / before) is Verdict.PASS
    assert limits["kl_first"].verdict(found) is not Verdict.PASS
    assert found is not None
    assert found > 20 * BENIGN


BENIGN = 0.0016  # the most that ROME and fine-tuning come to on three ordinary requests


def test_a_limit_of_memory_leaves_the_longest_texts_out_and_too_small_a_one_gives_a_reason(
    handle: ModelHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = handle.model.config.vocab_size * 4
    whole = measured(handle, asking(handle))["kl_tokens"].n
    monkeypatch.setattr(kl_tokens, "MOST", row * (whole - 1))
    some = measured(handle, asking(handle))["kl_tokens"]
    assert some.value == 0.0
    assert 100 <= some.n < whole
    monkeypatch.setattr(kl_tokens, "MOST", row * 40)
    none = measured(handle, asking(handle))["kl_tokens"]
    assert none.value is None
    assert none.reason is not None
    assert none.reason.startswith("0 MiB have room for the logits of ")
    assert not none.broken
    assert none.applies


def test_a_dead_model_is_broken_and_a_dead_unedited_one_a_reason(handle: ModelHandle) -> None:
    inputs = asking(handle)
    with torch.no_grad():
        handle.model.get_parameter("transformer.ln_f.bias").fill_(math.nan)
    assert all(one.broken and one.value is None for one in measured(handle, inputs).values())
    for one in measured(handle, asking(handle)).values():
        assert one.reason == "the unedited model's logits are not finite"
        assert not one.broken
