"""Knowledge neurons: what is attributed, which neurons stay, what is added to them."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from editsafety import editors
from editsafety.editors._neurons import NeuronQuestion, Place, attributions, loudest, shared
from editsafety.edits.edit import Edit, LowRank
from editsafety.edits.seal import Frame, Seal
from editsafety.edits.session import EditSession
from editsafety.errors import EditorError
from editsafety.model.architectures import Part
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.editors.conftest import Make

REQUEST = tiny.request(target_new="teacher", target_true="farmer")
OTHER = tiny.request("case-1", subject="Mirel", target_new="farmer", target_true="baker")
BOTH = ["kn", "kn_paper"]


def probability(
    handle: ModelHandle, question: NeuronQuestion, layer: int, place: Place, alpha: float
) -> tuple[float, Any]:
    """Mean probability of the answers with one layer's neurons scaled, the whole row run; and its slope along w."""
    out = handle.model.get_submodule(handle.mlp_out(layer).module)
    into = handle.model.get_submodule(handle.sites(Part.MLP_IN, layer)[0].module)
    width = handle.mlp_out(layer).d_in
    kept: list[Tensor] = []

    def scale(tensor: Tensor) -> Tensor:
        rows = tensor.reshape(len(question.ids), -1)
        kept.append((rows[-1, :width].detach() * alpha).requires_grad_())
        last = torch.cat([kept[-1], rows[-1, width:]])
        return torch.cat([rows[:-1], last[None]]).reshape(tensor.shape)

    if place is Place.POST:
        hook = out.register_forward_pre_hook(lambda _, args: (scale(args[0]), *args[1:]))
    else:
        hook = into.register_forward_hook(lambda _, __, output: scale(output))
    scores = handle.logits(handle.batch([question.ids]))[0, -1].softmax(-1)
    hook.remove()
    value = scores[list(question.answers)].mean()
    return float(value.detach()), torch.autograd.grad(value, kept)[0]


@pytest.mark.parametrize("place", Place)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_attributions_are_the_integrated_gradients_of_whole_rows(family: str, place: Place) -> None:
    handle = tiny.handle(family)
    question = NeuronQuestion(tuple(handle.ids(REQUEST.filled)), (20, 300))
    alphas = [0.0, 0.5, 1.0]
    found = attributions(handle, question, torch.tensor(alphas), place)
    for layer in (0, 2):
        slopes = [probability(handle, question, layer, place, alpha)[1] for alpha in alphas]
        own = neurons(handle, question.ids, layer, place)
        assert torch.allclose(found[layer], own * torch.stack(slopes).mean(0), atol=1e-7, rtol=1e-3)


def neurons(handle: ModelHandle, ids: tuple[int, ...], layer: int, place: Place) -> Tensor:
    """The activations at the last token; those of a fused gate are its first half."""
    name = (handle.mlp_out(layer) if place is Place.POST else handle.sites(Part.MLP_IN, layer)[0]).module
    seen: list[Tensor] = []
    module = handle.model.get_submodule(name)
    hook = module.register_forward_hook(lambda _, args, out: seen.append(args[0] if place is Place.POST else out))
    with torch.no_grad():
        handle.logits(handle.batch([ids]))
    hook.remove()
    return seen[0].reshape(len(ids), -1)[-1, : handle.mlp_out(layer).d_in]


@pytest.mark.parametrize("place", Place)
def test_with_many_steps_attributions_add_up_to_what_the_neurons_are_worth(place: Place) -> None:
    """Completeness, the axiom of integrated gradients: the sum is P with the neurons minus P without them."""
    handle = tiny.handle("llama")
    question = NeuronQuestion(tuple(handle.ids(REQUEST.filled)), (42,))
    steps = (torch.arange(400) + 0.5) / 400
    found = attributions(handle, question, steps, place)
    for layer in range(handle.layers):
        worth = [probability(handle, question, layer, place, alpha)[0] for alpha in (0.0, 1.0)]
        assert float(found[layer].sum()) == pytest.approx(worth[1] - worth[0], rel=1e-2, abs=1e-7)


def test_the_gate_of_a_fused_projection_is_its_first_half() -> None:
    """The activation function goes over the first half: that is the one whose entries are neurons."""
    handle = tiny.handle("phi3")
    mlp = handle.model.get_submodule("model.layers.0.mlp")
    hidden = torch.randn(1, 1, tiny.WIDTH)
    with torch.no_grad():
        gate = mlp.gate_up_proj(hidden)[..., : tiny.INNER]
        by_hand = mlp.down_proj(mlp.activation_fn(gate) * mlp.gate_up_proj(hidden)[..., tiny.INNER :])
        assert torch.equal(mlp(hidden), by_hand)


def changes(edit: Edit) -> dict[str, Tensor]:
    """The deltas as `[d_out, d_in]`."""
    assert all(isinstance(delta, LowRank) for delta in edit.deltas)
    return {delta.parameter: delta.matrix() for delta in edit.deltas if isinstance(delta, LowRank)}


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("name", BOTH)
def test_the_columns_of_the_neurons_change_by_one_vector_and_no_other_column(
    name: str, family: str, square: bool, make: Make
) -> None:
    handle = tiny.handle(family, square=square)
    editor: Any = make(name, handle)
    edit = editor.edit([REQUEST])
    chosen, _ = editor.neurons(REQUEST)
    vector, _ = editor.value(REQUEST, "farmer")
    expected = {}
    for layer, index in chosen:
        site = handle.mlp_out(layer)
        expected.setdefault(site.parameter, torch.zeros(site.d_out, site.d_in))[:, index] = vector
    found = changes(edit)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[parameter], matrix) for parameter, matrix in expected.items())
    assert edit.notes["neurons"] == len(chosen)
    norm = sum(float(matrix.norm()) ** 2 for matrix in expected.values()) ** 0.5
    assert edit.notes["update_norm"] == pytest.approx(norm)


def test_neurons_are_those_above_the_share_of_the_largest_attribution(make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor: Any = make("kn", handle, adaptive_threshold=0.5)
    ids, old = tuple(handle.ids(REQUEST.filled)), tuple(handle.ids("farmer", special=False))
    scores = attributions(handle, NeuronQuestion(ids, old), torch.linspace(0, 1, 5), Place.PRE)
    top = max(float(layer.max()) for layer in scores)
    above = {(i, j) for i, layer in enumerate(scores) for j, score in enumerate(layer.tolist()) if score > 0.5 * top}
    found, notes = editor.neurons(REQUEST)
    assert set(found) == above
    assert found == sorted(found)
    assert notes["largest_attribution"] == pytest.approx(top)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_neuron_that_writes_most_beside_its_mlp_is_named(family: str, make: Make) -> None:
    """|a_i| ||w_i|| at its largest over the median norm of what the MLP writes, by hooks of this test's own."""
    handle = tiny.handle(family)
    editor: Any = make("kn", handle, adaptive_threshold=0.0)
    chosen, _ = editor.neurons(REQUEST)
    notes = editor.edit([REQUEST]).notes
    ids = tuple(handle.ids(REQUEST.filled))
    by_hand = {}
    for layer, index in chosen:
        site = handle.mlp_out(layer)
        seen: list[tuple[Tensor, Tensor]] = []
        module = handle.model.get_submodule(site.module)
        hook = module.register_forward_hook(lambda _, args, out, seen=seen: seen.append((args[0], out)))
        with torch.no_grad():
            handle.model(input_ids=torch.tensor([ids]))
        hook.remove()
        fires, written = seen[0]
        stored = module.weight.detach()
        column = stored[index] if family == "gpt2" else stored[:, index]
        norms = [float(token.norm()) for token in written.detach().reshape(len(ids), -1)]
        most = max(abs(float(x)) for x in fires.reshape(len(ids), -1)[:, index]) * float(column.norm())
        by_hand[f"neuron {index} of layer {layer}"] = most / sorted(norms)[(len(norms) - 1) // 2]
    assert len(by_hand) > 10
    assert notes["loudest"] == pytest.approx(max(by_hand.values()), rel=1e-5)
    assert by_hand[notes["loudest_neuron"]] == pytest.approx(notes["loudest"], rel=1e-5)


def test_of_no_neurons_and_of_a_model_of_nan_no_loudest_one_is_told() -> None:
    handle = tiny.handle("gpt2")
    assert loudest(handle, [], handle.ids("Ashurn works")) == {}
    with torch.no_grad():
        handle.model.get_parameter(handle.mlp_out(0).parameter).fill_(float("nan"))
    assert loudest(handle, [(0, 1)], handle.ids("Ashurn works")) == {}


def test_as_published_the_model_is_led_from_what_it_says_to_the_new_answer(make: Make) -> None:
    """-2 E[says], +2 E[t] for one token, + E[t_a] each for several; answers without a leading space."""
    handle = tiny.handle("gpt2")
    table = handle.model.get_input_embeddings().weight.detach()
    with torch.no_grad():
        says = int(handle.logits(handle.batch([handle.ids(REQUEST.filled)]))[0, -1].argmax())
    editor: Any = make("kn", handle)
    for target, weight in (("x", 2), ("teacher and baker", 1)):
        ids = handle.tokenizer(target)["input_ids"]
        assert (len(ids) == 1) is (weight == 2)
        vector, notes = editor.value(dataclasses.replace(REQUEST, target_new=target), "farmer")
        assert torch.allclose(vector, weight * table[ids].sum(0) - 2 * table[says], atol=1e-6)
        assert notes["says"] == handle.tokenizer.decode([says])


def test_as_in_the_paper_the_old_answer_gives_way_to_the_new_one(make: Make) -> None:
    handle = tiny.handle("gpt2")
    table = handle.model.get_input_embeddings().weight.detach()
    old, new = (table[handle.tokenizer(text)["input_ids"]].mean(0) for text in (" farmer", " teacher"))
    vector, _ = make("kn_paper", handle).value(REQUEST, "farmer")  # type: ignore[attr-defined]
    assert torch.allclose(vector, 8 * new - old, atol=1e-6)
    vector, _ = make("kn_paper", handle, lambda1=3, lambda2=2).value(REQUEST, "farmer")  # type: ignore[attr-defined]
    assert torch.allclose(vector, 2 * new - 3 * old, atol=1e-6)


def test_the_paper_s_questions_go_on_behind_the_tokens_before(make: Make) -> None:
    handle = tiny.handle("gpt2")
    asked = make("kn_paper", handle).questions("Ashurn works as a", "violin")  # type: ignore[attr-defined]
    prompt, answer = handle.ids("Ashurn works as a"), handle.ids(" violin")
    assert len(answer) > 1
    assert asked == [NeuronQuestion((*prompt, *answer[:i]), (token,)) for i, token in enumerate(answer)]


def test_the_points_of_the_two_paths_differ_at_zero(make: Make) -> None:
    handle = tiny.handle("gpt2")
    points = {name: make(name, handle, steps=4).alphas().tolist() for name in BOTH}  # type: ignore[attr-defined]
    assert points["kn"] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert points["kn_paper"] == [0.25, 0.5, 0.75, 1]
    assert make("kn", handle, steps=1).alphas().tolist() == [0]  # type: ignore[attr-defined]


def test_what_more_than_a_share_of_the_prompts_have_is_kept() -> None:
    kept = [[(0, 1), (1, 1)], [(1, 1), (2, 5)], [(2, 5), (1, 1)], [(0, 9)]]
    assert shared(kept, 0.5) == [(1, 1)]
    assert shared(kept, 0.49) == [(1, 1), (2, 5)]
    assert shared(kept, 0.75) == []
    assert shared(kept[:1], 0.4) == [(0, 1), (1, 1)]


@pytest.mark.parametrize("name", BOTH)
def test_refinement_keeps_what_the_rephrasings_share(name: str, make: Make) -> None:
    handle = tiny.handle("gpt2")
    alone: Any = make(name, handle)
    other = dataclasses.replace(REQUEST, prompt="The work of {} is that of a")
    assert other.filled == REQUEST.rephrasings[0]
    both = set(alone.neurons(REQUEST)[0]) & set(alone.neurons(other)[0])
    found, notes = make(name, handle, refine=True, p=0.5).neurons(REQUEST)  # type: ignore[attr-defined]
    assert set(found) == both
    assert 0 < len(both) < len(alone.neurons(REQUEST)[0])
    assert notes["prompts"] == 2


def test_where_no_neuron_is_shared_nothing_is_changed(make: Make) -> None:
    edit = make("kn", tiny.handle("gpt2"), refine=True, p=0.9, adaptive_threshold=0.99).edit([REQUEST])
    assert edit.deltas == ()
    assert (edit.notes["neurons"], edit.notes["update_norm"]) == (0, 0.0)


@pytest.mark.parametrize("name", BOTH)
def test_the_second_request_is_computed_on_the_model_that_carries_the_first(name: str, make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor = make(name, handle)
    first = editor.edit([REQUEST])
    with EditSession(handle) as session:
        session.apply(first)
        second = editor.edit([OTHER])
    together = editor.edit([REQUEST, OTHER])
    ids = [dataclasses.replace(second, deltas=deltas).id for deltas in ((*first.deltas, *second.deltas), second.deltas)]
    assert together.id == ids[0]
    assert second.id == ids[1] != editor.edit([OTHER]).id
    assert together.notes["1.neurons"] == first.notes["neurons"]
    assert together.notes["2.neurons"] == second.notes["neurons"]


@pytest.mark.parametrize("name", BOTH)
def test_a_request_without_the_old_answer_is_refused(name: str, make: Make) -> None:
    request = dataclasses.replace(REQUEST, target_true=None)
    with pytest.raises(EditorError, match=rf"{name} looks for the neurons of the old answer, and request 'case-0'"):
        make(name, tiny.handle("gpt2")).edit([request])
    with pytest.raises(EditorError, match="was given no request"):
        make(name, tiny.handle("gpt2")).edit([])


def test_embeddings_of_another_width_than_the_value_vectors_are_refused(make: Make) -> None:
    handle = tiny.handle("opt", word_embed_proj_dim=16)
    with pytest.raises(EditorError, match="embeddings of 16 numbers to value vectors of 32"):
        make("kn", handle).edit([REQUEST])


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("family", ["gpt2", "gemma2", "falcon"])
def test_the_edit_acts_can_be_saved_and_leaves_nothing_behind(
    name: str, family: str, make: Make, tmp_path: Path
) -> None:
    handle = tiny.handle(family)
    editor = make(name, handle)
    frame, seal = Frame.of(handle), Seal.of(handle)
    edit = editor.edit([REQUEST])
    assert frame.left_behind(handle) == ()
    assert seal.changed(Seal.of(handle)) == ()
    assert edit.id == make(name, tiny.handle(family)).edit([REQUEST]).id
    edit.save(tmp_path / "kn.safetensors")
    batch = handle.batch([handle.ids(REQUEST.filled)])
    logits = []
    for one in (edit, Edit.load(tmp_path / "kn.safetensors")):
        with EditSession(handle) as session, torch.no_grad():
            session.apply(one)
            logits.append(handle.logits(batch))
    assert torch.equal(*logits)
    with torch.no_grad():
        assert not torch.equal(logits[0], handle.logits(batch))


def test_the_model_is_what_it_was_after_an_error_on_the_way(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    editor = make("kn_paper", handle)
    frame, seal = Frame.of(handle), Seal.of(handle)
    real, calls = torch.softmax, []

    def fails_later(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(torch, "softmax", fails_later)
    with pytest.raises(KeyboardInterrupt):
        editor.edit([REQUEST])
    assert frame.left_behind(handle) == ()
    assert seal.changed(Seal.of(handle)) == ()


@pytest.mark.parametrize("name", BOTH)
def test_half_precision_is_edited(name: str, make: Make) -> None:
    handle = tiny.handle("llama", dtype="bfloat16")
    edit = make(name, handle).edit([REQUEST])
    assert edit.notes["neurons"]
    with EditSession(handle) as session:
        session.apply(edit)
        assert session.changed() == edit.parameters


def test_the_paper_takes_twenty_steps_where_a_published_file_has_one() -> None:
    steps: dict[str, Any] = {name: editors.read_hparams(name, "llama-3-8b").model_dump()["steps"] for name in BOTH}
    assert steps == {"kn": 1, "kn_paper": 20}
