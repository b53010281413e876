"""What somebody else left on a model inside a session: named, put back where it can be, an UndoError where not."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from editsafety.edits.edit import Delta, Edit, Sidecar
from editsafety.edits.session import EditSession
from editsafety.errors import UndoError
from editsafety.model.handle import ModelHandle
from tests import tiny


@pytest.fixture
def handle() -> ModelHandle:
    return tiny.handle("gpt2")


def logits(handle: ModelHandle) -> Tensor:
    with torch.no_grad():
        return handle.logits(handle.batch([handle.ids("Toren lives in Ostrin")]))


def edit_of(handle: ModelHandle, *deltas: Delta, sidecars: tuple[Sidecar, ...] = ()) -> Edit:
    return Edit("test", ("a",), handle.identity, deltas, sidecars)


def low_rank_edit(handle: ModelHandle, layer: int = 1, **more: Any) -> Edit:
    return edit_of(handle, tiny.low_rank(handle.mlp_out(layer), **more))


class Wrapper(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.inner(x) * 2)


def block(handle: ModelHandle) -> Any:
    return handle.model.transformer.h[1]


def wrap(h: ModelHandle) -> None:
    block(h).mlp = Wrapper(block(h).mlp)


def replace_parameter(h: ModelHandle) -> None:
    block(h).mlp.c_proj.weight = nn.Parameter(torch.zeros(64, 32))


def new_values_elsewhere(h: ModelHandle) -> None:
    weight = block(h).mlp.c_fc.weight
    weight.data = weight.data * 2


def gradient(h: ModelHandle) -> None:
    ids = torch.tensor([[5, 6, 7]])
    h.model(input_ids=ids, labels=ids).loss.backward()


def swap_buffer(h: ModelHandle) -> None:
    h.model.transformer.register_buffer("memory", torch.zeros(7))


def grow(h: ModelHandle) -> None:
    h.model.resize_token_embeddings(tiny.VOCABULARY + 8)


def other_class(h: ModelHandle) -> None:
    block(h).mlp.__class__ = type("Mine", (type(block(h).mlp),), {})


def parametrized(h: ModelHandle) -> None:
    parametrize.register_parametrization(block(h).mlp.c_fc, "weight", nn.Identity())


def other_tokenizer(h: ModelHandle) -> None:
    h.tokenizer.__class__ = type("Mine", (type(h.tokenizer),), {"decode": lambda *_, **__: "x"})


def other_config(h: ModelHandle) -> None:
    h.model.config.__class__ = type("Mine", (type(h.model.config),), {})


def drop_hook(h: ModelHandle) -> None:
    block(h)._forward_hooks.clear()


LEFTOVERS: dict[str, tuple[Callable[[ModelHandle], Any], str]] = {
    "forward hook": (lambda h: block(h).register_forward_hook(lambda *_: None), "1 forward hooks left on transf"),
    "hook on the model": (lambda h: h.model.register_forward_hook(lambda *_: None), "forward hooks left on the model"),
    "pre-hook": (lambda h: block(h).register_forward_pre_hook(lambda *_: None), "1 forward pre hooks left on"),
    "pre-hook that reads names": (
        lambda h: h.model.register_forward_pre_hook(lambda *_: None, with_kwargs=True),
        "1 forward pre hooks left on the model",
    ),
    "backward hook": (lambda h: block(h).register_full_backward_hook(lambda *_: None), "1 backward hooks left on"),
    "global hook": (
        lambda h: nn.modules.module.register_module_forward_hook(lambda *_: None), "torch's global forward hooks were"
    ),
    "hook removed": (drop_hook, "1 forward hooks removed from transformer.h.1"),
    "module replaced": (wrap, "module 'mlp' of transformer.h.1 was replaced"),
    "module added": (lambda h: block(h).add_module("adapter", nn.Linear(2, 2)), "a module 'adapter' was added to"),
    "module removed": (lambda h: h.model.transformer._modules.pop("drop"), "module 'drop' of transformer is gone"),
    "parameter added": (
        lambda h: block(h).register_parameter("scale", nn.Parameter(torch.ones(1))), "a parameter 'scale' was added to"
    ),
    "parameter replaced": (replace_parameter, "parameter 'weight' of transformer.h.1.mlp.c_proj was replaced"),
    "parameter moved": (new_values_elsewhere, "transformer.h.1.mlp.c_fc.weight was given other values"),
    "dtype": (lambda h: h.model.half(), "was turned from torch.float32 .* into torch.float16"),
    "train mode": (lambda h: h.model.train(), "the model left in training mode"),
    "train mode of one module": (lambda h: block(h).attn.train(), "transformer.h.1.attn left in training mode"),
    "requires_grad": (
        lambda h: h.model.transformer.wte.weight.requires_grad_(False), "requires_grad of transformer.wte.weight left"
    ),
    "gradient": (gradient, "a gradient left on transformer.wte.weight"),
    "buffer added": (swap_buffer, "a buffer 'memory' was added to transformer"),
    "forward replaced": (lambda h: setattr(block(h), "forward", lambda *a, **k: None), "forward of transformer.h.1"),
    "class changed": (other_class, "the class of transformer.h.1.mlp was changed from GPT2MLP to Mine"),
    "plain attribute": (
        lambda h: setattr(h.model.transformer.ln_f, "eps", 0.5), "eps of transformer.ln_f changed from 1e-05 to 0.5"
    ),
    "new attribute": (lambda h: setattr(block(h), "editing", True), "editing of transformer.h.1 changed from None"),
    "chat template": (lambda h: setattr(h.tokenizer, "chat_template", "{{ x }}"), "chat template changed from None"),
    "padding side": (lambda h: setattr(h.tokenizer, "padding_side", "left"), "padding side changed from 'right'"),
    "truncation side": (lambda h: setattr(h.tokenizer, "truncation_side", "left"), "truncation side changed"),
    "pad token": (lambda h: setattr(h.tokenizer, "pad_token", "<eos>"), "pad token changed from '<pad>' to '<eos>'"),
    "handle's tokenizer": (lambda h: setattr(h, "tokenizer", tiny.tokenizer()), "tokenizer was replaced by another"),
    "handle's model": (lambda h: setattr(h, "model", tiny.model("gpt2")), "model was replaced by another object"),
    "config": (lambda h: setattr(h.model.config, "n_head", 2), "'n_head' of the model's config changed from 4 to 2"),
    "config, added key": (lambda h: setattr(h.model.config, "mine", 2), "'mine' of the model's config changed"),
    "attention": (lambda h: h.model.set_attn_implementation("eager"), "attention implementation changed from"),
    "generation config": (
        lambda h: setattr(h.model.generation_config, "do_sample", True), "'do_sample' of the generation config changed"
    ),
    "embeddings grown": (grow, "'vocab_size' of the model's config changed from 384 to 392"),
    "gradient hook": (
        lambda h: block(h).mlp.c_fc.weight.register_hook(lambda g: g * 0),
        "1 gradient hooks left on transformer.h.1.mlp.c_fc.weight",
    ),
    "hook on the finished gradient": (
        lambda h: block(h).mlp.c_fc.weight.register_post_accumulate_grad_hook(lambda p: None),
        "1 hooks on the finished gradient left on transformer.h.1.mlp.c_fc.weight",
    ),
    "state dict hook": (
        lambda h: block(h).register_state_dict_post_hook(lambda *_: None), "1 state dict hooks left on transformer.h.1"
    ),
    "activation": (lambda h: setattr(block(h).mlp, "act", nn.ReLU()), "module 'act' of transformer.h.1.mlp was repl"),
    "function of a module": (
        lambda h: setattr(block(h).attn, "scale", torch.relu), "scale of transformer.h.1.attn was added"
    ),
    "parametrized": (parametrized, "the class of transformer.h.1.mlp.c_fc was changed from Conv1D to Parametrized"),
    "tokenizer's class": (other_tokenizer, r"class of the tokenizer was changed from \w+ to Mine"),
    "tokenizer's method": (
        lambda h: setattr(h.tokenizer, "decode", h.tokenizer.decode), "decode was replaced on the tokenizer"
    ),
    "config's class": (other_config, "the class of the model's config was changed from GPT2Config to Mine"),
    "handle's method": (lambda h: setattr(h, "ids", lambda text: [1]), "ids was replaced on the model's handle"),
    "handle's identity": (lambda h: setattr(h, "identity", "0" * 64), "identity of the model's handle was replaced"),
    "default dtype": (lambda h: torch.set_default_dtype(torch.float64), "torch's default dtype changed"),
    "gradient mode": (lambda h: torch.set_grad_enabled(False), "torch's gradient mode changed from True to False"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LEFTOVERS)
def test_what_is_left_behind_is_named_and_put_back(handle: ModelHandle, kind: str) -> None:
    leave, message = LEFTOVERS[kind]
    if kind == "hook removed":
        block(handle).register_forward_hook(lambda *_: None)
    before, tensors, model = logits(handle), set(handle.tensors()), handle.model
    session = EditSession(handle)
    with session:
        leave(handle)
    assert any(re.search(message, found) for found in session.leftovers), session.leftovers
    again = EditSession(handle)
    with again:
        pass
    assert again.leftovers == ()
    assert handle.model is model
    assert set(handle.tensors()) == tensors
    assert handle.fingerprint() == handle.identity
    assert torch.equal(logits(handle), before)
    assert not any(module._forward_pre_hooks_with_kwargs for module in handle.model.modules())
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() is torch.float32


def test_what_was_there_before_is_not_reported(handle: ModelHandle) -> None:
    hook = block(handle).register_forward_hook(lambda *_: None)
    handle.model.transformer.wte.weight.requires_grad_(False)
    session = EditSession(handle)
    with session:
        session.apply(low_rank_edit(handle))
    assert session.leftovers == ()
    assert hook.id in block(handle)._forward_hooks
    assert not handle.model.transformer.wte.weight.requires_grad


def test_equal_values_in_other_memory_are_no_finding(handle: ModelHandle) -> None:
    weight = block(handle).mlp.c_fc.weight
    session = EditSession(handle)
    with session:
        weight.data = weight.data.clone()
    assert session.leftovers == ()


def test_a_pad_token_given_to_a_tokenizer_that_had_none_is_taken_away_again(handle: ModelHandle) -> None:
    handle.tokenizer.pad_token = None
    session = EditSession(handle)
    with session:
        handle.tokenizer.pad_token = handle.tokenizer.eos_token
    assert session.leftovers == ("the tokenizer's pad token changed from None to '<eos>'",)
    assert handle.tokenizer.pad_token is None
    assert handle.tokenizer.pad_token_id is None


def test_random_states_are_put_back(handle: ModelHandle) -> None:
    import numpy

    def draws() -> tuple[float, float, float]:
        return torch.rand(()).item(), random.random(), float(numpy.random.random())

    torch.manual_seed(1)
    random.seed(1)
    numpy.random.seed(1)
    expected = draws()
    torch.manual_seed(1)
    random.seed(1)
    numpy.random.seed(1)
    with EditSession(handle):
        draws()
        torch.manual_seed(99)
    assert draws() == expected


def test_a_vocabulary_that_grew_cannot_be_put_back_and_says_so(handle: ModelHandle) -> None:
    with pytest.raises(UndoError, match="vocabulary size changed from 384 to 385"), EditSession(handle):
        handle.tokenizer.add_tokens(["Zzyzx"])


@pytest.mark.parametrize("park", ["device", "cpu"])
def test_a_weight_written_in_place_without_saying_so_is_an_undo_error_by_name(handle: ModelHandle, park: Any) -> None:
    with pytest.raises(UndoError) as caught, EditSession(handle, park=park) as session:  # noqa: PT012
        session.apply(low_rank_edit(handle))
        block(handle).attn.c_proj.bias.data[3] += 1e-7
    assert caught.value.findings == ("transformer.h.1.attn.c_proj.bias differs",)
    assert "transformer.h.1.attn.c_proj.bias differs" in str(caught.value)


def test_a_buffer_written_in_place_is_an_undo_error_by_name() -> None:
    handle = tiny.handle("llama")
    with pytest.raises(UndoError, match=r"model.rotary_emb.inv_freq differs"), EditSession(handle):
        handle.model.model.rotary_emb.inv_freq.mul_(2)


def test_a_buffer_that_was_replaced_is_put_back(handle: ModelHandle) -> None:
    handle = tiny.handle("llama")
    session = EditSession(handle)
    with session:
        rotary = handle.model.model.rotary_emb
        rotary.register_buffer("inv_freq", rotary.inv_freq * 2, persistent=False)
    assert handle.fingerprint() == handle.identity


def test_writing_in_place_into_a_borrowed_copy_is_allowed(handle: ModelHandle) -> None:
    name = handle.mlp_out(0).parameter
    with EditSession(handle) as session:
        session.borrow([name])[name].data.zero_()
        assert session.changed() == (name,)
    assert handle.fingerprint() == handle.identity


def test_what_is_done_to_the_handle_is_told_by_what_was_there(handle: ModelHandle) -> None:
    session = EditSession(handle)
    with session:
        handle.logits = lambda batch: None  # type: ignore[method-assign, assignment, return-value]
        handle.remembered = 1  # type: ignore[attr-defined]
        handle.spec = None  # type: ignore[assignment]
    assert session.leftovers == (
        "logits was replaced on the model's handle",
        "remembered was added to the model's handle",
        "spec of the model's handle was replaced",
    )
    assert not hasattr(handle, "remembered")


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_hidden_states_that_were_asked_for_are_nothing_left_behind_and_can_be_asked_for_again(family: str) -> None:
    """transformers 5 hangs hooks of its own into a model that is first asked for them, and leaves them there."""
    handle = tiny.handle(family)
    batch = handle.batch([handle.ids("Toren lives in Ostrin")])

    def states() -> int:
        with torch.no_grad():
            found = handle.model(input_ids=batch.ids, output_hidden_states=True, output_attentions=True)
        return len(found.hidden_states)

    session = EditSession(handle)
    with session:
        assert states() == handle.layers + 1
    assert session.leftovers == ()
    with session:
        states()
        block = handle.model.get_submodule(handle.mlp_out(1).module)
        block.register_forward_hook(lambda *_: None)
    assert session.leftovers == (f"1 forward hooks left on {handle.mlp_out(1).module}",)
    assert states() == handle.layers + 1  # what was put back with that hook has not taken them away


def test_what_libraries_note_on_a_module_for_themselves_is_nothing_left_behind(handle: ModelHandle) -> None:
    for length in (12, 20):  # and nothing that changes once it is there
        session = EditSession(handle)
        with session:
            torch.compile(handle.model, backend="eager")
            handle.model._is_accelerate_prepared = True
            handle.model._previous_max_cache_length = length
            handle.model._gradient_checkpointing_func = lambda *_: None
        assert session.leftovers == ()
    with session:
        handle.model.mine = True
    assert session.leftovers == ("mine of the model changed from None to True",)
