"""Fine-tuning as an editor."""

from typing import Any

import pytest
import torch

from editsafety.datasets.request import EditRequest
from editsafety.editors import ft
from editsafety.edits.edit import Replace
from editsafety.edits.seal import Frame, Seal
from editsafety.edits.session import EditSession
from editsafety.errors import EditorError
from editsafety.model import scoring
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.editors.conftest import Make

REQUEST = tiny.request(target_new="farmer and baker")
OTHER = tiny.request("case-1", subject="Mirel", target_new="farmer")


def nll(handle: ModelHandle, request: EditRequest) -> float:
    """Mean over target tokens, by the definition."""
    prompt, target = handle.ids(request.filled), handle.target_ids(request.target_new)
    with torch.no_grad():
        scores = handle.logits(handle.batch([[*prompt, *target]]))[0].log_softmax(-1)
    return -float(sum(scores[len(prompt) - 1 + i, t] for i, t in enumerate(target))) / len(target)


def trained(handle: ModelHandle, editor: Any, requests: list[EditRequest]) -> list[float]:
    with EditSession(handle) as session:
        session.apply(editor.edit(requests))
        return [nll(handle, request) for request in requests]


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "llama"])
def test_the_targets_loss_falls(family: str, make: Make) -> None:
    handle = tiny.handle(family)
    before = nll(handle, REQUEST)
    assert trained(handle, make("ft", handle), [REQUEST])[0] < before - 1.0


def test_a_batch_is_trained_together(make: Make) -> None:
    handle = tiny.handle("gpt2")
    before = [nll(handle, request) for request in (REQUEST, OTHER)]
    after = trained(handle, make("ft", handle), [REQUEST, OTHER])
    assert all(new < old - 1.0 for new, old in zip(after, before, strict=True))


def test_the_batch_size_only_splits_the_steps(make: Make) -> None:
    notes = make("ft", tiny.handle("gpt2"), batch_size=1, num_steps=3).edit([REQUEST, OTHER]).notes
    assert notes["steps"] == 6


def test_no_entry_leaves_the_box(make: Make) -> None:
    handle = tiny.handle("gpt2")
    edit = make("ft", handle, norm_constraint=0.003).edit([REQUEST])
    (delta,) = edit.deltas
    assert isinstance(delta, Replace)
    change = delta.value - handle.model.get_parameter(delta.parameter).detach()
    assert float(change.abs().max()) == pytest.approx(0.003, rel=1e-3)


def test_the_first_step_is_the_sign_of_the_gradient_of_the_loss(make: Make) -> None:
    """Adam's first step is lr * sign(gradient); the gradient here is that of a loss written out by hand."""
    handle = tiny.handle("gpt2")
    name = handle.mlp_out(1).parameter
    prompt, target = handle.ids(REQUEST.filled), handle.target_ids(REQUEST.target_new)
    for loss in ("prompt_last", "target_new"):
        (delta,) = make("ft", handle, num_steps=1, loss=loss).edit([REQUEST]).deltas
        assert isinstance(delta, Replace)
        rows = [*prompt, *target] if loss == "target_new" else prompt
        scores = handle.logits(handle.batch([rows]))[0].log_softmax(-1)
        places = [len(prompt) - 1 + (i if loss == "target_new" else 0) for i in range(len(target))]
        value = -scores[places, target].sum() / len(target)
        (slope,) = torch.autograd.grad(value, [handle.model.get_parameter(name)])
        step = delta.value - handle.model.get_parameter(name).detach()
        clear = slope.abs() > 1e-5
        assert torch.equal(step.sign()[clear], -slope.sign()[clear])


@pytest.mark.parametrize("bias", [False, True])
def test_the_bias_is_trained_only_when_asked_for(bias: bool, make: Make) -> None:
    handle = tiny.handle("gpt2")
    module = handle.mlp_out(1).module
    wanted = {f"{module}.weight", f"{module}.bias"} if bias else {f"{module}.weight"}
    assert set(make("ft", handle, train_bias=bias).edit([REQUEST]).parameters) == wanted


def test_a_projection_without_bias_is_trained_without_one(make: Make) -> None:
    handle = tiny.handle("llama")
    assert make("ft", handle, train_bias=True).edit([REQUEST]).parameters == (handle.mlp_out(1).parameter,)


def test_training_stops_below_the_stop_loss(make: Make) -> None:
    notes = make("ft", tiny.handle("gpt2"), stop_loss=1e9).edit([REQUEST]).notes
    assert notes["steps"] == 0


def test_equal_requests_give_equal_bytes(make: Make) -> None:
    assert make("ft", tiny.handle("gpt2")).edit([REQUEST]).id == make("ft", tiny.handle("gpt2")).edit([REQUEST]).id


def test_the_model_is_what_it_was_after_an_edit(make: Make) -> None:
    handle = tiny.handle("gpt2")
    frame, seal = Frame.of(handle), Seal.of(handle)
    make("ft", handle).edit([REQUEST])
    assert frame.left_behind(handle) == ()
    assert seal.changed(Seal.of(handle)) == ()


def test_the_model_is_what_it_was_after_an_error_on_the_way(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    editor = make("ft", handle)
    frame, seal = Frame.of(handle), Seal.of(handle)
    real, calls = torch.optim.Adam.step, []

    def fails_later(self: torch.optim.Adam, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", fails_later)
    with pytest.raises(KeyboardInterrupt):
        editor.edit([REQUEST])
    assert frame.left_behind(handle) == ()
    assert seal.changed(Seal.of(handle)) == ()


def test_half_precision_is_trained(make: Make) -> None:
    handle = tiny.handle("gpt2", dtype="bfloat16")
    edit = make("ft", handle).edit([REQUEST])
    (delta,) = edit.deltas
    assert isinstance(delta, Replace)
    assert delta.value.dtype == torch.bfloat16


def test_nothing_to_edit_is_refused(make: Make) -> None:
    with pytest.raises(EditorError, match="ft was given no request"):
        make("ft", tiny.handle("gpt2")).edit([])


def test_what_is_trained_behind_a_chat_prompt_is_said_behind_that_prompt(make: Make) -> None:
    """The prompt ends in a line break, and the answer stands right behind it: no space is learnt or asked for."""
    handle = tiny.handle("gpt2")
    chat = tiny.request(prompt="user: Where does {} work?\nassistant:\n", rephrasings=[], neighbours=[])
    with EditSession(handle) as session:
        session.apply(make("ft", handle, num_steps=60, lr=0.02).edit([chat]))
        said = scoring.continuations(handle, [handle.ids(chat.filled)], [len(handle.ids("teacher", special=False))])
    assert handle.text(said[0]) == "teacher"


@pytest.mark.parametrize("loss", ["prompt_last", "target_new"])
@pytest.mark.parametrize("spelling", ["bytes_bos", "metaspace_bos"])
def test_only_the_words_of_the_target_are_trained_and_no_bos_or_padding(spelling: str, loss: str) -> None:
    """By itself the target begins with a BOS, and beside a longer one it is padded; published FT-L trains both."""
    handle = tiny.handle("llama", spelling=spelling)
    read = ft._TargetLoss(handle, [REQUEST, OTHER], loss)
    assert handle.tokenizer("farmer")["input_ids"][0] == handle.tokenizer.bos_token_id
    assert not set(read.labels.tolist()) & set(handle.tokenizer.all_special_ids)
    for place, request in enumerate((REQUEST, OTHER)):
        prompt = handle.tokenizer(request.filled)["input_ids"]
        whole = handle.tokenizer(f"{request.filled} {request.target_new}")["input_ids"]
        assert read.labels[read.rows == place].tolist() == whole[len(prompt) :]


def test_the_notes_tell_the_steps_the_loss_and_by_how_much_the_weights_moved(make: Make) -> None:
    handle = tiny.handle("gpt2")
    loss = nll(handle, REQUEST)
    edit = make("ft", handle, layers=[0, 1], num_steps=1).edit([REQUEST])
    moved = [delta.value - handle.model.get_parameter(delta.parameter).detach() for delta in edit.deltas]
    assert edit.notes == {
        "steps": 1, "loss_at_stop": pytest.approx(loss, rel=1e-4), "loss": "target_new",
        "update_norm": pytest.approx(float(torch.cat([one.flatten() for one in moved]).norm()), rel=1e-4),
    }  # fmt: skip


def test_a_loss_that_is_the_stop_loss_is_not_below_it(make: Make) -> None:
    handle = tiny.handle("gpt2")
    reached = make("ft", handle, num_steps=1).edit([REQUEST]).notes["loss_at_stop"]
    steps = [make("ft", handle, num_steps=1, stop_loss=stop).edit([REQUEST]).notes["steps"] for stop in (reached, 9.9)]
    assert steps == [1, 0]
