"""Free text about the subject: how it is asked for, and that a model which repeats itself shows."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from editsafety import measures
from editsafety.errors import DataError
from editsafety.measures import Inputs, _fluency, generation
from editsafety.measures.generation import MEASURE
from editsafety.model.generation import generate
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Measurement
from tests import tiny

REQUESTS = (tiny.request(), tiny.request("case-1", subject="Mirel"))


def measured(handle: ModelHandle, *requests: object) -> dict[str, Measurement]:
    return {one.name: one for one in MEASURE(handle, Inputs(requests=requests or REQUESTS))}  # type: ignore[arg-type]


def stuck(handle: ModelHandle) -> ModelHandle:
    """A model that says one token for ever, whatever it reads: the unembedding favours it at every position."""
    with torch.no_grad():
        for block in handle.model.transformer.h:
            for parameter in block.parameters():
                parameter.zero_()
        handle.model.transformer.ln_f.weight.zero_()
        handle.model.transformer.ln_f.bias.copy_(100 * handle.model.transformer.wte.weight[7])
    return handle


def test_texts_are_the_prompt_and_what_follows_a_hundred_tokens_in_all(handle: ModelHandle) -> None:
    texts = measured(handle)["fluency"].answers
    for request, text in zip(REQUESTS, texts, strict=True):
        ids, draws = handle.ids(request.filled), torch.Generator().manual_seed(int(request.digest()[:15], 16))
        (said,) = generate(handle, [ids], [100 - len(ids)], top=5, generators=[draws], ends=False, cache=False)
        assert text == handle.text([*ids, *(said or ())])
        assert text.startswith(request.filled)


def test_a_model_that_says_one_thing_for_ever_stands_out(handle: ModelHandle) -> None:
    whole, broken = measured(handle), measured(stuck(tiny.handle("gpt2")))
    assert (broken["longest_run"].value or 0) > 80 > 10 > (whole["longest_run"].value or 99)
    assert (broken["fluency"].value or 9) < (whole["fluency"].value or 0)


def test_the_same_request_gets_the_same_draws_whatever_is_beside_it(handle: ModelHandle) -> None:
    both, one = measured(handle)["fluency"], measured(handle, REQUESTS[1])["fluency"]
    assert both.answers[1] == one.answers[0]
    assert both.items[1] == one.items[0]


def test_generation_is_run_only_where_its_figures_are_asked_for() -> None:
    assert MEASURE.name not in [one.name for one in measures.needed()]
    assert MEASURE.name in [one.name for one in measures.needed({"repetition"})]
    assert {one.name for one in measures.needed()} < set(measures.names())


def test_its_figures_are_called_as_it_says(handle: ModelHandle) -> None:
    assert tuple(measured(handle)) == MEASURE.gives


def test_a_prompt_that_leaves_no_room_is_refused_by_its_name(handle: ModelHandle) -> None:
    long = tiny.request("long", prompt="x " * (handle.context // 2 - 10) + "{} is")
    with pytest.raises(DataError, match=r"request 'long': \d+ tokens leave no room for a text of 25; tiny-gpt2"):
        measured(handle, long)


def test_a_long_prompt_still_gets_some_text(handle: ModelHandle) -> None:
    long = tiny.request("long", prompt="x" * 150 + " {} is")
    assert measured(handle, long)["longest_run"].value is not None


def test_a_token_that_ends_a_text_is_one_like_any_other(handle: ModelHandle) -> None:
    end = handle.tokenizer.eos_token_id
    with torch.no_grad():
        stuck(handle).model.transformer.ln_f.bias.copy_(100 * handle.model.transformer.wte.weight[end])
    found = measured(handle, REQUESTS[0])
    assert found["longest_run"].value == 100 - len(handle.ids(REQUESTS[0].filled))


def bits(rows: list[tuple[str, ...]]) -> float:
    """Shannon entropy of what is in the list, written out."""
    return -sum(rows.count(one) / len(rows) * math.log2(rows.count(one) / len(rows)) for one in set(rows))


def test_every_figure_is_that_of_the_text_by_hand(handle: ModelHandle) -> None:
    found = measured(handle)
    for place, text in enumerate(found["fluency"].answers):
        words = _fluency.words(text)
        pairs, triples = list(itertools.pairwise(words)), list(zip(words, words[1:], words[2:], strict=False))
        assert found["fluency"].items[place] == pytest.approx((2 / 3 * bits(pairs) + 4 / 3 * bits(triples)) / 2)
        assert found["repetition"].items[place] == pytest.approx(1 - len(set(triples)) / len(triples))
        assert found["unigram_entropy"].items[place] == pytest.approx(_fluency.unigram_entropy([text]))
    assert {name: (one.unit, one.n, one.version) for name, one in found.items()} == {
        "fluency": ("bits", 2, 1), "repetition": ("share", 2, 1), "longest_run": ("tokens", 2, 1),
        "unigram_entropy": ("share", 2, 1),
    }  # fmt: skip
    assert [name for name, one in found.items() if one.answers] == ["fluency"]


def test_a_text_of_a_single_word_has_no_fluency_and_that_is_no_defect(handle: ModelHandle) -> None:
    letter = handle.ids("x", special=False)[0]
    with torch.no_grad():
        stuck(handle).model.transformer.ln_f.bias.copy_(100 * handle.model.transformer.wte.weight[letter])
    one = tiny.request(prompt="{}", subject="x", rephrasings=[], neighbours=[])
    found = measured(handle, one)
    for name in ("fluency", "repetition"):
        assert (found[name].reason, found[name].broken) == ("no text is long enough", False)
    assert (found["unigram_entropy"].value, found["longest_run"].value) == (0.0, 99.0)
    assert {one.reason for one in MEASURE(handle, Inputs())} == {"no requests"}


@pytest.mark.parametrize(("prompt", "wanted"), [(40, 60), (75, 25), (90, 25), (231, 25)])
def test_a_text_has_a_hundred_tokens_with_its_prompt_and_at_least_25_behind_it(
    handle: ModelHandle, prompt: int, wanted: int
) -> None:
    assert generation._length(handle, REQUESTS[0], prompt) == wanted
    with pytest.raises(DataError, match="232 tokens leave no room for a text of 25; tiny-gpt2 takes 256 in all"):
        generation._length(handle, REQUESTS[0], 232)
