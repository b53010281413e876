"""Perplexity against figures that were computed another way."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path

import pytest
import torch

from editsafety.errors import DataError
from editsafety.measures import Inputs
from editsafety.measures.perplexity import MEASURE
from editsafety.model.handle import Batch, ModelHandle
from editsafety.runs.measurement import Measurement
from tests import tiny

TEXTS = tiny.SENTENCES


def measured(handle: ModelHandle, texts: tuple[str, ...] = TEXTS) -> dict[str, Measurement]:
    return {found.name: found for found in MEASURE(handle, Inputs(texts=texts))}


def by_hand(handle: ModelHandle, text: str) -> list[float]:
    """Nats of tokens 2..n: one text at a time, in float64, no padding, and softmax written out."""
    ids = handle.tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = handle.model(input_ids=torch.tensor([ids])).logits[0].double()
    return [float(torch.logsumexp(logits[t], 0) - logits[t, ids[t + 1]]) for t in range(len(ids) - 1)]


@pytest.mark.parametrize(
    ("family", "tokenizer"), [("gpt2", "bytes"), ("llama", "bytes_bos"), ("gemma2", "metaspace_bos")]
)
def test_every_figure_equals_the_one_computed_by_hand(family: str, tokenizer: str) -> None:
    handle = tiny.handle(family, spelling=tokenizer)
    nats = [by_hand(handle, text) for text in TEXTS]
    ppl = [math.exp(sum(row) / len(row)) for row in nats]
    tokens = [value for row in nats for value in row]
    found = measured(handle)
    assert found["me_ppl"].value == pytest.approx(sum(ppl) / len(ppl), rel=1e-5)
    assert found["me_ppl"].items == pytest.approx(ppl, rel=1e-5)
    assert found["me_ppl"].stderr == pytest.approx(statistics.stdev(ppl) / len(ppl) ** 0.5, rel=1e-4)
    assert found["nll_per_token"].value == pytest.approx(sum(tokens) / len(tokens), rel=1e-5)
    assert found["nll_per_token"].items == pytest.approx([sum(row) / len(row) for row in nats], rel=1e-5)
    assert found["ppl_median"].value == pytest.approx(statistics.median(ppl), rel=1e-5)
    assert found["ppl_worst"].value == pytest.approx(max(ppl), rel=1e-5)
    assert found["ppl_token_weighted"].value == pytest.approx(math.exp(sum(tokens) / len(tokens)), rel=1e-5)


def golden(shared: Path, name: str) -> tuple[ModelHandle, tuple[str, ...], float, float]:
    """The model, the texts, and the mean and the Euclidean norm of the published per-text perplexities."""
    folder = shared / "goldens" / "tiny-gpt2"
    texts = tuple(row["Text"] for row in json.loads((folder / "ppl_texts.json").read_text()))
    row = json.loads((folder / "index.json").read_text())[name]
    return tiny.golden(shared), texts, row["mean_perplexity"], row["delta_norms"]["perplexities"]


def test_it_equals_the_published_implementation(shared: Path) -> None:
    handle, texts, mean, norm = golden(shared, "perplexity_me_ppl")
    found = measured(handle, texts)["me_ppl"]
    assert found.value == pytest.approx(mean, rel=1e-5)
    assert math.hypot(*(item or 0.0 for item in found.items)) == pytest.approx(norm, rel=1e-5)


def test_romes_own_figure_follows_from_ours(shared: Path) -> None:
    handle, texts, mean, norm = golden(shared, "perplexity_rome")
    lengths = [len(handle.ids(text, special=False)) for text in texts]
    nats = measured(handle, texts)["nll_per_token"].items
    theirs = [math.exp((nll or 0.0) * (n - 1) / n) for nll, n in zip(nats, lengths, strict=True)]
    assert sum(theirs) / len(theirs) == pytest.approx(mean, rel=1e-5)
    assert math.hypot(*theirs) == pytest.approx(norm, rel=1e-5)


def test_an_even_model_has_the_perplexity_of_its_vocabulary(handle: ModelHandle) -> None:
    size = handle.model.config.vocab_size
    handle.logits = lambda batch: torch.zeros(*batch.ids.shape, size)  # type: ignore[method-assign]
    found = measured(handle)
    for name in ("me_ppl", "ppl_median", "ppl_worst", "ppl_token_weighted"):
        assert found[name].value == pytest.approx(size, rel=1e-6)
    assert found["me_ppl"].stderr == pytest.approx(0.0, abs=1e-3)


def test_one_dead_text_is_a_finding_and_the_others_keep_their_values(handle: ModelHandle) -> None:
    texts = TEXTS[:3]
    whole = handle.logits
    dead = handle.ids(texts[1], special=False)

    def logits(batch: Batch) -> torch.Tensor:
        scores = whole(batch)
        for row, ids in enumerate(batch.ids.tolist()):
            if ids[: len(dead)] == dead:
                scores[row, 2] = torch.nan
        return scores

    healthy = measured(handle, texts)
    handle.logits = logits  # type: ignore[method-assign]
    found = measured(handle, texts)
    for name in found:
        assert found[name].broken
        assert found[name].value is None
        assert found[name].reason == "the logits are not finite on 1 of 3 texts, first on text 2"
    for name in ("me_ppl", "nll_per_token"):
        first, second, third = found[name].items
        assert second is None
        assert (first, third) == pytest.approx((healthy[name].items[0], healthy[name].items[2]), rel=1e-5)


def sure_of_the_wrong_token(handle: ModelHandle, nats: float) -> None:
    size = handle.model.config.vocab_size

    def logits(batch: Batch) -> torch.Tensor:
        scores = torch.zeros(*batch.ids.shape, size)
        scores[..., handle.tokenizer.pad_token_id] = nats  # occurs in no text
        return scores

    handle.logits = logits  # type: ignore[method-assign]


def test_a_perplexity_past_float32_is_still_a_number(handle: ModelHandle) -> None:
    sure_of_the_wrong_token(handle, 600.0)  # float32 ends at 88.7 nats
    found = measured(handle)
    assert found["me_ppl"].value == pytest.approx(math.exp(600.0), rel=1e-3)
    assert found["me_ppl"].stderr is not None
    assert not found["me_ppl"].broken


def test_a_perplexity_past_float64_is_broken_but_its_nats_are_kept(handle: ModelHandle) -> None:
    sure_of_the_wrong_token(handle, 800.0)
    found = measured(handle)
    for name in ("me_ppl", "ppl_median", "ppl_worst", "ppl_token_weighted"):
        assert found[name].broken
        assert "overflows" in str(found[name].reason)
        assert "800.0 nats" in str(found[name].reason)
    assert set(found["me_ppl"].items) == {None}
    assert found["nll_per_token"].value == pytest.approx(800.0)
    assert not found["nll_per_token"].broken


@pytest.mark.parametrize(
    ("bad", "says"), [("", "has 0 token"), ("x", "has 1 token"), ("x " * 1000, "tiny-gpt2 needs 2 to")]
)
def test_a_text_that_cannot_be_scored_is_refused_before_anything_runs(handle: ModelHandle, bad: str, says: str) -> None:
    def logits(batch: Batch) -> torch.Tensor:
        raise AssertionError("the model was run")

    handle.logits = logits  # type: ignore[method-assign]
    with pytest.raises(DataError, match="text 2 of 2") as error:
        measured(handle, (TEXTS[0], bad))
    assert says in str(error.value)


def test_the_worst_text_shows_even_when_the_mean_hides_it(handle: ModelHandle) -> None:
    found = measured(handle)
    assert found["ppl_worst"].value == max(item for item in found["me_ppl"].items if item is not None)
    assert (found["ppl_worst"].value or 0.0) > (found["me_ppl"].value or 0.0)


def test_a_single_text_has_no_standard_error(handle: ModelHandle) -> None:
    found = measured(handle, TEXTS[:1])
    assert {name: entry.stderr for name, entry in found.items()} == dict.fromkeys(found)
    assert found["me_ppl"].value == found["ppl_median"].value == found["ppl_worst"].value


@pytest.mark.parametrize(("family", "spelling"), [("llama", "bytes_bos"), ("gemma2", "metaspace_bos")])
def test_no_special_token_is_part_of_a_text(family: str, spelling: str) -> None:
    handle = tiny.handle(family, spelling=spelling)
    assert handle.ids(TEXTS[0])[0] == handle.tokenizer.bos_token_id  # as a prompt it begins with one
    seen: list[int] = []
    run = handle.logits

    def logits(batch: Batch) -> torch.Tensor:
        seen.extend(batch.ids[batch.mask.bool()].tolist())
        return run(batch)

    handle.logits = logits  # type: ignore[method-assign]
    measured(handle)
    assert seen
    assert not set(seen) & set(handle.tokenizer.all_special_ids)


@pytest.mark.parametrize("count", [2, len(TEXTS)])
def test_the_error_of_the_token_weighted_mean_takes_texts_as_what_was_sampled(handle: ModelHandle, count: int) -> None:
    """That of a ratio of sums, sum(nats) / sum(tokens), from its residuals per text (Cochran 1977, 2.11)."""
    nats = [by_hand(handle, text) for text in TEXTS[:count]]
    tokens = sum(len(row) for row in nats)
    mean = sum(sum(row) for row in nats) / tokens
    residuals = [sum(row) - mean * len(row) for row in nats]
    error = math.sqrt(count / (count - 1) * sum(one**2 for one in residuals)) / tokens
    found = measured(handle, TEXTS[:count])
    assert found["nll_per_token"].stderr == pytest.approx(error, rel=1e-4)
    assert found["ppl_token_weighted"].stderr == pytest.approx(error * math.exp(mean), rel=1e-4)
    assert found["me_ppl"].stderr is not None
    for name in ("ppl_median", "ppl_worst", "ppl_even"):
        assert found[name].stderr is None
        assert found[name].items == ()


def test_every_figure_tells_how_many_texts_it_is_of_and_in_which_unit(handle: ModelHandle) -> None:
    whole = measured(handle, TEXTS[:3])
    assert {name: one.unit for name, one in whole.items()} == {
        **dict.fromkeys(MEASURE.gives, "perplexity"), "nll_per_token": "nat",
    }  # fmt: skip
    sure_of_the_wrong_token(handle, 800.0)
    past = measured(handle, TEXTS[:3])
    assert {one.n for one in (*whole.values(), *past.values())} == {3}
    assert {name: one.unit for name, one in past.items()} == {name: one.unit for name, one in whole.items()}
    assert whole["ppl_even"].value == past["ppl_even"].value == handle.model.config.vocab_size
    assert past["me_ppl"].reason == "the perplexity overflows: text 1 is at 800.0 nats per token"
    assert (past["nll_per_token"].stderr, past["ppl_token_weighted"].stderr) == (pytest.approx(0.0), None)


def test_without_texts_there_is_a_reason_for_each_figure(handle: ModelHandle) -> None:
    assert {(one.value, one.reason, one.n) for one in measured(handle, ()).values()} == {(None, "no texts", 0)}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("x", "text 1 of 1 has 1 token(s), perplexity on tiny-gpt2 needs 2 to 256: 'x'. Leave it out."),
        ("x " * 200, "Nothing is cut off silently: split it or leave it out."),
    ],
)
def test_a_refused_text_is_told_with_its_beginning_and_what_to_do(handle: ModelHandle, bad: str, said: str) -> None:
    with pytest.raises(DataError) as error:
        measured(handle, (bad,))
    assert str(error.value).endswith(said)
    assert f"{bad[:60]!r}. " in str(error.value)


def test_a_text_as_long_as_the_context_is_scored_and_one_of_two_tokens(handle: ModelHandle) -> None:
    full = handle.tokenizer.decode([7] * handle.context)
    assert len(handle.ids(full, special=False)) == handle.context
    pair = handle.tokenizer.decode([7, 8])
    assert measured(handle, (full, pair))["me_ppl"].items == pytest.approx(
        [math.exp(statistics.mean(by_hand(handle, text))) for text in (full, pair)], rel=1e-4
    )
