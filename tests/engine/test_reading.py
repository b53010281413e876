"""Rows that are run together are read as if each were run by itself, and what was kept of them is what they gave."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Any

import pytest
import torch
from transformers import GPT2LMHeadModel

from editsafety.engine import reading
from editsafety.engine.continuing import Wish, continue_greedily
from editsafety.engine.reading import FedRow, KeptRows, Unfinished, cannot_keep, deal, run_rows
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.engine.test_continuing import FAMILIES, LENGTHS, PROMPTS, counted, ids_of, naive, said


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_probabilities_behind_what_was_kept_are_those_of_the_whole_text(family: str) -> None:
    handle = tiny.handle(family)
    rows = [FedRow(ids, 0) for ids in ids_of(handle)]
    more = torch.randint(2, tiny.VOCABULARY, (6, len(rows)), generator=torch.Generator().manual_seed(0)).tolist()
    ran = run_rows(handle, rows, keep=True)
    kept = KeptRows(handle, [Unfinished(ran.cache, range(len(rows)), [len(row) for row in rows])])
    behind = [kept.follow(tokens).log_softmax(-1) for tokens in more]
    for number, row in enumerate(rows):
        whole = [*row.ids, *(tokens[number] for tokens in more)]
        expected = handle.logits(handle.batch([whole]))[0].log_softmax(-1)
        start = sum(len(one) for one in rows[:number])
        first = ran.logits[start : start + len(row)].log_softmax(-1)
        found = torch.cat([first, torch.stack([step[number] for step in behind])])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("lengths", [(3, 4, 40), (5,) * 7, (2, 9, 17, 30, 31, 90), (1,)])
def test_rows_are_dealt_so_that_passes_and_padding_cost_least(
    lengths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(reading.PASS, "cpu", 20)
    handle = tiny.handle("gpt2")
    dealt = deal(handle, [FedRow((0,) * length, 0) for length in lengths])

    def cost(passes: Sequence[Sequence[int]]) -> int:
        return sum(20 + len(rows) * max(lengths[i] for i in rows) for rows in passes)

    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    ways = [(0, *cuts, len(order)) for n in range(len(order)) for cuts in combinations(range(1, len(order)), n)]
    least = min(cost([order[a:b] for a, b in pairwise(way)]) for way in ways)
    assert sorted(i for rows in dealt for i in rows) == list(range(len(lengths)))
    assert cost(dealt) == least


def test_rows_of_several_passes_go_on_in_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reading.PASS, "cpu", 0)  # nothing is gained by sharing a pass
    handle = tiny.handle("llama")
    expected = naive(handle)
    shapes = counted(handle, monkeypatch)
    assert said(handle) == expected
    assert shapes[: len(PROMPTS)] == sorted((1, len(ids)) for ids in ids_of(handle))
    assert shapes[len(PROMPTS)] == (4, 1)


@torch.no_grad()
def test_padding_that_is_not_a_number_reaches_no_row() -> None:
    handle = tiny.handle("gpt2")
    rows = [FedRow(ids, len(ids) - 1) for ids in ids_of(handle)[:2]]
    ran = run_rows(handle, rows, keep=True)
    for layer in ran.cache.layers:
        layer.keys[1, :, len(rows[1]) :] = torch.nan
        layer.values[1, :, len(rows[1]) :] = torch.nan
    kept = KeptRows(handle, [Unfinished(ran.cache, [0, 1], [len(row) for row in rows])])
    following = kept.follow([5, 5])
    whole = handle.logits(handle.batch([[*row.ids, 5] for row in rows]))
    for i, row in enumerate(rows):
        torch.testing.assert_close(following[i], whole[i, len(row)], rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------------------- where nothing is kept


class WithoutCache(GPT2LMHeadModel):
    """It knows of no cache."""

    def forward(self, input_ids: Any, attention_mask: Any = None, use_cache: Any = None) -> Any:
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)


class Forgetful(GPT2LMHeadModel):
    """It takes a cache, and keeps nothing in it."""

    def forward(self, input_ids: Any, attention_mask: Any = None, use_cache: Any = None, cache: Any = None) -> Any:
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)


def of_class(kind: type[GPT2LMHeadModel]) -> ModelHandle:
    plain = tiny.handle("gpt2")
    model = kind(plain.model.config)
    model.load_state_dict(plain.model.state_dict())
    return ModelHandle.of(model, plain.tokenizer, name=kind.__name__)


def test_a_model_without_a_cache_is_refused_by_name_and_asked_for_whole_texts() -> None:
    handle = of_class(WithoutCache)
    assert cannot_keep(handle) == f"{handle.name} (WithoutCache) takes no cache of keys and values"
    assert said(handle) == naive(tiny.handle("gpt2"))


def test_a_model_that_leaves_the_cache_empty_goes_on_with_whole_texts() -> None:
    handle = of_class(Forgetful)
    assert cannot_keep(handle) is None
    assert said(handle) == naive(tiny.handle("gpt2"))


def test_keys_that_are_turned_by_the_length_of_the_text_are_not_kept() -> None:
    turned = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    name = "rope_parameters" if hasattr(tiny.config("llama"), "rope_parameters") else "rope_scaling"  # transformers 4
    handle = tiny.handle("llama", **{name: turned})  # type: ignore[arg-type]
    assert cannot_keep(handle) == f"{handle.name} turns keys by the length of the whole text (rope_type dynamic)"
    assert said(handle) == naive(handle)


def test_who_has_something_beside_the_model_or_wants_it_plain_is_told_so() -> None:
    handle = tiny.handle("gpt2")
    assert cannot_keep(handle) is None
    with handle.engine.switched_off():
        assert "plainly" in str(cannot_keep(handle))
    hook = handle.model.register_forward_hook(lambda module, args, output: None)
    assert "a sidecar" in str(cannot_keep(handle))
    hook.remove()
    handle.model.train()
    assert "weights alone" in str(cannot_keep(handle))


def test_a_plain_engine_runs_whole_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    shapes = counted(handle, monkeypatch)
    said(handle, plain=True)
    longest = max(len(ids) for ids in ids_of(handle))
    assert len(shapes) == max(LENGTHS)
    assert shapes[0] == (5, longest)
    assert min(width for _, width in shapes) > 1


def test_one_prompt_of_one_token_can_be_continued() -> None:
    handle = tiny.handle("gpt2")
    prompt = ids_of(handle)[1]
    assert len(prompt) == 1
    (found,) = continue_greedily(handle, [Wish(prompt, lambda said: LENGTHS[1])])
    assert found.said == naive(handle)[1]
