"""What a model says does not depend on who asks, what else is asked, nor on what was kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from editsafety.edits.edit import Edit
from editsafety.edits.session import EditSession
from editsafety.engine import continuing, reading
from editsafety.engine.continuing import Continuation, Wish, announce, continue_greedily, unchanged
from editsafety.model.handle import ModelHandle
from editsafety.model.scoring import continuations
from tests import tiny

PROMPTS = (
    "Ashurn works as a",
    "Toren",
    "The mother tongue of Mirel is",
    "The capital of Dorvan is Kelmar. The capital of Velland is Ostrin. The mother tongue of Ashurn is",
    "A farmer grows",
)
LENGTHS = (5, 3, 7, 4, 1)
# The others are built like one of these, so they wait for tox.
SOON = ("gpt2", "gpt_neo", "llama", "gemma2")


def later(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.thorough)


FAMILIES = [one if one in SOON else later(one) for one in tiny.FAMILIES]


def ids_of(handle: ModelHandle) -> list[tuple[int, ...]]:
    return [tuple(handle.ids(prompt)) for prompt in PROMPTS]


def naive(handle: ModelHandle) -> list[list[int]]:
    """Whole texts, one token a pass."""
    return continuations(handle, ids_of(handle), LENGTHS)


def wish(prompt: tuple[int, ...], count: int, draft: Sequence[int] = ()) -> Wish:
    return Wish(prompt, lambda said: count, tuple(draft))


def said(
    handle: ModelHandle, drafts: Sequence[Sequence[int]] = ((),) * 5, *, plain: bool = False, size: int = 64
) -> list[list[int]]:
    handle.engine.plain = plain
    wishes = [wish(*row) for row in zip(ids_of(handle), LENGTHS, drafts, strict=True)]
    found = [one.said for one in continue_greedily(handle, wishes, batch_size=size)]
    handle.engine.plain = False
    return found


def drafts_of(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Right to the end, right for a while, wrong at once, none, longer than is wanted."""
    right, partly, wrong, none, long = rows
    return [list(right), [*partly[:1], 7, 9], [5, *wrong[1:]], [], [*long, 8, 8]] if none else []


@pytest.mark.parametrize("family", FAMILIES)
def test_kept_keys_and_values_give_the_tokens_of_whole_texts(family: str) -> None:
    handle = tiny.handle(family)
    expected = naive(handle)
    assert said(handle) == said(handle, size=2) == expected
    assert said(handle, drafts_of(expected)) == said(handle, drafts_of(expected), plain=True) == expected


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("gpt_neo", {"attention_types": [[["local", "global", "local"], 1]], "window_size": 2}),
        ("gemma2", {"sliding_window": 4}),
        later("qwen2", {"use_sliding_window": True, "sliding_window": 2, "max_window_layers": 1}),
        later("mistral", {"sliding_window": 4}),
        later("gemma3", {"sliding_window": 4}),
    ],
)
def test_so_do_windows_that_are_shorter_than_the_texts(family: str, more: dict[str, Any]) -> None:
    handle = tiny.handle(family, **more)
    expected = naive(handle)
    assert said(handle, drafts_of(expected)) == expected


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_gives_answers_of_full_length(dtype: str) -> None:
    handle = tiny.handle("llama", dtype=dtype)
    assert [len(row) for row in said(handle)] == list(LENGTHS)


def test_what_has_been_said_is_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reading.PASS, "cpu", 10_000)  # everything in one pass
    handle = tiny.handle("gpt2")
    shapes = counted(handle, monkeypatch)
    said(handle)
    assert [rows for rows, _ in shapes] == [5, 4, 4, 3, 2, 1, 1]  # rows leave when they have enough
    assert {width for _, width in shapes[1:]} == {1}


def counted(handle: ModelHandle, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = []
    run = ModelHandle.run

    def noted(self: ModelHandle, ids: Tensor, *args: Any, **more: Any) -> Any:
        shapes.append(tuple(ids.shape))
        return run(self, ids, *args, **more)

    monkeypatch.setattr(ModelHandle, "run", noted)
    return shapes


def test_a_draft_that_is_right_takes_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reading.PASS, "cpu", 10_000)
    handle = tiny.handle("llama")
    expected = naive(handle)
    shapes = counted(handle, monkeypatch)
    assert said(handle, expected) == expected
    assert len(shapes) == 1


def test_whoever_waits_for_a_stop_is_asked_after_every_token() -> None:
    handle = tiny.handle("gpt2")
    prompt, seen = ids_of(handle)[0], list[int]()

    def wants(so_far: Sequence[int]) -> int:
        seen.append(len(so_far))
        return 0 if len(so_far) >= 4 else 20

    (found,) = continue_greedily(handle, [Wish(prompt, wants)])
    assert found.said == naive(handle)[0][:4]
    assert sorted(set(seen)) == [0, 1, 2, 3, 4]


def test_two_who_ask_the_same_get_the_longer_of_both() -> None:
    handle = tiny.handle("gpt2")
    prompt = ids_of(handle)[0]
    both = continue_greedily(handle, [wish(prompt, 2), wish(prompt, LENGTHS[0])])
    assert both[0] is both[1]
    assert both[0].said == naive(handle)[0]


@pytest.mark.parametrize("plain", [False, True])
def test_a_text_of_which_the_logits_break_breaks_no_other(plain: bool) -> None:
    handle = tiny.handle("gpt2", tied=False)
    expected = naive(handle)
    texts = [[*ids, *row] for ids, row in zip(ids_of(handle), expected, strict=True)]
    bad = next(token for token in texts[2][: len(ids_of(handle)[2])] if sum(token in text for text in texts) == 1)
    with torch.no_grad():
        handle.model.get_input_embeddings().weight[bad] = torch.nan
    handle.engine.plain = plain
    found = continue_greedily(handle, [wish(*row) for row in zip(ids_of(handle), LENGTHS, strict=True)])
    assert [one.broken for one in found] == [False, False, True, False, False]
    assert [one.said for one in found] == [row if i != 2 else [] for i, row in enumerate(expected)]


# ------------------------------------------------------------------------------------- tokens that are equally probable


def with_twins(family: str, size: float) -> ModelHandle:
    """A model to which every token has a twin of the same probability, but for a little."""
    handle = tiny.handle(family, tied=False)
    head = handle.model.get_output_embeddings()
    half = head.weight.shape[0] // 2
    with torch.no_grad():
        noise = torch.randn(half, head.weight.shape[1], generator=torch.Generator().manual_seed(0))
        head.weight[half : 2 * half] = head.weight[:half] + size * noise
        if head.bias is not None:
            head.bias[half : 2 * half] = head.bias[:half]
    return handle


@pytest.mark.parametrize("size", [1e-7, later(0.0), later(1e-8), later(1e-6)])
@pytest.mark.parametrize("family", ["gpt2", later("llama"), later("gpt_neo"), later("phi")])
def test_tokens_that_differ_by_rounding_are_chosen_alike_by_everybody(family: str, size: float) -> None:
    handle = with_twins(family, size)
    alone = [continue_greedily(handle, [wish(*row)])[0].said for row in zip(ids_of(handle), LENGTHS, strict=True)]
    assert said(handle) == said(handle, plain=True) == said(handle, size=2) == said(handle, plain=True, size=1) == alone
    assert said(handle, drafts_of(alone)) == alone


def test_of_tokens_of_one_probability_it_is_the_first() -> None:
    handle = with_twins("gpt2", 0.0)
    assert max(token for row in said(handle) for token in row) < tiny.VOCABULARY // 2
    assert said(handle) == naive(handle)


def test_only_a_close_call_is_run_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    alone = continuing._alone
    monkeypatch.setattr(continuing, "_alone", lambda handle, text: (called.append(1), alone(handle, text))[1])
    said(tiny.handle("gpt2"))
    assert called == []
    said(with_twins("gpt2", 0.0))
    assert len(called) == sum(LENGTHS)


# ------------------------------------------------------------------------------------------------- beside a sidecar


@pytest.mark.parametrize("plain", [False, True])
def test_beside_a_hook_whole_texts_are_run_without_a_draft(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    hook = handle.model.register_forward_hook(lambda module, args, output: None)
    expected = naive(handle)
    shapes = counted(handle, monkeypatch)
    assert said(handle, expected, plain=plain) == expected
    hook.remove()
    longest = max(len(ids) for ids in ids_of(handle))
    assert [width for _, width in shapes][:2] == [longest, longest + 1]
    assert len(shapes) == max(LENGTHS)


def test_a_handle_that_asks_somebody_else_is_asked_for_whole_texts() -> None:
    handle = tiny.handle("gpt2")
    plain = handle.logits
    handle.logits = lambda batch: plain(batch).flip(-1)  # type: ignore[method-assign]
    assert said(handle) == naive(handle)


# -------------------------------------------------------------------------------------------------- targets


# -------------------------------------------------------------------------------------------- what is announced


def test_what_is_known_is_gone_with_the_block() -> None:
    handle = tiny.handle("gpt2")
    wishes = [wish(*row) for row in zip(ids_of(handle), LENGTHS, strict=True)]
    with unchanged(handle):
        announce(handle, wishes, ())
    with torch.no_grad():
        handle.model.get_parameter(handle.mlp_out(2).parameter).mul_(-3.0)
    assert [one.said for one in continue_greedily(handle, wishes)] == naive(handle)


def test_what_is_known_is_gone_with_an_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    edit = Edit("test", ("a",), handle.identity, (tiny.low_rank(handle.mlp_out(0), size=3.0),))
    wishes = [wish(*row) for row in zip(ids_of(handle), LENGTHS, strict=True)]
    with unchanged(handle):
        announce(handle, wishes, ())
        before = said(handle)
        with EditSession(handle, prove="never") as session:
            mark = session.mark()
            session.apply(edit)
            edited = said(handle)
            assert edited == naive(handle) != before
            session.back_to(mark)
            assert said(handle) == before
            session.apply(edit)
            assert said(handle) == edited
        assert said(handle) == before


def test_an_answer_that_is_known_in_part_goes_on_from_there() -> None:
    handle = tiny.handle("gpt2")
    expected = naive(handle)
    with unchanged(handle):
        announce(handle, [wish(prompt, 1) for prompt in ids_of(handle)], ())
        assert said(handle, drafts_of(expected)) == expected


def test_a_plain_engine_keeps_nothing_that_was_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    handle.engine.plain = True
    shapes = counted(handle, monkeypatch)
    with unchanged(handle):
        announce(handle, [wish(prompt, 1) for prompt in ids_of(handle)], ())
        assert shapes == []
        assert continuing.made_once(handle, "key", lambda: 1) == 1
        assert continuing.made_once(handle, "key", lambda: 2) == 2


def test_what_follows_from_a_model_that_does_not_change_is_made_once() -> None:
    handle = tiny.handle("gpt2")
    with unchanged(handle):
        assert [continuing.made_once(handle, "key", lambda n=n: n) for n in (1, 2)] == [1, 1]
    assert continuing.made_once(handle, "key", lambda: 3) == 3


def test_a_continuation_knows_its_text() -> None:
    assert Continuation((1, 2), [3]).text == (1, 2, 3)
