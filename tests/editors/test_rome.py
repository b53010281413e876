"""ROME and its relatives as editors: the constraint, the sequence, the notes, and what they leave behind."""

from typing import Any

import pytest
import torch

from editsafety.datasets.request import EditRequest
from editsafety.editing import targets
from editsafety.editing.keys import at_subject
from editsafety.editing.subject import locate
from editsafety.editors import rome_family
from editsafety.edits.edit import Edit, LowRank
from editsafety.edits.seal import Frame, Seal
from editsafety.edits.session import EditSession
from editsafety.errors import EditorError, NotPreparedError, UsageError
from editsafety.hyperparameters import validate
from editsafety.model import trace
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.editors.conftest import NUMBERS, Make

FAMILY = ("rome", "c_rome", "r_rome", "p_rome")
REQUEST = tiny.request(prompt="The work of {} is that of a", target_new="farmer and baker")
OTHER = tiny.request("case-1", subject="Mirel", target_new="farmer")


def output_at(handle: ModelHandle, module: str, request: EditRequest, contexts: tuple[str, ...]) -> torch.Tensor:
    return at_subject(handle, module, [locate(handle, request, context) for context in contexts]).outputs


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("gpt2", {}),
        ("gpt2", {"square": True}),
        ("gpt2", {"tied": True}),
        ("gpt2", {"tied": False}),
        ("gpt_neo", {}),
        ("gpt_neo", {"square": True}),
        ("llama", {"spelling": "bytes_bos", "tied": True}),
        ("opt", {}),
    ],
)
@pytest.mark.parametrize("name", ["rome", "p_rome"])
def test_after_the_edit_the_bare_key_gives_v_star(name: str, family: str, more: dict[str, Any], make: Make) -> None:
    handle = tiny.handle(family, **more)
    editor: Any = make(name, handle)
    module = handle.mlp_out(1).module
    target = targets.optimise(handle, module, REQUEST, editor.templates(), editor.hparams)
    with EditSession(handle) as session:
        session.apply(editor.edit([REQUEST]))
        found = output_at(handle, module, REQUEST, ("{}",))[0]
    torch.testing.assert_close(found, target.value, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo"])
@pytest.mark.parametrize("name", ["c_rome", "r_rome"])
def test_with_prefixed_keys_the_mean_output_becomes_v_star(name: str, family: str, make: Make) -> None:
    handle = tiny.handle(family)
    editor: Any = make(name, handle)
    module = handle.mlp_out(1).module
    target = targets.optimise(handle, module, REQUEST, editor.templates(), editor.hparams)
    with EditSession(handle) as session:
        session.apply(editor.edit([REQUEST]))
        found = output_at(handle, module, REQUEST, editor.templates()).mean(0)
    torch.testing.assert_close(found, target.value, rtol=1e-3, atol=1e-3)


def test_the_target_becomes_likelier(make: Make) -> None:
    handle = tiny.handle("gpt2")
    edit = make("rome", handle).edit([REQUEST])
    ids, target = handle.ids(REQUEST.filled), handle.target_ids(REQUEST.target_new)

    def likelihood() -> float:
        with torch.no_grad():
            return float(handle.logits(handle.batch([ids]))[0, -1].log_softmax(-1)[target[0]])

    before = likelihood()
    with EditSession(handle) as session:
        session.apply(edit)
        assert likelihood() > before


def test_c_rome_and_r_rome_are_one_formula(make: Make) -> None:
    handle = tiny.handle("gpt2")
    assert make("c_rome", handle).edit([REQUEST]).id == make("r_rome", handle).edit([REQUEST]).id


def test_the_family_differs_where_it_should(make: Make) -> None:
    handle = tiny.handle("gpt2")
    assert len({make(name, handle).edit([REQUEST]).id for name in ("rome", "c_rome", "p_rome")}) == 3


@pytest.mark.parametrize("name", FAMILY)
def test_equal_seeds_give_equal_bytes_in_any_order_of_edits(name: str, make: Make) -> None:
    first, second = make(name, tiny.handle("gpt2")), make(name, tiny.handle("gpt2"))
    forward = [first.edit([request]).id for request in (REQUEST, OTHER)]
    backward = [second.edit([request]).id for request in (OTHER, REQUEST)]
    assert forward == backward[::-1]


def test_another_seed_draws_other_contexts_and_gives_another_edit(make: Make) -> None:
    handle = tiny.handle("gpt2")
    assert make("rome", handle, seed=1).edit([REQUEST]).id != make("rome", handle).edit([REQUEST]).id


@pytest.mark.parametrize("requests", [[REQUEST], [REQUEST, OTHER]], ids=["one", "two"])
def test_the_model_is_what_it_was_after_an_edit(requests: list[EditRequest], make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor = make("rome", handle)
    frame, seal = Frame.of(handle), Seal.of(handle)
    random = torch.get_rng_state()
    editor.edit(requests)
    assert frame.left_behind(handle) == ()
    assert seal.changed(Seal.of(handle)) == ()
    assert torch.equal(random, torch.get_rng_state())


def test_the_model_is_what_it_was_after_an_error_on_the_way(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    editor = make("rome", handle)
    frame, seal = Frame.of(handle), Seal.of(handle)
    real, calls = targets.optimise, []

    def fails_later(*args: Any, **more: Any) -> targets.Target:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **more)

    monkeypatch.setattr(targets, "optimise", fails_later)
    with pytest.raises(KeyboardInterrupt):
        editor.edit([REQUEST, OTHER])
    assert frame.left_behind(handle) == ()
    assert seal.changed(Seal.of(handle)) == ()


def test_several_requests_are_edited_one_after_the_other(make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor = make("rome", handle)
    together = editor.edit([REQUEST, OTHER])
    first = editor.edit([REQUEST])
    with EditSession(handle) as session:
        session.apply(first)
        second = editor.edit([OTHER])
    apart = Edit("rome", (), handle.identity, (*first.deltas, *second.deltas))
    assert together.request_ids == (REQUEST.id, OTHER.id)
    for found, expected in zip(together.deltas, apart.deltas, strict=True):
        assert isinstance(found, LowRank)
        assert isinstance(expected, LowRank)
        assert torch.equal(found.matrix(), expected.matrix())


def test_several_layers_are_edited_from_below(make: Make) -> None:
    handle = tiny.handle("gpt2")
    edit = make("rome", handle, layers=[2, 0]).edit([REQUEST])
    assert [delta.parameter for delta in edit.deltas] == [handle.mlp_out(n).parameter for n in (0, 2)]


@pytest.mark.parametrize("name", FAMILY)
def test_the_notes_explain_the_edit(name: str, make: Make) -> None:
    handle = tiny.handle("gpt2")
    edit = make(name, handle).edit([tiny.request(subject="x")])
    (delta,) = edit.deltas
    assert isinstance(delta, LowRank)
    notes: Any = edit.notes
    assert notes["first_token"] is True
    assert notes["mom2_adjustment"] is True
    assert notes["update_norm"] == pytest.approx(float(delta.matrix().norm()), rel=1e-4)
    assert abs(notes["numerator"] / notes["denominator"]) == pytest.approx(notes["update_norm"], rel=1e-4)
    assert -1.0001 <= notes["key_cosine"] <= 1.0001
    assert (notes["key_cosine"] == pytest.approx(1.0)) == (name != "rome")
    assert notes["key_agreement"] < 0.999
    assert notes["nll_at_stop"] <= notes["loss_at_stop"]
    assert notes["steps"] <= 11


def test_the_denominator_of_consistent_keys_is_positive(make: Make) -> None:
    handle = tiny.handle("gpt2")
    for request in (REQUEST, OTHER, tiny.request(subject="x")):
        for name in ("c_rome", "p_rome"):
            assert float(make(name, handle).edit([request]).notes["denominator"]) > 0


def test_notes_of_several_deltas_are_numbered_and_the_plain_ones_are_the_largests(make: Make) -> None:
    notes: Any = make("rome", tiny.handle("gpt2")).edit([REQUEST, OTHER]).notes
    assert notes["update_norm"] == max(notes["1.update_norm"], notes["2.update_norm"])


def test_without_second_moments_the_direction_is_the_key_itself(make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor: Any = make("c_rome", handle, prepare=False, mom2_adjustment=False)
    assert editor.missing() is None
    (delta,) = editor.edit([REQUEST]).deltas
    prompts = [locate(handle, REQUEST, template) for template in editor.templates()]
    mean = at_subject(handle, delta.site.module, prompts).inputs.mean(0)
    torch.testing.assert_close(delta.right[0], mean / mean.norm())


def test_an_editor_that_was_not_prepared_names_the_command(make: Make) -> None:
    editor = make("c_rome", tiny.handle("gpt2"), prepare=False)
    assert "second moment" in str(editor.missing())
    with pytest.raises(NotPreparedError, match="prepare --model tiny-gpt2 --editor c_rome"):
        editor.edit([REQUEST])
    editor.prepare()
    assert editor.missing() is None


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_half_precision_is_edited(family: str, make: Make) -> None:
    handle = tiny.handle(family, dtype="bfloat16")
    edit = make("rome", handle).edit([REQUEST])
    with EditSession(handle) as session:
        session.apply(edit)
        assert session.changed() == edit.parameters
        with torch.no_grad(), trace.watch(handle.model, [handle.block(2)]) as seen:
            handle.logits(handle.batch([handle.ids("Ashurn works")]))
    assert torch.isfinite(seen.outputs[handle.block(2)]).all()
    assert all(isinstance(delta, LowRank) and delta.left.dtype == torch.float32 for delta in edit.deltas)


def test_nothing_to_edit_is_refused(make: Make) -> None:
    with pytest.raises(EditorError, match="rome was given no request"):
        make("rome", tiny.handle("gpt2")).edit([])


def test_mom2_adjustment_has_to_be_said(make: Make) -> None:
    kind: Any = type(make("rome", tiny.handle("gpt2"), prepare=False)).Hparams
    numbers = {key: value for key, value in NUMBERS["rome"].items() if key != "mom2_adjustment"}
    with pytest.raises(UsageError, match="'mom2_adjustment' is missing"):
        validate(kind, numbers, "test")


def test_every_note_is_the_figure_of_its_name(make: Make) -> None:
    """From the keys, the outputs and v* by themselves; the denominator from the delta, as the residual has its norm."""
    handle = tiny.handle("gpt2")
    editor: Any = make("rome", handle)
    module, templates = handle.mlp_out(1).module, editor.templates()
    found = targets.optimise(handle, module, REQUEST, templates, editor.hparams)
    at = at_subject(handle, module, [locate(handle, REQUEST, template) for template in templates])
    bare, mean = at.inputs[0], at.inputs.mean(0)
    agreement = float(bare @ mean / (bare.norm() * mean.norm()))
    edit = editor.edit([REQUEST])
    norm, numerator = float(edit.deltas[0].matrix().norm()), float((found.value - at.outputs[0]).norm())
    notes = dict(edit.notes)
    assert abs(notes.pop("denominator")) == pytest.approx(numerator / norm, rel=1e-4)
    assert notes == {
        "numerator": pytest.approx(numerator, rel=1e-4), "update_norm": pytest.approx(norm, rel=1e-4),
        "key_cosine": pytest.approx(agreement, rel=1e-4), "key_agreement": pytest.approx(agreement, rel=1e-4),
        "first_token": False, "loss_at_stop": pytest.approx(found.loss), "nll_at_stop": pytest.approx(found.nll),
        "steps": found.steps, "keys": "mixed", "mom2_adjustment": True,
    }  # fmt: skip


@pytest.mark.parametrize(("flags", "keys"), [({}, "mixed"), ({"original_implementation": False}, "prompt")])
def test_keys_of_the_prompt_are_those_of_a_configuration_that_says_it_is_not_the_original(
    flags: dict[str, Any], keys: str
) -> None:
    assert rome_family._keys_by_flags({"enable_prompt_keys": True, **flags})["keys"] == keys
