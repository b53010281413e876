"""WISE: the side copy's training, its memory over a sequence, and what the router goes by."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from editsafety.datasets.request import EditRequest
from editsafety.editing.subject import locate
from editsafety.editors.wise import Wise, ties
from editsafety.editors.wise.memory import Routed
from editsafety.editors.wise.side_copy import activation_of, distances
from editsafety.edits.edit import Edit
from editsafety.edits.seal import Frame, Seal
from editsafety.edits.session import EditSession
from editsafety.errors import EditorError, UsageError
from editsafety.hyperparameters import validate
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.editors.conftest import NUMBERS, Make

REQUEST = tiny.request(prompt="The work of {} is that of a", target_new="teacher")
OTHER = tiny.request("case-1", subject="Mirel", target_new="farmer")
LONG = tiny.request("case-2", subject="Toren", target_new="farmer and baker")
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
    (scores,) = logits(handle, request.filled + " " + request.target_new, edits=edits)
    scores = scores.log_softmax(-1)
    return -float(sum(scores[len(prompt) - 1 + i, t] for i, t in enumerate(target))) / len(target)


def sidecar(edit: Edit) -> Routed:
    (car,) = edit.sidecars
    assert isinstance(car, Routed)
    return car


def carried(edit: Edit) -> Mapping[str, Tensor]:
    assert edit.carry is not None
    return edit.carry


def sequence(editor: Any, handle: ModelHandle, requests: Sequence[EditRequest]) -> list[Edit]:
    edits: list[Edit] = []
    with EditSession(handle) as session:
        for request in requests:
            edits.append(editor.edit([request], edits[-1].carry if edits else None))
            session.apply(edits[-1])
    return edits


@pytest.mark.parametrize("family", FAMILIES)
def test_the_target_becomes_likelier(family: str, make: Make) -> None:
    handle = tiny.handle(family)
    edit = make("wise", handle, scope="last").edit([REQUEST])
    assert nll(handle, REQUEST, edit) < nll(handle, REQUEST) - 0.3


def test_bfloat16_is_edited(make: Make) -> None:
    handle = tiny.handle("llama", dtype="bfloat16")
    edit = make("wise", handle, scope="last").edit([REQUEST])
    assert sidecar(edit).sides.dtype == torch.bfloat16
    assert nll(handle, REQUEST, edit) < nll(handle, REQUEST) - 0.3


@pytest.mark.parametrize("scope", ["subject", "last"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_noted_figures_are_those_of_the_side_copy_on_the_tokens_of_the_scope(
    family: str, scope: str, make: Make
) -> None:
    """Written out row by row, without padding, without a cache, with the changed weight itself in the model."""
    handle = tiny.handle(family)
    editor: Any = make("wise", handle, scope=scope)
    edit = editor.edit([LONG])
    site, side = editor.site, carried(edit)["side"]
    module = handle.model.get_submodule(site.module)
    target = handle.target_ids(LONG.target_new)
    inside: list[Tensor] = []
    losses: list[float] = []
    for template in editor.templates():
        prompt = locate(handle, LONG, template)
        first = prompt.subject if scope == "subject" else len(prompt.ids) - 1
        end = first + 1 if scope == "subject" else None

        def changed(_: Any, args: Any, output: Tensor, first: int = first, end: int | None = end) -> Tensor:
            moved = output + (args[0] @ side.T).reshape(output.shape)
            whole = output.reshape(-1, site.d_out).clone()
            whole[first:end] = moved.reshape(-1, site.d_out)[first:end]
            apart = distances(activation_of(handle), moved, output).flatten()
            inside.append(apart[first:end])
            return whole.reshape(output.shape)

        hook = module.register_forward_hook(changed)
        with torch.no_grad():
            scores = handle.logits(handle.batch([[*prompt.ids, *target[:-1]]]))[0].log_softmax(-1)
        hook.remove()
        losses.append(-float(sum(scores[len(prompt.ids) - 1 + i, t] for i, t in enumerate(target))) / len(target))
    assert edit.notes["nll_at_stop"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert edit.notes["inside_mean"] == pytest.approx(float(torch.cat(inside).mean()), rel=1e-4)
    assert edit.notes["inside_least"] == pytest.approx(float(torch.cat(inside).min()), rel=1e-4)
    assert float(sidecar(edit).bars[0]) == pytest.approx(0.8 * float(torch.cat(inside).min()), rel=1e-4)


def test_only_masked_entries_change_and_none_leaves_the_box(make: Make) -> None:
    handle = tiny.handle("gpt2")
    edit = make("wise", handle, norm_constraint=0.01).edit([REQUEST])
    side, mask = carried(edit)["side"], carried(edit)["mask"]
    assert float(mask.float().mean()) == pytest.approx(0.5, abs=0.05)
    assert torch.equal(side[~mask], torch.zeros(int((~mask).sum())))
    assert float(side.abs().max()) == pytest.approx(0.01)


def test_the_first_step_goes_down_the_gradient_of_the_loss(make: Make) -> None:
    """At D = 0 the margin has no gradient, so the first step is that of the targets' loss alone, written out here."""
    handle = tiny.handle("gpt2")
    editor: Any = make("wise", handle, n_iter=1, edit_lr=0.25, mask_ratio=1, norm_constraint=None, weight_decay=0.0)
    side = carried(editor.edit([LONG]))["side"]
    site = editor.site
    weight = handle.model.get_parameter(site.parameter)
    target = handle.target_ids(LONG.target_new)
    loss, seen = torch.zeros(()), []
    for template in editor.templates():
        prompt = locate(handle, LONG, template)

        def at_subject(module: Any, args: Any, output: Tensor, place: int = prompt.subject) -> Tensor:
            seen.append(True)
            apart = output.detach().clone()
            return torch.cat([apart[:, :place], output[:, place : place + 1], apart[:, place + 1 :]], 1)

        hook = handle.model.get_submodule(site.module).register_forward_hook(at_subject)
        scores = handle.logits(handle.batch([[*prompt.ids, *target]]))[0].log_softmax(-1)
        hook.remove()
        loss = loss - sum(scores[len(prompt.ids) - 1 + i, t] for i, t in enumerate(target)) / len(target)
    (slope,) = torch.autograd.grad(loss / len(seen), [weight])
    torch.testing.assert_close(side, -0.25 * site.canonical(slope), rtol=1e-3, atol=1e-6)


def test_a_token_below_the_bar_is_untouched_bit_for_bit(make: Make) -> None:
    handle = tiny.handle("gpt2")
    edit = make("wise", handle, act_ratio=1e6).edit([REQUEST])
    assert torch.equal(*logits(handle, REQUEST.filled), *logits(handle, REQUEST.filled, edits=[edit]))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_above_the_bar_a_token_goes_to_the_largest_distance_and_keeps_its_bias(family: str) -> None:
    handle = tiny.handle(family)
    site = handle.mlp_out(1)
    module = handle.model.get_submodule(site.module)
    sides = torch.randn(3, site.d_out, site.d_in, generator=torch.Generator().manual_seed(0))
    keys = torch.randn(2, 5, site.d_in, generator=torch.Generator().manual_seed(1))
    weight, bias = handle.weight(site), getattr(module, "bias", None)
    plain = keys @ weight.T + (0 if bias is None else bias.detach())
    found = [keys @ (weight + side).T + (0 if bias is None else bias.detach()) for side in sides]
    act = torch.relu
    apart = torch.stack([(act(moved) - act(plain)).norm(dim=-1) for moved in found])
    bars = torch.stack([apart[0].quantile(0.5), apart[1].quantile(0.5), torch.tensor(1e9)])
    car = Routed(site.module, 1, "relu", sides, bars)
    routed = car.after(module, (keys,), {}, plain)
    for row in range(2):
        for token in range(5):
            able = [s for s in range(3) if apart[s, row, token] > bars[s]]
            best = max(able, key=lambda s: float(apart[s, row, token]), default=None)
            expected = plain if best is None else found[best]
            torch.testing.assert_close(routed[row, token], expected[row, token], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_neither_company_nor_padding_changes_what_a_prompt_gets(family: str, make: Make) -> None:
    """Published: one decision for a whole batch."""
    handle = tiny.handle(family)
    edit = make("wise", handle).edit([REQUEST])
    longer = f"{REQUEST.filled} {TEXT} {TEXT}"
    texts = (REQUEST.filled, longer, TEXT)
    together = logits(handle, *texts, edits=[edit])
    for text, found in zip(texts, together, strict=True):
        torch.testing.assert_close(logits(handle, text, edits=[edit])[0], found, rtol=1e-3, atol=1e-3)
    head = len(handle.ids(REQUEST.filled)) - 1
    torch.testing.assert_close(together[1][:head], together[0][:head], rtol=1e-3, atol=1e-3)


def test_a_text_that_is_run_token_by_token_gets_the_same(make: Make) -> None:
    handle = tiny.handle("gpt2")
    edit = make("wise", handle).edit([REQUEST])
    (whole,) = logits(handle, REQUEST.filled, edits=[edit])
    with EditSession(handle) as session, torch.no_grad():
        session.apply(edit)
        cache = None
        for seen, token in enumerate(handle.ids(REQUEST.filled), 1):
            ids = torch.tensor([[token]])
            output = handle.run(ids, torch.ones(1, seen, dtype=torch.long), cache=cache, keep=True)
            cache = output.cache
    torch.testing.assert_close(output.logits[0, -1].float(), whole[-1], rtol=1e-3, atol=1e-3)


def test_over_a_sequence_training_goes_on_in_the_same_copy(make: Make) -> None:
    handle = tiny.handle("gpt2")
    first, second = (carried(edit) for edit in sequence(make("wise", handle, save_freq=4), handle, [REQUEST, OTHER]))
    assert torch.equal(first["mask"], second["mask"])
    assert float((second["side"] - first["side"]).norm()) > 0
    assert (int(second["count"]), len(second["kept"])) == (2, 0)
    assert float(second["floors"][0]) <= float(first["floors"][0])


def test_a_full_copy_joins_the_memory_and_another_is_begun_with_another_mask(make: Make) -> None:
    handle = tiny.handle("gpt2")
    edits = sequence(make("wise", handle), handle, [REQUEST, OTHER, LONG])
    states = [carried(edit) for edit in edits]
    assert [len(state["kept"]) for state in states] == [0, 1, 1]
    assert [len(sidecar(edit).sides) for edit in edits] == [1, 1, 2]
    assert not torch.equal(states[1]["mask"], states[2]["mask"])
    assert not states[1]["side"].any()
    torch.testing.assert_close(states[1]["floors"][0] * 0.8, sidecar(edits[1]).bars[0])
    assert torch.equal(states[1]["kept"], states[2]["kept"])


def test_the_youngest_memories_are_merged_by_ties(make: Make) -> None:
    handle = tiny.handle("gpt2")
    requests = [
        tiny.request(f"case-{i}", subject=name) for i, name in enumerate(("Ashurn", "Mirel", "Toren", "Kelmar"))
    ]
    apart = carried(sequence(make("wise", handle, merge_freq=8), handle, requests)[-1])
    together = carried(sequence(make("wise", handle, merge_freq=4), handle, requests)[-1])
    assert (len(apart["kept"]), len(together["kept"])) == (2, 1)
    torch.testing.assert_close(together["kept"][0], ties.merge(apart["kept"], 0.53))
    assert float(together["floors"][0]) == float(apart["floors"][:2].min())


def test_of_a_sequence_the_last_sidecar_is_enough(make: Make) -> None:
    handle = tiny.handle("gpt2")
    edits = sequence(make("wise", handle), handle, [REQUEST, OTHER, LONG])
    texts = (REQUEST.filled, OTHER.filled, TEXT)
    stacked, alone = logits(handle, *texts, edits=edits), logits(handle, *texts, edits=edits[-1:])
    assert all(torch.equal(one, other) for one, other in zip(stacked, alone, strict=True))


def test_a_sequence_is_what_all_requests_at_once_are(make: Make) -> None:
    handle = tiny.handle("gpt2")
    at_once = make("wise", handle).edit([REQUEST, OTHER, LONG])
    assert sequence(make("wise", handle), handle, [REQUEST, OTHER, LONG])[-1].id == at_once.id


def test_a_saved_edit_gives_the_same_bits(make: Make, tmp_path: Path) -> None:
    handle = tiny.handle("gpt2")
    edit = make("wise", handle).edit([REQUEST, OTHER, LONG])
    edit.save(tmp_path / "edit.safetensors")
    loaded = Edit.load(tmp_path / "edit.safetensors", Wise.sidecars)
    assert loaded.id == edit.id
    texts = (REQUEST.filled, OTHER.filled, TEXT)
    for one, other in zip(logits(handle, *texts, edits=[edit]), logits(handle, *texts, edits=[loaded]), strict=True):
        assert torch.equal(one, other)


def test_equal_seeds_give_equal_bytes_in_any_order_of_edits(make: Make) -> None:
    first, second = make("wise", tiny.handle("gpt2")), make("wise", tiny.handle("gpt2"))
    forward = [first.edit([request]).id for request in (REQUEST, OTHER)]
    assert forward == [second.edit([request]).id for request in (OTHER, REQUEST)][::-1]


def test_the_model_is_what_it_was_after_an_edit(make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor = make("wise", handle)
    frame, seal, random = Frame.of(handle), Seal.of(handle), torch.get_rng_state()
    edit = editor.edit([REQUEST, OTHER])
    assert (edit.deltas, frame.left_behind(handle), seal.changed(Seal.of(handle))) == ((), (), ())
    assert torch.equal(random, torch.get_rng_state())


def test_the_model_is_what_it_was_after_an_error_on_the_way(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    editor = make("wise", handle)
    frame, seal = Frame.of(handle), Seal.of(handle)

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("editsafety.editors.wise.prompts.linear", interrupted)
    with pytest.raises(KeyboardInterrupt):
        editor.edit([REQUEST])
    assert (frame.left_behind(handle), seal.changed(Seal.of(handle))) == ((), ())


def test_merges_of_half_a_memory_are_refused() -> None:
    with pytest.raises(UsageError, match="merge_freq must be a multiple of save_freq, which is 2"):
        validate(Wise.Hparams, {**NUMBERS["wise"], "merge_freq": 3}, "test")


def test_the_side_copy_of_another_part_is_refused(make: Make) -> None:
    handle = tiny.handle("gpt2")
    carry = make("wise", handle).edit([REQUEST]).carry
    with pytest.raises(EditorError, match="Carry on with the layer and part that the sequence began with"):
        make("wise", handle, part="mlp_in").edit([OTHER], carry)


def test_nothing_to_edit_is_refused(make: Make) -> None:
    with pytest.raises(EditorError, match="wise was given no request"):
        make("wise", tiny.handle("gpt2")).edit([])
