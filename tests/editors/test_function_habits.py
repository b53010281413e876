"""What methods do to a model beside its weights: put back, and no fault, where it is data and does not run."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from editsafety.edits.seal import Frame
from editsafety.edits.surroundings import Surroundings
from editsafety.errors import EditorError
from tests import tiny
from tests.editors.functions import WEIGHT, made


def test_what_any_training_leaves_on_a_model_is_put_back_and_no_fault(tmp_path: Path) -> None:
    """Training mode, frozen parameters, gradients, no cache: as after `transformers.Trainer`."""

    def trained(model: Any, tokenizer: Any, requests: Any) -> None:
        model.train()
        model.config.use_cache = False
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name == WEIGHT)
        ids = torch.tensor([tokenizer("Ashurn works as a")["input_ids"]])
        model(input_ids=ids, labels=ids).loss.backward()
        with torch.no_grad():
            model.get_parameter(WEIGHT).mul_(1.5)

    def plain(model: Any, tokenizer: Any, requests: Any) -> None:
        with torch.no_grad():
            model.get_parameter(WEIGHT).mul_(1.5)

    handle = tiny.handle("gpt2")
    before = Frame.of(handle)
    edit = made(trained, handle, tmp_path).edit([tiny.request()])
    assert before.left_behind(handle) == ()
    assert {delta.parameter for delta in edit.deltas} == {WEIGHT}
    assert edit.id == made(plain, handle, tmp_path).edit([tiny.request()]).id


def settings(model: Any, tokenizer: Any) -> None:
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def padding(model: Any, tokenizer: Any) -> None:
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "left"
    model.config.pad_token_id = 3


def note(model: Any, tokenizer: Any) -> None:
    model.edited = True


def new_parameter(model: Any, tokenizer: Any) -> None:
    owner = model.get_submodule(WEIGHT.rpartition(".")[0])
    owner.weight = nn.Parameter(owner.weight.detach().clone())


def checkpointing(model: Any, tokenizer: Any) -> None:
    with warnings.catch_warnings():  # transformers 5.24 calls it activation checkpointing, and knows this name, too
        warnings.simplefilter("ignore")
        model.gradient_checkpointing_enable()
    model.enable_input_require_grads()


@pytest.mark.parametrize(
    "habit", [settings, padding, note, new_parameter, checkpointing], ids=lambda habit: habit.__name__
)
def test_what_methods_do_beside_the_weights_is_put_back_and_no_fault(habit: Any, tmp_path: Path) -> None:
    """`tokenizer.pad_token = tokenizer.eos_token`, deterministic algorithms, a new parameter in place of another."""

    def habitual(model: Any, tokenizer: Any, requests: Any) -> None:
        habit(model, tokenizer)
        plain(model, tokenizer, requests)

    def plain(model: Any, tokenizer: Any, requests: Any) -> None:
        with torch.no_grad():
            model.get_parameter(WEIGHT).mul_(1.5)

    handle = tiny.handle("gpt2")
    weight = handle.model.get_parameter(WEIGHT)
    frame, surroundings = Frame.of(handle), Surroundings.now()
    edit = made(habitual, handle, tmp_path).edit([tiny.request()])
    assert frame.left_behind(handle) == ()
    assert surroundings.findings() == ()
    assert handle.model.get_parameter(WEIGHT) is weight
    assert edit.id == made(plain, handle, tmp_path).edit([tiny.request()]).id
    told = str(edit.notes.get("put_back", ""))
    assert ("torch's gradient mode changed from True to False" in told) is (habit is settings)


def other_epsilon(model: Any) -> None:
    model.transformer.h[0].ln_1.eps = 0.5


def other_config(model: Any) -> None:
    model.config.scale_attn_by_inverse_layer_idx = True


@pytest.mark.parametrize(
    ("change", "said"), [(other_epsilon, "eps of transformer.h.0.ln_1"), (other_config, "scale_attn_by_inverse")]
)
def test_what_a_pass_computes_with_is_no_habit(change: Any, said: str, tmp_path: Path) -> None:
    def changing(model: Any, tokenizer: Any, requests: Any) -> None:
        change(model)
        with torch.no_grad():
            model.get_parameter(WEIGHT).mul_(1.5)

    with pytest.raises(EditorError, match=f"left something behind: .*{said}"):
        made(changing, tiny.handle("gpt2"), tmp_path).edit([tiny.request()])
