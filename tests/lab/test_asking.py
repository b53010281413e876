"""Asked through a chat template: every prompt of a request, for the editor and for all measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from editsafety import editors, measures
from editsafety.datasets.request import Consequence, EditRequest, Neighbour
from editsafety.edits.edit import Edit, nothing
from editsafety.edits.seal import Keepsake
from editsafety.lab import provenance
from editsafety.lab.asking import as_asked
from editsafety.lab.attempt import Questions, attempt, compute
from editsafety.lab.bench import Bench
from editsafety.lab.truths import gives_true_answers
from editsafety.model.handle import ModelHandle
from tests import chats, tiny
from tests.editors.conftest import Make, make

__all__ = ["make"]
REQUEST = tiny.request(
    rephrasings=["The work of Ashurn is that of a", "Ashurn is a"],
    neighbours=[{"prompt": "Mirel works as a", "answer": "baker"}],
    portability=[{"kind": "alias", "prompt": "Ash works as a", "answer": "teacher"}],
)


def bench(handle: ModelHandle, prefixes: Sequence[str] = ()) -> Bench:
    return Bench(handle, tiny.SENTENCES, prefixes, 8, Keepsake.of(handle), measures.needed(()))


def test_every_prompt_is_inside_the_template_and_nothing_else_changes() -> None:
    """Expected: each text as transformers renders it."""
    handle = chats.handle()
    (asked,) = as_asked(handle, [REQUEST])
    assert asked.filled == chats.rendered(handle, "Ashurn works as a")
    assert asked.rephrasings == tuple(chats.rendered(handle, text) for text in REQUEST.rephrasings)
    assert asked.neighbours == (Neighbour(chats.rendered(handle, "Mirel works as a"), "baker"),)
    assert asked.portability == (Consequence("alias", chats.rendered(handle, "Ash works as a"), "teacher"),)
    plain = {name: getattr(REQUEST, name) for name in ("prompt", "rephrasings", "neighbours", "portability")}
    assert replace(asked, **plain) == REQUEST
    assert as_asked(handle, [asked]) == (asked,)


def test_without_the_option_requests_are_asked_as_they_are() -> None:
    assert as_asked(tiny.handle("gpt2"), [REQUEST]) == (REQUEST,)


def test_the_editor_and_the_measures_get_what_is_asked_and_the_record_what_was_given() -> None:
    handle = chats.handle()
    seen: list[EditRequest] = []

    class Noting:
        name = "noting"

        def edit(self, requests: Sequence[EditRequest]) -> Edit:
            seen.extend(requests)
            return nothing("noting", [one.id for one in requests], handle.identity)

    editor: editors.Editor = Noting()  # type: ignore[assignment]
    made = compute(handle, editor, [REQUEST])
    assert tuple(seen) == as_asked(handle, [REQUEST])
    assert made.requests == (REQUEST,)
    inputs = bench(handle, ["Rain falls. "]).inputs([REQUEST])
    assert tuple(inputs.requests) == as_asked(handle, [REQUEST])


def test_an_edit_through_the_template_takes_there_and_the_weights_are_what_an_edit_by_hand_gives(make: Make) -> None:
    """By hand: the same editor on the same model without the option, given the rendered texts."""
    handle = chats.handle()
    made = compute(handle, make("ft", handle, num_steps=40), [REQUEST])
    plain = chats.plainly(handle)
    by_hand = compute(plain, make("ft", plain, num_steps=40), as_asked(handle, [REQUEST]))
    for one, other in zip(made.edit.deltas, by_hand.edit.deltas, strict=True):
        assert torch.equal(one.value, other.value)  # type: ignore[union-attr]
    ready = bench(handle)
    step, _ = attempt(ready, made, [Questions((REQUEST,), ready.unedited((REQUEST,)))])
    before, after = (found["target_probability"].value or 0.0 for found in (ready.unedited((REQUEST,)), step.found))
    assert after > 5 * before
    assert step.found["efficacy"].answers[0].startswith("teacher")
    assert len(step.found["generalisation"].answers) == 2
    assert step.restored


def test_the_subject_is_edited_at_its_last_token_inside_the_template(make: Make) -> None:
    """By hand: ROME, without contexts, on the rendered prompt. Without the template its key is another one."""
    handle = chats.handle(family="gpt_neo")
    plain = chats.plainly(handle)

    def rome(handle: ModelHandle) -> editors.Editor:
        return make("rome", handle, context_template_length_params=[])

    through = compute(handle, rome(handle), [REQUEST]).edit
    by_hand = compute(plain, rome(plain), as_asked(handle, [REQUEST])).edit
    without = compute(plain, rome(plain), [REQUEST]).edit
    matrices = [edit.deltas[0].matrix() for edit in (through, by_hand, without)]  # type: ignore[union-attr]
    assert torch.equal(matrices[0], matrices[1])
    assert float((matrices[0] - matrices[2]).norm()) > 0.2 * float(matrices[2].norm())


def test_a_known_fact_is_known_as_it_is_asked() -> None:
    handle = chats.handle()
    said = handle.text(greedy(handle, chats.rendered(handle, "Ashurn works as a")))
    known = tiny.request(target_true=said.strip() or "x", target_new="baker")
    by_hand = gives_true_answers(chats.plainly(handle), as_asked(handle, [known]))
    assert gives_true_answers(handle, [known]) == by_hand


def greedy(handle: ModelHandle, prompt: str) -> list[int]:
    from editsafety.model.scoring import continuations

    return continuations(handle, [handle.ids(prompt)], [2])[0]


def test_the_template_is_in_the_provenance() -> None:
    handle = chats.handle()
    assert provenance.of_model(handle).chat == chats.rendered(handle, "{}")
    assert provenance.of_model(chats.plainly(handle)).chat == ""


@pytest.mark.parametrize("words", [{"chat": "{}"}, {"chat": "{}x"}])
def test_a_template_is_in_the_key_of_a_result(words: dict[str, str], paths: dict[str, str], tmp_path: object) -> None:
    from pathlib import Path

    from tests.lab.test_keys import FACTS, cases, keys

    (case, *_) = cases(paths)
    place = Path(str(tmp_path))
    plain = keys(paths, place / "plain").of(case)
    assert keys(paths, place / "chat", facts=replace(FACTS, **words)).of(case) != plain
