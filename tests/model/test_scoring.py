"""Scores do not depend on batching, padding or order, and agree with a plain loop."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor

from editsafety.model.handle import ModelHandle
from editsafety.model.scoring import continuations, log_likelihoods, next_logits, token_nll
from tests import tiny

TEXTS = [
    "The capital of Dorvan is Kelmar.",
    "A",
    "Mirel plays the violin every evening; Toren plays the flute.",
    "x y z",
    "Where does Toren live? Toren lives in Ostrin, close to the old harbour. " * 3,
    "A farmer grows wheat.",
]


@pytest.fixture(params=tiny.FAMILIES)
def handle(request: pytest.FixtureRequest) -> ModelHandle:
    return tiny.handle(request.param)


def rows_of(handle: ModelHandle) -> list[list[int]]:
    return [handle.ids(text) for text in TEXTS]


def plain_nll(handle: ModelHandle, row: list[int]) -> Tensor:
    """One row at a time, no padding, no mask, softmax in float64, token by token."""
    with torch.no_grad():
        logits = handle.model(input_ids=torch.tensor([row])).logits[0].double()
    probabilities = torch.exp(logits - logits.max(-1, keepdim=True).values)
    probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return torch.tensor([-torch.log(probabilities[t, row[t + 1]]) for t in range(len(row) - 1)])


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_token_nll_agrees_with_a_plain_loop(handle: ModelHandle, batch_size: int) -> None:
    rows = rows_of(handle)
    found = token_nll(handle, rows, batch_size=batch_size)
    for row, values in zip(rows, found, strict=True):
        assert values.dtype == torch.float32
        torch.testing.assert_close(values, plain_nll(handle, row).float(), atol=1e-5, rtol=1e-5)


def test_token_nll_does_not_depend_on_the_order_of_rows() -> None:
    handle = tiny.handle("llama")
    rows = rows_of(handle)
    order = list(range(len(rows)))
    random.Random(3).shuffle(order)
    straight = token_nll(handle, rows, batch_size=3)
    shuffled = token_nll(handle, [rows[i] for i in order], batch_size=3)
    for place, i in enumerate(order):
        assert torch.equal(shuffled[place], straight[i])  # bit for bit: batches are made by length, not by order


def test_rows_of_one_token_or_none_have_nothing_to_score() -> None:
    handle = tiny.handle("gpt2")
    found = token_nll(handle, [[5], [], [5, 6]])
    assert [len(values) for values in found] == [0, 0, 1]
    assert token_nll(handle, []) == []
    assert [len(values) for values in token_nll(handle, [[], []])] == [0, 0]


def test_half_precision_models_are_scored_in_float32() -> None:
    handle = tiny.handle("gpt2", dtype="bfloat16")
    row = handle.ids(TEXTS[0])
    with torch.no_grad():
        logits = handle.model(input_ids=torch.tensor([row])).logits[0]
    expected = torch.nn.functional.cross_entropy(logits[:-1].float(), torch.tensor(row[1:]), reduction="none")
    torch.testing.assert_close(token_nll(handle, [row])[0], expected, atol=0.02, rtol=0.01)
    assert token_nll(handle, [row])[0].dtype == torch.float32


def test_a_broken_model_gives_non_finite_scores_and_no_exception() -> None:
    handle = tiny.handle("gpt2")
    handle.model.transformer.ln_f.weight.data.fill_(float("nan"))
    assert not torch.isfinite(token_nll(handle, [handle.ids(TEXTS[0])])[0]).any()


@pytest.mark.parametrize("batch_size", [1, 64])
def test_continuations_are_what_generate_writes_row_by_row(handle: ModelHandle, batch_size: int) -> None:
    """Expected: transformers' own greedy search on each prompt alone, without padding."""
    prompts = [
        handle.ids(text) for text in ("Ashurn works as a", "The capital of", "x", "A teacher teaches children and a")
    ]
    lengths = [3, 7, 1, 5]
    found = continuations(handle, prompts, lengths, batch_size=batch_size)
    for prompt, n, tokens in zip(prompts, lengths, found, strict=True):
        ids = torch.tensor([prompt])
        with torch.no_grad():
            written = handle.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, min_new_tokens=n, do_sample=False,
                eos_token_id=None, pad_token_id=1,
            )  # fmt: skip
        assert tokens == written[0, len(prompt) :].tolist()


def test_continuations_leave_the_prompts_as_they_were_and_take_zero_lengths() -> None:
    handle = tiny.handle("gpt2")
    prompts = [[5, 6], [7]]
    assert continuations(handle, prompts, [0, 2])[0] == []
    assert prompts == [[5, 6], [7]]


def test_a_model_of_nothing_but_nan_continues_with_the_lowest_id() -> None:
    handle = tiny.handle("gpt2")
    handle.model.transformer.ln_f.weight.data.fill_(float("nan"))
    assert continuations(handle, [[5, 6]], [2]) == [[0, 0]]


def test_a_word_whose_logit_is_nan_is_never_chosen() -> None:
    handle = tiny.handle("gpt2", tied=False)
    chosen = continuations(handle, [[5, 6]], [1])[0][0]
    with torch.no_grad():
        handle.model.lm_head.weight[chosen + 1] = float("nan")
    assert continuations(handle, [[5, 6]], [1]) == [[chosen]]


def test_next_logits_are_those_behind_the_last_real_token(handle: ModelHandle) -> None:
    rows = [row for row in rows_of(handle) if row]
    found = next_logits(handle, rows)
    for row, values in zip(rows, found, strict=True):
        with torch.no_grad():
            alone = handle.model(input_ids=torch.tensor([row])).logits[0, -1]
        torch.testing.assert_close(values, alone.float(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("vocabulary", [384, 49_152, 151_936])
@pytest.mark.parametrize("peak", [0.0, 8.0, 12.0, 17.0])
def test_log_likelihoods_have_no_bias_in_large_vocabularies(vocabulary: int, peak: float) -> None:
    """One token stands out from many of equal probability: where adding one after the other to a float32 goes wrong."""
    logits = torch.zeros(2, 3, vocabulary)
    logits[..., 7] = peak
    tokens = torch.tensor([[7, 0, 5], [1, 7, vocabulary - 1]])
    exact = torch.log_softmax(logits.double(), -1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    found = log_likelihoods(logits, tokens)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, exact, atol=3e-6, rtol=0)


def test_the_log_softmax_of_float32_does_have_that_bias() -> None:
    logits = torch.zeros(49_152)
    logits[7] = 12.0
    biased = logits.log_softmax(-1)[7].double() - logits.double().log_softmax(-1)[7]
    if abs(biased) < 1e-5:
        pytest.skip(f"not on this processor: {biased:.1e}")
    assert abs(log_likelihoods(logits, torch.tensor(7)) - logits.double().log_softmax(-1)[7]) < abs(biased) / 10


@pytest.mark.parametrize(("bad", "of"), [(torch.nan, 3), (torch.inf, 3), (torch.inf, 7), (-torch.inf, 7)])
def test_what_is_not_finite_in_the_logits_does_not_become_a_number(bad: float, of: int) -> None:
    logits = torch.zeros(1, 20)
    logits[0, of] = bad
    assert not torch.isfinite(log_likelihoods(logits, torch.tensor([7]))).any()


def test_a_token_of_probability_nothing_leaves_the_others_theirs() -> None:
    logits = torch.zeros(1, 20)
    logits[0, 3] = -torch.inf
    assert float(log_likelihoods(logits, torch.tensor([7]))) == pytest.approx(-math.log(19), abs=1e-9)
