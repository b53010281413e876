"""SERAC: where a stored fact is asked for, the answer network speaks; everywhere else the model does, bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from editsafety.datasets.request import EditRequest
from editsafety.editors.serac.sidecar import Counterfactual
from editsafety.edits.edit import Edit
from editsafety.edits.session import EditSession
from editsafety.errors import EditError, EditorError
from editsafety.model import logits as chosen_logits
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.editors.conftest import Make
from tests.editors.serac.asking import REQUEST, said_by

OTHER = tiny.request("case-1", subject="Toren", prompt="The mother tongue of {} is", target_new="Tarnic")
TEXT = "A farmer grows wheat. A baker bakes bread."
PAD = 1


def car_of(edit: Edit) -> Counterfactual:
    (car,) = edit.sidecars
    assert isinstance(car, Counterfactual)
    return car


def logits(handle: ModelHandle, *rows: list[int]) -> Tensor:
    with torch.no_grad():
        return handle.logits(handle.batch(rows))


def edited(handle: ModelHandle, edit: Edit, *rows: list[int]) -> Tensor:
    with EditSession(handle) as session:
        session.apply(edit)
        return logits(handle, *rows)


def answer(handle: ModelHandle, edit: Edit, request: EditRequest, ids: list[int]) -> Tensor:
    """What the answer network says behind fact and text, `[words]`."""
    prompt, target = handle.ids(request.filled), handle.target_ids(request.target_new)
    words = handle.model.config.vocab_size
    return said_by(car_of(edit).answer, [*prompt, words, *target, words + 1], ids)


@pytest.mark.parametrize("spelling", ["bytes", "bytes_bos"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "bloom"])
def test_the_answer_network_speaks_where_the_fact_is_asked_for_and_nowhere_else(
    family: str, spelling: str, make: Make
) -> None:
    """Behind the prompt and behind every token of the target but the last; by hand."""
    handle = tiny.handle(family, spelling=spelling)
    edit = make("serac", handle).edit([REQUEST])
    prompt, target = handle.ids(REQUEST.filled), handle.target_ids(REQUEST.target_new)
    row, text = [*prompt, *target, *handle.ids(" too", special=False)], handle.ids(TEXT)
    before, after = logits(handle, row, text), edited(handle, edit, row, text)
    asked = range(len(prompt) - 1, len(prompt) - 1 + len(target))
    for place in range(len(row)):
        if place in asked:
            expected = answer(handle, edit, REQUEST, row[: place + 1])
            torch.testing.assert_close(after[0, place], expected, rtol=1e-4, atol=1e-4)
        else:
            assert torch.equal(after[0, place], before[0, place])
    assert torch.equal(after[1, : len(text)], before[1, : len(text)])


def test_a_question_is_closed_behind_its_own_answer_though_others_are_longer(make: Make) -> None:
    handle = tiny.handle("gpt2")
    short = tiny.request("case-2", subject="Mirel", target_new="farmer")
    edit = make("serac", handle).edit([REQUEST, short])
    prompt, target = handle.ids(short.filled), handle.target_ids(short.target_new)
    assert len(target) < len(handle.target_ids(REQUEST.target_new))
    row = [*prompt, *target, *handle.ids(" and", special=False)]
    changed = (edited(handle, edit, row) != logits(handle, row)).any(-1)[0].nonzero()[:, 0].tolist()
    assert changed == list(range(len(prompt) - 1, len(prompt) - 1 + len(target)))


def test_another_answer_closes_the_question(make: Make) -> None:
    handle = tiny.handle("gpt2")
    edit = make("serac", handle).edit([REQUEST])
    prompt, false = handle.ids(REQUEST.filled), handle.target_ids("violin every")
    row = [*prompt, *false]
    changed = (edited(handle, edit, row) != logits(handle, row)).any(-1)[0].nonzero()[:, 0].tolist()
    assert changed == [len(prompt) - 1]


def test_a_soft_mixture_is_one_of_probabilities(make: Make) -> None:
    """log((1 - s) P_base + s P_answer) with s = exp(-distance^2), all by hand; s is made middling by a scaled head."""
    handle = tiny.handle("gpt2")
    edit = make("serac", handle, mixing="soft").edit([REQUEST])
    car = car_of(edit)
    car.scope.head.weight.data *= 0.1
    car._vectors.clear()
    row = handle.ids("Mirel works as a")
    with torch.no_grad():
        ends = [car.scope.head(car.scope.body(input_ids=car.scope.fold[torch.tensor([ids])]).last_hidden_state)[0, -1]
                for ids in (row, handle.ids(REQUEST.filled))]  # fmt: skip
    s = torch.exp(-(ends[0] - ends[1]).square().sum())
    assert 0.01 < s < 0.99
    base = logits(handle, row)[0, -1].softmax(-1)
    expected = ((1 - s) * base + s * answer(handle, edit, REQUEST, row).exp()).log()
    torch.testing.assert_close(edited(handle, edit, row)[0, -1], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "spelling"), [("gpt2", "bytes"), ("llama", "bytes_bos"), ("bloom", "bytes"), ("gemma2", "bytes_bos")]
)
def test_nothing_depends_on_other_rows_padding_or_a_cache(family: str, spelling: str, make: Make) -> None:
    """Greedy answers token by token, alone, against generation in a batch padded on the left, cached and not."""
    handle = tiny.handle(family, spelling=spelling)
    edit = make("serac", handle).edit([REQUEST, OTHER])
    rows = [handle.ids(text) for text in (TEXT, REQUEST.filled, OTHER.filled)]
    with EditSession(handle) as session, torch.no_grad():
        session.apply(edit)
        expected = []
        for row in rows:
            said = list(row)
            for _ in range(5):
                said.append(int(logits(handle, said)[0, -1].argmax()))
            expected.append(said[-5:])
        width = max(map(len, rows))
        options: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "pad_token_id": PAD}
        ids = torch.tensor([[PAD] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        for cached in (True, False):
            said = handle.model.generate(input_ids=ids, attention_mask=mask, use_cache=cached, **options)
            assert said[:, -5:].tolist() == expected
    assert session.leftovers == ()
    assert not handle.model._forward_pre_hooks


def test_only_some_logits_are_those_of_the_same_places(make: Make) -> None:
    handle = tiny.handle("gpt2")
    edit, ids = make("serac", handle).edit([REQUEST]), torch.tensor([handle.ids(REQUEST.filled)])
    with EditSession(handle) as session, torch.no_grad():
        session.apply(edit)
        whole = handle.model(input_ids=ids).logits
        last = handle.model(input_ids=ids, logits_to_keep=2).logits
        some = handle.model(input_ids=ids, logits_to_keep=torch.tensor([0, ids.shape[1] - 1])).logits
    torch.testing.assert_close(last, whole[:, -2:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(some, whole[:, [0, -1]], rtol=1e-4, atol=1e-4)


def test_in_a_sequence_the_last_memory_holds_every_fact_and_speaks_alone(make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor = make("serac", handle)
    first = editor.edit([REQUEST])
    second = editor.edit([OTHER], first.carry)
    rows = [handle.ids(REQUEST.filled), handle.ids(OTHER.filled)]
    alone = edited(handle, second, *rows)
    for i, request in enumerate((REQUEST, OTHER)):
        expected = answer(handle, second, request, rows[i])
        torch.testing.assert_close(alone[i, len(rows[i]) - 1], expected, rtol=1e-4, atol=1e-4)
    with EditSession(handle) as session:
        session.apply(first)
        session.apply(second)
        assert torch.equal(logits(handle, *rows), alone)
    assert (first.notes["facts"], second.notes["facts"]) == (1, 2)


def test_a_fact_that_is_stored_again_replaces_the_old(make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor, again = make("serac", handle), tiny.request("case-2", target_new="teacher")
    edit = editor.edit([again], editor.edit([REQUEST]).carry)
    assert edit.notes["facts"] == 1
    row = handle.ids(REQUEST.filled)
    torch.testing.assert_close(edited(handle, edit, row)[0, -1], answer(handle, edit, again, row), rtol=1e-4, atol=1e-4)


def test_a_saved_edit_needs_nothing_else(make: Make, tmp_path: Path) -> None:
    handle = tiny.handle("gpt2")
    edit, rows = make("serac", handle).edit([REQUEST]), [handle.ids(REQUEST.filled), handle.ids(TEXT)]
    edit.save(tmp_path / "edit")
    torch.manual_seed(5)
    state = torch.get_rng_state()
    loaded = Edit.load(tmp_path / "edit", {"serac": Counterfactual})
    assert torch.equal(state, torch.get_rng_state())
    assert loaded.id == edit.id
    assert torch.equal(edited(handle, loaded, *rows), edited(handle, edit, *rows))


def test_calls_that_would_be_answered_wrongly_are_refused(make: Make) -> None:
    handle, row = tiny.handle("gpt2"), torch.tensor([[5, 6, 7]])
    edit = make("serac", handle).edit([REQUEST])
    with torch.no_grad():
        cache = handle.run(row, torch.ones_like(row), keep=True).cache
        with EditSession(handle) as session:
            session.apply(edit)
            with pytest.raises(EditError, match="take the loss from the logits"):
                handle.model(input_ids=row, labels=row)
            with pytest.raises(EditError, match="a cache of 3 tokens that was filled without it"):
                handle.run(row, torch.ones(1, 6, dtype=torch.long), cache=cache)
            chosen = chosen_logits.only_at(handle, torch.tensor([0]), torch.tensor([2]))
            with chosen, pytest.raises(EditError, match="at chosen positions"):
                handle.model(input_ids=row)


def test_nothing_to_edit_is_refused(make: Make) -> None:
    with pytest.raises(EditorError, match="serac was given no request"):
        make("serac", tiny.handle("gpt2")).edit([])
