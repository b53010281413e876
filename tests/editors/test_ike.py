"""IKE: the edited model is the model with a text in front of its input, however it is called."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from editsafety.editors import ike
from editsafety.edits.edit import Edit
from editsafety.edits.session import EditSession
from editsafety.errors import EditError, EditorError
from editsafety.model import logits as chosen_logits
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.editors.conftest import Make

REQUEST = tiny.request()
OTHER = tiny.request("case-1", subject="Toren", prompt="The mother tongue of {} is", target_new="Tarnic")
TEXTS = ("Mirel works as a baker, and", "Toren lives")
PAD = 1


def prefix_of(edit: Edit) -> list[int]:
    (car,) = edit.sidecars
    assert isinstance(car, ike.Prefix)
    return [int(token) for token in car.prefix]


def by_hand(handle: ModelHandle, prefix: list[int], ids: list[int], bos: int) -> Tensor:
    """Logits of one text, `[seq, vocab]`, with the prefix written in by hand behind `bos` special tokens."""
    with torch.no_grad():
        row = [*ids[:bos], *prefix, *ids[bos:]]
        return handle.logits(handle.batch([row]))[0, len(prefix) :]


def greedy(handle: ModelHandle, prefix: list[int], ids: list[int], bos: int, n: int) -> list[int]:
    for _ in range(n):
        ids = [*ids, int(by_hand(handle, prefix, ids, bos)[-1].argmax())]
    return ids[-n:]


def left_padded(rows: list[list[int]]) -> dict[str, Tensor]:
    width = max(len(row) for row in rows)
    ids = torch.tensor([[PAD] * (width - len(row)) + row for row in rows])
    return {"input_ids": ids, "attention_mask": torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])}


@pytest.mark.parametrize("spelling", ["bytes", "bytes_bos", "metaspace_bos"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
def test_every_text_is_read_behind_the_prefix(family: str, spelling: str, make: Make) -> None:
    handle = tiny.handle(family, spelling=spelling)
    edit = make("ike", handle).edit([REQUEST])
    rows = [handle.ids(text) for text in TEXTS]
    expected = [by_hand(handle, prefix_of(edit), row, int("bos" in spelling)) for row in rows]
    session = EditSession(handle)
    with session, torch.no_grad():
        session.apply(edit)
        found = handle.logits(handle.batch(rows))
        positional = handle.model(handle.batch(rows).ids, attention_mask=handle.batch(rows).mask).logits
    assert found.shape[:2] == (2, max(len(row) for row in rows))
    torch.testing.assert_close(positional.float(), found)
    for i, (row, wanted) in enumerate(zip(rows, expected, strict=True)):
        torch.testing.assert_close(found[i, : len(row)], wanted, rtol=1e-4, atol=1e-4)
    assert session.leftovers == ()
    assert not handle.model._forward_pre_hooks
    assert not handle.model._forward_pre_hooks_with_kwargs


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize(
    ("family", "spelling"), [("gpt2", "bytes"), ("llama", "bytes_bos"), ("bloom", "bytes"), ("gemma2", "bytes_bos")]
)
def test_generation_says_what_the_model_says_behind_the_prefix(
    family: str, spelling: str, cached: bool, make: Make
) -> None:
    """Token by token, two rows padded on the left, against the prefix written in by hand."""
    handle = tiny.handle(family, spelling=spelling)
    edit = make("ike", handle, k=0).edit([REQUEST])
    rows = [handle.ids(text) for text in TEXTS]
    expected = [greedy(handle, prefix_of(edit), row, int("bos" in spelling), 4) for row in rows]
    with EditSession(handle) as session, torch.no_grad():
        session.apply(edit)
        options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": PAD}
        said = handle.model.generate(**left_padded(rows), use_cache=cached, **options)
    assert said[:, -4:].tolist() == expected


def test_a_loss_is_that_of_the_text_behind_the_prefix(make: Make) -> None:
    for spelling in ("bytes", "bytes_bos"):
        handle = tiny.handle("gpt2", spelling=spelling)
        edit, ids = make("ike", handle).edit([REQUEST]), handle.ids(TEXTS[0])
        scores = by_hand(handle, prefix_of(edit), ids, int("bos" in spelling)).log_softmax(-1)
        nll = -sum(float(scores[at, token]) for at, token in enumerate(ids[1:])) / (len(ids) - 1)
        with EditSession(handle) as session, torch.no_grad():
            session.apply(edit)
            row = torch.tensor([ids])
            assert float(handle.model(input_ids=row, labels=row).loss) == pytest.approx(nll, rel=1e-4)


def test_only_some_logits_and_hidden_states_are_those_of_the_text(make: Make) -> None:
    handle = tiny.handle("gpt2")
    edit, ids = make("ike", handle).edit([REQUEST]), torch.tensor([handle.ids(TEXTS[0])])
    with EditSession(handle) as session, torch.no_grad():
        session.apply(edit)
        whole = handle.model(input_ids=ids, output_hidden_states=True)
        assert {states.shape[1] for states in whole.hidden_states} == {ids.shape[1]}
        last = handle.model(input_ids=ids, logits_to_keep=2).logits
        some = handle.model(input_ids=ids, logits_to_keep=torch.tensor([0, 3])).logits
    torch.testing.assert_close(last, whole.logits[:, -2:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(some, whole.logits[:, [0, 3]], rtol=1e-4, atol=1e-4)


def test_a_text_that_does_not_fit_behind_the_prefix_is_refused_with_both_lengths(make: Make) -> None:
    handle = tiny.handle("gpt2")
    edit = make("ike", handle).edit([REQUEST])
    length = len(prefix_of(edit))
    room = tiny.CONTEXT - length
    with EditSession(handle) as session, torch.no_grad():
        session.apply(edit)
        assert handle.logits(handle.batch([[5] * room])).shape[1] == room
        with pytest.raises(EditError, match=rf"{length} tokens in front of a text of {room + 1}: 257 .* takes 256"):
            handle.logits(handle.batch([[5] * (room + 1)]))
        ids = torch.tensor([[5] * (room + 1)])
        first = handle.run(ids[:, : room - 1], torch.ones_like(ids)[:, : room - 1], keep=True)
        second = handle.run(ids[:, :1], torch.ones_like(ids)[:, :room], cache=first.cache)
        with pytest.raises(EditError, match=rf"in front of a text of {room + 1}"):
            handle.run(ids[:, :1], torch.ones_like(ids), cache=second.cache)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"inputs_embeds": torch.zeros(1, 3, 32)}, "reads token ids"),
        (
            {"input_ids": torch.ones(1, 3, dtype=torch.long), "attention_mask": torch.ones(1, 1, 3, 3)},
            "needs an attention mask",
        ),
        ({"input_ids": torch.ones(1, 3, dtype=torch.long), "return_dict": False}, "leave return_dict=False out"),
        ({"input_ids": torch.ones(1, 3, dtype=torch.long), "past_key_values": ()}, "cache of type tuple"),
        ({"input_ids": torch.ones(1, 3, dtype=torch.long), "cache": ()}, "cache of type tuple"),
        (
            {"input_ids": torch.ones(1, 3, dtype=torch.long), "token_type_ids": torch.ones(1, 3, dtype=torch.long)},
            "token_type_ids",
        ),
    ],
)
def test_a_call_that_cannot_be_followed_is_refused(how: dict[str, Any], message: str, make: Make) -> None:
    handle = tiny.handle("gpt2")
    with EditSession(handle) as session, torch.no_grad():
        session.apply(make("ike", handle).edit([REQUEST]))
        with pytest.raises(EditError, match=message):
            handle.model(**how)


def test_a_cache_that_was_filled_without_the_prefix_is_refused(make: Make) -> None:
    handle = tiny.handle("gpt2")
    edit, row = make("ike", handle).edit([REQUEST]), torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        cache = handle.run(row, torch.ones_like(row), keep=True).cache
        with EditSession(handle) as session:
            session.apply(edit)
            with pytest.raises(EditError, match="a cache of 3 tokens that was filled without it"):
                handle.run(row, torch.ones(1, 6, dtype=torch.long), cache=cache)


def test_positions_that_somebody_chose_inside_the_model_are_refused(make: Make) -> None:
    handle = tiny.handle("gpt2")
    with EditSession(handle) as session, torch.no_grad():
        session.apply(make("ike", handle).edit([REQUEST]))
        batch = handle.batch([[5, 6, 7]])
        with (
            chosen_logits.only_at(handle, torch.tensor([0]), torch.tensor([2])),
            pytest.raises(EditError, match="chos"),
        ):
            handle.logits(batch)
        assert handle.logits(batch).shape[1] == 3  # the call that failed left nothing open


# ------------------------------------------------------------------------------------------------------- what is told


def told(edit: Edit, handle: ModelHandle) -> str:
    return handle.text(prefix_of(edit))


def test_the_fact_stands_last_and_the_text_behind_a_space(make: Make) -> None:
    for spelling in ("bytes", "bytes_bos"):
        handle = tiny.handle("gpt2", spelling=spelling)
        edit = make("ike", handle, k=0).edit([REQUEST])
        assert told(edit, handle) == "New Fact: Ashurn works as a teacher\nPrompt: "
    handle = tiny.handle("llama", spelling="metaspace_bos")  # its texts begin with the space by themselves
    ids = [*prefix_of(make("ike", handle, k=0).edit([REQUEST])), *handle.ids("Mirel", special=False)]
    assert handle.text(ids).endswith("rompt Mirel")


def test_in_a_sequence_the_facts_are_told_below_each_other_by_the_last_sidecar_alone(make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor = make("ike", handle, k=0)
    first = editor.edit([REQUEST])
    second = editor.edit([OTHER], first.carry)
    lines = ["New Fact: Ashurn works as a teacher", "New Fact: The mother tongue of Toren is Tarnic", "Prompt: "]
    assert told(second, handle) == "\n".join(lines)
    ids = handle.ids(TEXTS[0])
    expected = by_hand(handle, prefix_of(second), ids, 0)
    with EditSession(handle) as session, torch.no_grad():
        session.apply(first)
        session.apply(second)
        torch.testing.assert_close(handle.logits(handle.batch([ids]))[0], expected, rtol=1e-4, atol=1e-4)
    again = editor.edit([tiny.request("case-2", target_new="baker")], second.carry)
    assert told(again, handle) == "\n".join([lines[1], "New Fact: Ashurn works as a baker", lines[2]])


def test_edits_that_do_not_know_of_each_other_stand_in_front_of_each_other(make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor = make("ike", handle, k=0)
    inner, outer = editor.edit([REQUEST]), editor.edit([OTHER])
    ids = handle.ids(TEXTS[0])
    expected = by_hand(handle, [*prefix_of(inner), *prefix_of(outer)], ids, 0)
    with EditSession(handle) as session, torch.no_grad():
        session.apply(inner)
        session.apply(outer)
        torch.testing.assert_close(handle.logits(handle.batch([ids]))[0], expected, rtol=1e-4, atol=1e-4)


def test_too_much_to_tell_is_refused(make: Make) -> None:
    with pytest.raises(EditorError, match=r"9 demonstrations and 1 facts are \d+ tokens; tiny-gpt2 takes 256"):
        make("ike", tiny.handle("gpt2"), k=9).edit([REQUEST])


def test_nothing_to_tell_is_refused(make: Make) -> None:
    with pytest.raises(EditorError, match="ike was given no request"):
        make("ike", tiny.handle("gpt2")).edit([])


# ---------------------------------------------------------------------------------------------------- demonstrations


def demonstrations(tmp_path: Path, *rows: dict[str, Any]) -> str:
    path = tmp_path / "demonstrations.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def row(number: int, subject: str, **more: Any) -> dict[str, Any]:
    values = {
        "id": f"d{number}", "prompt": "{} works as a", "subject": subject, "target_new": "smith", "relation": "job",
        "rephrasings": [f"The trade of {subject} is"],
        "neighbours": [{"prompt": f"Near{number} is a", "answer": "cook"}],
    }  # fmt: skip
    return {**values, **more}


def shown(make: Make, path: str, k: int, **more: Any) -> list[str]:
    editor: Any = make("ike", tiny.handle("gpt2"), demonstrations=path, k=k, **more)
    request = tiny.request(relation="job", rephrasings=["The work of Ashurn is"])
    return list(editor._demonstrations([request], {"Toren works as a": "x"}, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("select", ["lines", "facts"])
def test_nothing_is_shown_that_would_give_the_answer_away(select: str, tmp_path: Path, make: Make) -> None:
    rows = [
        row(0, "Ashurn", prompt="{} earns money as a"),  # the same subject and relation
        row(1, "Toren"),  # a fact that has been told
        row(2, "Pelvik", rephrasings=["The work of Ashurn is"]),  # asks the request's rephrasing
        row(3, "Velo", neighbours=[{"prompt": "Mirel works as a", "answer": "baker"}]),  # asks its neighbour
        row(4, "Ashurn", prompt="{} lives in", relation="home"),
    ]
    found = shown(make, demonstrations(tmp_path, *rows), 20, select=select)
    questions = [line.split("Prompt: ")[1] for line in found]
    assert not [q for q in questions if "Mirel works" in q or "The work of Ashurn" in q or "earns" in q]
    assert not [line for line in found if "Toren" in line]
    assert [line for line in found if "Pelvik" in line]
    assert [line for line in found if "Ashurn lives in" in line]


def test_lines_come_with_the_nearest_first(tmp_path: Path, make: Make) -> None:
    rows = [
        row(0, "Velo", prompt="{} lives in"),
        row(1, "Ashurna"),
        row(2, "Ashurn", relation="home", prompt="{} has a"),
    ]
    found = shown(make, demonstrations(tmp_path, *rows), 20, select="lines")
    query = "New Fact: Ashurn works as a teacher\nPrompt: Ashurn works as a\n\n"
    assert len(found) == 9
    assert found == [found[at] for at in ike.nearest([query], found, 9)]
    assert found[0] == "New Fact: Ashurna works as a smith\nPrompt: Ashurna works as a smith\n\n"


def test_facts_come_one_line_each_in_the_papers_ratio_with_the_nearest_last(tmp_path: Path, make: Make) -> None:
    rows = [row(number, f"Person{number}") for number in range(31)]
    rows.append(row(31, "Zed", prompt="{} works as a teacher like Ashurn, a"))
    found = shown(make, demonstrations(tmp_path, *rows), 32, select="facts")
    kinds = ["near" if "Near" in line else "trade" if "trade" in line else "copy" for line in found]
    assert (kinds.count("copy"), kinds.count("trade"), kinds.count("near")) == (4, 12, 16)
    assert kinds != sorted(kinds)
    assert "Zed" in found[-1]


def test_nearness_is_the_cosine_of_weighted_words() -> None:
    """Texts a = "x y", b = "y z"; query "x z z": weights log(3/2)+1 for x and z, 1 for y, by hand."""
    rare, common = math.log(3 / 2) + 1, 1.0
    norm = math.hypot(rare, common)
    near_a = rare * rare / (norm * rare * math.sqrt(5))
    near_b = 2 * rare * rare / (norm * rare * math.sqrt(5))
    assert near_b > near_a
    assert ike.nearest(["x z z"], ["x y", "y z"], 2) == [1, 0]
    assert ike.nearest(["X, y!"], ["y z", "x y", "x y"], 2) == [1, 2]
    assert ike.nearest(["nothing in common"], ["x", "y"], 1) == [0]
    assert ike.nearest(["y z", "x"], ["q", "x", "z y"], 2) == [1, 2]
