"""MEMIT, and what it shares with EMMET and AlphaEdit: batches, layers, sequences, notes and what is left behind."""

from typing import Any

import pytest
import torch
from torch import Tensor

from editsafety.datasets.request import EditRequest
from editsafety.editing import targets
from editsafety.editing.keys import at_subject
from editsafety.editing.subject import locate
from editsafety.edits.edit import Edit, LowRank
from editsafety.edits.seal import Frame, Seal
from editsafety.edits.session import EditSession
from editsafety.errors import EditorError, NotPreparedError, UsageError
from editsafety.hyperparameters import validate
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.editors.conftest import NUMBERS, Make

FAMILY = ("memit", "emmet", "alphaedit")
REQUEST = tiny.request(prompt="The work of {} is that of a", target_new="farmer and baker")
OTHER = tiny.request("case-1", subject="Mirel", target_new="farmer")
THIRD = tiny.request("case-2", prompt="{} was born in the city of", subject="Toren", target_new="Ostrin")
BATCH = [REQUEST, OTHER, THIRD]


def factors(edit: Edit) -> list[LowRank]:
    return [delta for delta in edit.deltas if isinstance(delta, LowRank)]


def key(handle: ModelHandle, module: str, request: EditRequest, groups: Any) -> Tensor:
    """The mean over groups of the mean key in each, one unbatched prompt at a time."""
    means = []
    for group in groups:
        found = [at_subject(handle, module, [locate(handle, request, one)]).inputs[0] for one in group]
        means.append(sum(found, torch.zeros_like(found[0])) / len(found))
    return torch.stack(means).mean(0)


def hidden(handle: ModelHandle, block: str, request: EditRequest) -> Tensor:
    return at_subject(handle, block, [locate(handle, request)]).outputs[0]


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("gpt2", {}),
        ("gpt2", {"square": True}),
        ("gpt_neo", {"square": True}),
        ("llama", {"spelling": "bytes_bos", "tied": True}),
        ("opt", {}),
    ],
)
def test_every_layer_solves_the_published_system_on_the_model_below_it(
    family: str, more: dict[str, Any], make: Make
) -> None:
    handle = tiny.handle(family, **more)
    editor: Any = make("memit", handle, layers=[1, 0], mom2_update_weight=3)
    edit = editor.edit(BATCH)
    block, groups = handle.block(1), editor.groups()
    templates = [template for group in groups for template in group]
    values = [targets.optimise(handle, block, request, templates, editor.hparams).value for request in BATCH]
    with EditSession(handle) as session:
        for layer, delta in enumerate(factors(edit)):
            site = handle.mlp_out(layer)
            assert delta.site == site
            keys = torch.stack([key(handle, site.module, request, groups) for request in BATCH], 1).double()
            now = torch.stack([hidden(handle, block, request) for request in BATCH], 1)
            share = (torch.stack(values, 1) - now) / (2 - layer)
            moment = 3 * editor.moments.of(site, "memit").matrix.double() + keys @ keys.T
            expected = share.double() @ torch.linalg.solve(moment, keys).T
            torch.testing.assert_close(delta.matrix().double(), expected, rtol=1e-3, atol=1e-4)
            session.apply(Edit("test", (), handle.identity, deltas=(delta,)))


def test_the_bare_prompt_weighs_as_much_as_all_prefixed_ones(make: Make) -> None:
    editor: Any = make("memit", tiny.handle("gpt2"), context_template_length_params=[[8, 3], [9, 2]])
    groups = editor.groups()
    assert [len(group) for group in groups] == [1, 3, 2]
    assert groups[0] == ("{}",)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("name", FAMILY)
def test_a_batch_brings_block_z_near_to_every_v_star(name: str, family: str, make: Make) -> None:
    handle = tiny.handle(family)
    editor: Any = make(name, handle, layers=[0, 1])
    block, templates = handle.block(1), [template for group in editor.groups() for template in group]
    values = [targets.optimise(handle, block, request, templates, editor.hparams).value for request in BATCH]

    def away() -> list[float]:
        now = [hidden(handle, block, request) for request in BATCH]
        return [float((value - found).norm()) for value, found in zip(values, now, strict=True)]

    before = away()
    with EditSession(handle) as session:
        session.apply(editor.edit(BATCH))
        assert all(after < 0.25 * was for after, was in zip(away(), before, strict=True))


@pytest.mark.parametrize("name", FAMILY)
def test_one_delta_a_layer_has_the_rank_of_the_batch(name: str, make: Make) -> None:
    handle = tiny.handle("gpt2")
    edit = make(name, handle, layers=[2, 0]).edit(BATCH)
    assert [delta.parameter for delta in edit.deltas] == [handle.mlp_out(n).parameter for n in (0, 2)]
    assert [delta.left.shape[1] for delta in factors(edit)] == [3, 3]
    assert edit.request_ids == tuple(request.id for request in BATCH)


@pytest.mark.parametrize("name", FAMILY)
def test_equal_seeds_give_equal_bytes_in_any_order_of_edits(name: str, make: Make) -> None:
    first, second = make(name, tiny.handle("gpt2")), make(name, tiny.handle("gpt2"))
    forward = [first.edit([request]).id for request in (REQUEST, OTHER)]
    backward = [second.edit([request]).id for request in (OTHER, REQUEST)]
    assert forward == backward[::-1]


@pytest.mark.parametrize("name", FAMILY)
def test_the_model_is_what_it_was_after_an_edit(name: str, make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor = make(name, handle)
    frame, seal, random = Frame.of(handle), Seal.of(handle), torch.get_rng_state()
    editor.edit(BATCH)
    assert frame.left_behind(handle) == ()
    assert seal.changed(Seal.of(handle)) == ()
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.parametrize("name", FAMILY)
def test_the_model_is_what_it_was_after_an_error_between_two_layers(
    name: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = tiny.handle("gpt2")
    editor: Any = make(name, handle, layers=[0, 1])
    frame, seal = Frame.of(handle), Seal.of(handle)
    real, calls = editor.answers, []

    def fails_later(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(editor, "answers", fails_later)
    with pytest.raises(KeyboardInterrupt):
        editor.edit([REQUEST])
    assert frame.left_behind(handle) == ()
    assert seal.changed(Seal.of(handle)) == ()


@pytest.mark.parametrize("name", FAMILY)
def test_an_edit_of_a_sequence_is_computed_on_the_model_as_it_is(name: str, make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor = make(name, handle)
    first = editor.edit([REQUEST])
    alone = editor.edit([OTHER])
    with EditSession(handle) as session:
        session.apply(first)
        second = editor.edit([OTHER], first.carry)
        session.apply(second)
    assert second.id != alone.id
    assert second.made_for == handle.identity


def test_memit_carries_nothing_unless_it_protects_earlier_edits(make: Make) -> None:
    handle = tiny.handle("gpt2")
    assert make("memit", handle).edit([REQUEST]).carry is None
    carry = make("memit", handle, protect_earlier=True).edit(BATCH).carry
    assert carry is not None
    assert {name: list(tensor.shape) for name, tensor in carry.items()} == {
        f"{handle.mlp_out(layer).module}.keys": [64, 3] for layer in (0, 1)
    }


def test_protected_keys_are_those_on_the_model_that_carries_the_whole_edit(make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor: Any = make("memit", handle, protect_earlier=True)
    edit = editor.edit([REQUEST])
    module = handle.mlp_out(1).module
    before = key(handle, module, REQUEST, editor.groups())
    with EditSession(handle) as session:
        session.apply(edit)
        after = key(handle, module, REQUEST, editor.groups())
    assert not torch.allclose(before, after, atol=1e-2)
    torch.testing.assert_close(edit.carry[f"{module}.keys"][:, 0], after, rtol=1e-4, atol=1e-4)


def test_protecting_earlier_edits_adds_their_keys_to_the_system(make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor: Any = make("memit", handle, layers=[1], protect_earlier=True)
    site = handle.mlp_out(1)
    first = editor.edit([REQUEST, OTHER])
    with EditSession(handle) as session:
        session.apply(first)
        (delta,) = factors(editor.edit([THIRD], first.carry))
        known = first.carry[f"{site.module}.keys"].double()
        new = key(handle, site.module, THIRD, editor.groups()).double()
    moment = editor.moments.of(site, "memit").matrix.double() + known @ known.T + torch.outer(new, new)
    torch.testing.assert_close(delta.right[0].double(), torch.linalg.solve(moment, new), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["memit", "alphaedit"])
def test_the_moment_of_many_earlier_keys_does_what_the_keys_do(name: str, make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor = make(name, handle, **({"protect_earlier": True} if name == "memit" else {}))
    carry = editor.edit(BATCH).carry
    assert carry is not None
    moments = {name.replace(".keys", ".moment"): keys @ keys.T for name, keys in carry.items()}
    few, many = editor.edit([REQUEST], carry), editor.edit([REQUEST], moments)
    for one, other in zip(factors(few), factors(many), strict=True):
        torch.testing.assert_close(one.matrix(), other.matrix(), rtol=1e-3, atol=1e-4)
    assert many.carry is not None
    assert all(name.endswith(".moment") for name in many.carry)


@pytest.mark.parametrize("name", FAMILY)
def test_the_notes_explain_the_edit(name: str, make: Make) -> None:
    handle = tiny.handle("gpt2")
    edit = make(name, handle, layers=[0, 1]).edit([tiny.request(subject="x"), OTHER])
    notes: Any = edit.notes
    norms = [float(delta.matrix().norm()) for delta in factors(edit)]
    rows = max(float(row.norm()) for delta in factors(edit) for row in delta.right)
    assert notes["update_norm"] == pytest.approx(sum(norm**2 for norm in norms) ** 0.5, rel=1e-4)
    assert [notes["0.update_norm"], notes["1.update_norm"]] == pytest.approx(norms, rel=1e-4)
    assert notes["denominator"] == pytest.approx(1 / rows, rel=1e-4)
    assert notes["numerator"] == notes["0.residual"] > notes["1.residual"] > notes["left_over"]
    assert notes["first_token"] is True
    assert -1 <= notes["key_agreement"] < 0.999
    assert notes["requests"] == 2
    assert notes["steps"] <= 2 * 7


@pytest.mark.parametrize("name", FAMILY)
def test_an_editor_that_was_not_prepared_names_the_command(name: str, make: Make) -> None:
    editor = make(name, tiny.handle("gpt2"), prepare=False)
    assert "second moment" in str(editor.missing())
    with pytest.raises(NotPreparedError, match=rf"prepare --model tiny-gpt2 --editor {name}"):
        editor.edit([REQUEST])
    editor.prepare()
    assert editor.missing() is None


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("name", FAMILY)
def test_half_precision_is_edited(name: str, family: str, make: Make) -> None:
    handle = tiny.handle(family, dtype="bfloat16")
    edit = make(name, handle).edit(BATCH[:2])
    with EditSession(handle) as session:
        session.apply(edit)
        assert session.changed() == edit.parameters
    assert all(delta.left.dtype == delta.right.dtype == torch.float32 for delta in factors(edit))
    assert all(torch.isfinite(delta.matrix()).all() for delta in factors(edit))


@pytest.mark.parametrize("name", FAMILY)
def test_a_model_that_an_earlier_edit_broke_gives_an_edit_that_is_not_finite(name: str, make: Make) -> None:
    """The measures have to find the collapse; the editor must neither crash nor hide it."""
    handle = tiny.handle("gpt2")
    editor = make(name, handle)
    site = handle.mlp_out(0)
    broken = LowRank(site, torch.full((site.d_out, 1), torch.nan), torch.ones(1, site.d_in))
    with EditSession(handle) as session:
        session.apply(Edit("test", (), handle.identity, deltas=(broken,)))
        edit = editor.edit([REQUEST])
    assert any(delta.matrix().isnan().any() for delta in factors(edit))


@pytest.mark.parametrize("name", FAMILY)
def test_nothing_to_edit_is_refused(name: str, make: Make) -> None:
    with pytest.raises(EditorError, match=f"{name} was given no request"):
        make(name, tiny.handle("gpt2")).edit([])


@pytest.mark.parametrize("name", FAMILY)
def test_the_loss_layer_of_published_configurations_is_refused_by_name(name: str, make: Make) -> None:
    kind: Any = type(make(name, tiny.handle("gpt2"), prepare=False)).Hparams
    with pytest.raises(UsageError, match="unknown hyperparameter 'v_loss_layer'"):
        validate(kind, {**NUMBERS[name], "v_loss_layer": 2}, "test")


def test_every_note_is_the_worst_figure_of_its_name(make: Make) -> None:
    """Of two requests on one layer: v*, keys and block z by themselves, one request at a time."""
    handle = tiny.handle("gpt2")
    editor: Any = make("memit", handle, layers=[1])
    block, groups = handle.block(1), editor.groups()
    templates = [template for group in groups for template in group]
    both = [REQUEST, OTHER]
    found = [targets.optimise(handle, block, one, templates, editor.hparams) for one in both]
    module = handle.mlp_out(1).module
    bare = [at_subject(handle, module, [locate(handle, one)]).inputs[0] for one in both]
    mean = [key(handle, module, one, groups) for one in both]
    agreement = [float(a @ b / (a.norm() * b.norm())) for a, b in zip(bare, mean, strict=True)]
    edit = editor.edit(both)
    lacking = max(float((one.value - hidden(handle, block, of)).norm()) for one, of in zip(found, both, strict=True))
    with EditSession(handle) as session:
        session.apply(edit)
        left = max(float((one.value - hidden(handle, block, of)).norm()) for one, of in zip(found, both, strict=True))
    (delta,) = factors(edit)
    norm = float(delta.matrix().norm())
    assert edit.notes == {
        "numerator": pytest.approx(lacking, rel=1e-3), "1.residual": pytest.approx(lacking, rel=1e-3),
        "denominator": pytest.approx(1 / float(delta.right.norm(dim=1).max()), rel=1e-4),
        "left_over": pytest.approx(left, rel=1e-3), "update_norm": pytest.approx(norm, rel=1e-4),
        "1.update_norm": pytest.approx(norm, rel=1e-4), "key_agreement": pytest.approx(min(agreement), rel=1e-4),
        "first_token": True, "loss_at_stop": pytest.approx(max(one.loss for one in found), rel=1e-3),
        "nll_at_stop": pytest.approx(max(one.nll for one in found), rel=1e-3),
        "steps": sum(one.steps for one in found), "requests": 2,
    }  # fmt: skip
