"""GRACE: the codebook's rules, what a token's input decides, and what does not decide."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from editsafety.datasets.request import EditRequest
from editsafety.editing.keys import by_token
from editsafety.editors.grace import Codebook, Discrete, Grace
from editsafety.edits.edit import Edit
from editsafety.edits.seal import Frame, Seal
from editsafety.edits.session import EditSession
from editsafety.errors import EditorError
from editsafety.model import trace
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.editors.conftest import Make

REQUEST = tiny.request(target_new="farmer and baker")
OTHER = tiny.request("case-1", subject="Mirel", target_new="farmer")
TEXT = "The capital of Dorvan is Kelmar."
FAMILIES = ("gpt2", "llama", "opt", "falcon")


def logits(handle: ModelHandle, *texts: str, edits: Sequence[Edit] = ()) -> list[Tensor]:
    """Logits `[tokens, vocab]` of every text, all of them in one padded batch."""
    rows = [handle.ids(text) for text in texts]
    with EditSession(handle) as session, torch.no_grad():
        for edit in edits:
            session.apply(edit)
        found = handle.logits(handle.batch(rows))
    return [scores[: len(row)] for scores, row in zip(found, rows, strict=True)]


def nll(handle: ModelHandle, request: EditRequest, *edits: Edit) -> float:
    """Mean over target tokens, by the definition."""
    prompt, target = handle.ids(request.filled), handle.target_ids(request.target_new)
    with EditSession(handle) as session, torch.no_grad():
        for edit in edits:
            session.apply(edit)
        scores = handle.logits(handle.batch([[*prompt, *target]]))[0].log_softmax(-1)
    return -float(sum(scores[len(prompt) - 1 + i, t] for i, t in enumerate(target))) / len(target)


def at_last(handle: ModelHandle, module: str, text: str) -> tuple[Tensor, Tensor]:
    """Input and output of a module at the last token, by hooks."""
    batch = handle.batch([handle.ids(text)])
    with torch.no_grad(), trace.watch(handle.model, [module]) as seen:
        handle.logits(batch)
    received, returned = (by_token(found[module], *batch.ids.shape) for found in (seen.inputs, seen.outputs))
    return received[0, -1], returned[0, -1]


def book(*entries: tuple[list[float], list[int], float]) -> Codebook:
    """A codebook with values of zero."""
    labels = torch.full((len(entries), max(len(label) for _, label, _ in entries)), -1)
    for i, (_, label, _) in enumerate(entries):
        labels[i, : len(label)] = torch.tensor(label)
    keys = torch.tensor([key for key, _, _ in entries])
    radii = torch.tensor([radius for _, _, radius in entries])
    return Codebook(keys, torch.zeros(len(entries), 2), radii, labels, torch.tensor(1))


def placed(codebook: Codebook, key: list[float], label: list[int]) -> tuple[Codebook, int, str]:
    return codebook.placed(torch.tensor(key), label, torch.ones(2), eps=1.0)


def test_a_key_beyond_both_radii_gets_an_entry_of_its_own() -> None:
    found, at, what = placed(book(([0.0, 0.0], [5], 1.0)), [2.1, 0.0], [5])
    assert (at, what) == (1, "new")
    assert found.epsilons.tolist() == [1.0, 1.0]
    assert found.keys[1].tolist() == pytest.approx([2.1, 0.0])
    assert found.values.tolist() == [[0.0, 0.0], [1.0, 1.0]]


def test_a_near_key_with_another_label_halves_the_distance_between_them() -> None:
    found, at, what = placed(book(([0.0, 0.0], [5], 1.0)), [1.6, 0.0], [6])
    assert (at, what) == (1, "split")
    assert found.epsilons.tolist() == pytest.approx([0.8 - 1e-5, 0.8])


def test_a_near_key_with_the_same_label_widens_the_entry() -> None:
    found, at, what = placed(book(([0.0, 0.0], [5], 1.0)), [1.6, 0.0], [5])
    assert (at, what, len(found.keys)) == (0, "covered", 1)
    assert found.epsilons.tolist() == pytest.approx([1.6])


def test_a_covered_key_does_not_shrink_the_entry() -> None:
    assert placed(book(([0.0, 0.0], [5], 1.0)), [0.3, 0.0], [5])[0].epsilons.tolist() == [1.0]


def test_labels_are_compared_token_by_token_with_the_nearest_entry() -> None:
    """The published comparison is of means, and from the second entry on with another entry's label."""
    two = book(([0.0, 0.0], [4, 6], 1.0), ([9.0, 0.0], [5], 1.0))
    assert placed(two, [9.5, 0.0], [5])[2] == "covered"
    assert placed(two, [9.5, 0.0], [4, 6])[2] == "split"
    assert placed(two, [0.5, 0.0], [6, 4])[2] == "split"
    assert placed(two, [0.5, 0.0], [4])[2] == "split"


def test_the_same_prompt_with_another_target_overwrites_its_entry() -> None:
    found, at, what = placed(book(([3.0, 0.0], [5], 1.0), ([9.0, 0.0], [5], 1.0)), [3.0, 1e-4], [6, 7])
    assert (at, what, len(found.keys)) == (0, "overwritten", 2)
    assert found.epsilons.tolist() == [1.0, 1.0]
    assert found.labels.tolist() == [[6, 7], [5, -1]]
    assert found.values.tolist() == [[1.0, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_target_becomes_likelier(family: str, make: Make) -> None:
    handle = tiny.handle(family)
    for request, gain in ((REQUEST, 0.5), (OTHER, 1.0)):
        edit = make("grace", handle).edit([request])
        after = nll(handle, request, edit)
        assert after < nll(handle, request) - gain
        assert after == pytest.approx(float(edit.notes["nll_at_stop"]), abs=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_bfloat16_is_edited(family: str, make: Make) -> None:
    handle = tiny.handle(family, dtype="bfloat16")
    assert nll(handle, OTHER, make("grace", handle).edit([OTHER])) < nll(handle, OTHER) - 1.0


@pytest.mark.parametrize("part", ["mlp_in", "mlp_out"])
def test_the_key_is_the_input_at_the_last_prompt_token_and_the_value_is_the_output_there(part: str, make: Make) -> None:
    handle = tiny.handle("gpt2")
    edit = make("grace", handle, part=part).edit([REQUEST])
    (car,) = edit.sidecars
    assert isinstance(car, Discrete)
    assert car.target.endswith({"mlp_in": "1.mlp.c_fc", "mlp_out": "1.mlp.c_proj"}[part])
    key, before = at_last(handle, car.target, REQUEST.filled)
    torch.testing.assert_close(car.keys[0], key)
    with EditSession(handle) as session:
        session.apply(edit)
        torch.testing.assert_close(at_last(handle, car.target, REQUEST.filled)[1], car.values[0])
        assert not torch.allclose(before, car.values[0])


@pytest.mark.parametrize("start", ["cold", "warm"])
def test_the_first_step_of_adam_goes_from_the_start_by_the_learning_rate(start: str, make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor = make("grace", handle, n_iter=1, edit_lr=0.25, val_init=start)
    (car,) = editor.edit([REQUEST]).sidecars
    assert isinstance(car, Discrete)
    drawn = torch.rand(tiny.WIDTH, generator=editor.generator(REQUEST))
    begin = drawn if start == "cold" else at_last(handle, car.target, REQUEST.filled)[1]
    torch.testing.assert_close((car.values[0] - begin).abs(), torch.full((tiny.WIDTH,), 0.25), rtol=1e-3, atol=1e-3)


def test_a_token_outside_every_radius_is_untouched_bit_for_bit(make: Make) -> None:
    handle = tiny.handle("gpt2")
    edit = make("grace", handle).edit([REQUEST])
    assert torch.equal(*logits(handle, TEXT), *logits(handle, TEXT, edits=[edit]))


def test_only_the_last_prompt_token_is_replaced(make: Make) -> None:
    handle = tiny.handle("gpt2")
    edit = make("grace", handle).edit([REQUEST])
    (before,), (after,) = logits(handle, REQUEST.filled), logits(handle, REQUEST.filled, edits=[edit])
    assert torch.equal(before[:-1], after[:-1])
    assert not torch.allclose(before[-1], after[-1])


@pytest.mark.parametrize("family", FAMILIES)
def test_neither_company_nor_padding_changes_what_a_prompt_gets(family: str, make: Make) -> None:
    """Published: the index of the last edit's token is used for every prompt."""
    handle = tiny.handle(family)
    edit = make("grace", handle).edit([REQUEST])
    longer = f"{REQUEST.filled} {TEXT} {TEXT}"
    alone = [logits(handle, text, edits=[edit])[0] for text in (REQUEST.filled, longer, TEXT)]
    together = logits(handle, REQUEST.filled, longer, TEXT, edits=[edit])
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    edited = len(handle.ids(REQUEST.filled)) - 1
    torch.testing.assert_close(alone[1][edited], alone[0][-1], rtol=1e-3, atol=1e-3)


def test_a_text_that_is_run_token_by_token_gets_the_same(make: Make) -> None:
    handle = tiny.handle("gpt2")
    edit = make("grace", handle).edit([REQUEST])
    (whole,) = logits(handle, REQUEST.filled, edits=[edit])
    with EditSession(handle) as session, torch.no_grad():
        session.apply(edit)
        cache = None
        for seen, token in enumerate(handle.ids(REQUEST.filled), 1):
            ids = torch.tensor([[token]])
            output = handle.run(ids, torch.ones(1, seen, dtype=torch.long), cache=cache, keep=True)
            cache = output.cache
    torch.testing.assert_close(output.logits[0, -1].float(), whole[-1], rtol=1e-3, atol=1e-3)


def sequence(editor: Any, handle: ModelHandle, requests: Sequence[EditRequest]) -> list[Edit]:
    edits: list[Edit] = []
    with EditSession(handle) as session:
        for request in requests:
            edits.append(editor.edit([request], edits[-1].carry if edits else None))
            session.apply(edits[-1])
    return edits


def test_a_sequence_keeps_every_edit_and_its_last_sidecar_is_enough(make: Make) -> None:
    handle = tiny.handle("gpt2")
    edits = sequence(make("grace", handle), handle, [REQUEST, OTHER])
    before = [nll(handle, request) for request in (REQUEST, OTHER)]
    stacked = [nll(handle, request, *edits) for request in (REQUEST, OTHER)]
    assert all(now < then - 0.5 for now, then in zip(stacked, before, strict=True))
    assert stacked == [nll(handle, request, edits[-1]) for request in (REQUEST, OTHER)]
    assert stacked[0] == pytest.approx(nll(handle, REQUEST, edits[0]), abs=1e-4)


def test_a_sequence_gives_the_codebook_of_all_requests_at_once(make: Make) -> None:
    handle = tiny.handle("gpt2")
    at_once = make("grace", handle).edit([REQUEST, OTHER])
    assert sequence(make("grace", handle), handle, [REQUEST, OTHER])[-1].id == at_once.id
    assert at_once.notes["entries"] == 2


def test_a_prompt_that_is_edited_again_says_the_newer_target(make: Make) -> None:
    handle = tiny.handle("gpt2")
    again = tiny.request("case-2", target_new="baker")
    edits = sequence(make("grace", handle), handle, [REQUEST, again])
    assert (edits[-1].notes["placed"], edits[-1].notes["entries"]) == ("overwritten", 1)
    assert nll(handle, again, *edits) < nll(handle, again, edits[0]) - 1.0


def test_an_entry_that_a_later_edit_made_smaller_is_smaller_in_the_stack(make: Make) -> None:
    handle = tiny.handle("gpt2")
    edits = sequence(make("grace", handle, eps=100.0), handle, [REQUEST, OTHER])
    assert edits[-1].notes["placed"] == "split"
    assert torch.equal(*logits(handle, TEXT, edits=edits), *logits(handle, TEXT, edits=edits[-1:]))
    assert not torch.equal(*logits(handle, TEXT, edits=edits), *logits(handle, TEXT, edits=edits[:1]))


def test_two_edits_that_know_nothing_of_each_other_both_speak(make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor = make("grace", handle)
    both = [editor.edit([REQUEST]), editor.edit([OTHER])]
    for request, edit in zip((REQUEST, OTHER), both, strict=True):
        assert nll(handle, request, *both) == pytest.approx(nll(handle, request, edit), abs=1e-5)


def test_a_saved_edit_gives_the_same_bits(make: Make, tmp_path: Path) -> None:
    handle = tiny.handle("gpt2")
    edit = make("grace", handle).edit([REQUEST, OTHER])
    edit.save(tmp_path / "edit.safetensors")
    loaded = Edit.load(tmp_path / "edit.safetensors", Grace.sidecars)
    assert loaded.id == edit.id
    texts = (REQUEST.filled, OTHER.filled, TEXT)
    for one, other in zip(logits(handle, *texts, edits=[edit]), logits(handle, *texts, edits=[loaded]), strict=True):
        assert torch.equal(one, other)


def test_equal_seeds_give_equal_bytes_in_any_order_of_edits(make: Make) -> None:
    first, second = make("grace", tiny.handle("gpt2")), make("grace", tiny.handle("gpt2"))
    forward = [first.edit([request]).id for request in (REQUEST, OTHER)]
    assert forward == [second.edit([request]).id for request in (OTHER, REQUEST)][::-1]


def test_the_model_is_what_it_was_after_an_edit(make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor = make("grace", handle)
    frame, seal, random = Frame.of(handle), Seal.of(handle), torch.get_rng_state()
    edit = editor.edit([REQUEST, OTHER])
    assert (edit.deltas, frame.left_behind(handle), seal.changed(Seal.of(handle))) == ((), (), ())
    assert torch.equal(random, torch.get_rng_state())


def test_the_model_is_what_it_was_after_an_error_on_the_way(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    editor = make("grace", handle)
    frame, seal = Frame.of(handle), Seal.of(handle)

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.Adam, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        editor.edit([REQUEST])
    assert (frame.left_behind(handle), seal.changed(Seal.of(handle))) == ((), ())


def test_a_part_of_several_projections_is_refused(make: Make) -> None:
    with pytest.raises(EditorError, match=r"has 2: .*gate_proj, .*up_proj\. Set part to mlp_out"):
        make("grace", tiny.handle("llama"), part="mlp_in").edit([REQUEST])


def test_the_codebook_of_another_part_is_refused(make: Make) -> None:
    handle = tiny.handle("gpt2")
    carry = make("grace", handle).edit([REQUEST]).carry
    with pytest.raises(EditorError, match="Carry on with the layer and part that the sequence began with"):
        make("grace", handle, part="mlp_in").edit([OTHER], carry)


def test_nothing_to_edit_is_refused(make: Make) -> None:
    with pytest.raises(EditorError, match="grace was given no request"):
        make("grace", tiny.handle("gpt2")).edit([])
