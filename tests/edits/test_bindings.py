"""Bindings: a function that is bound to something else is named and put back; what torch does itself is no finding."""

from __future__ import annotations

import builtins
import functools
import json
import math
import subprocess
import sys
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from editsafety.edits.baseline import Baseline
from editsafety.edits.bindings import Bindings
from editsafety.edits.seal import Seal
from editsafety.edits.session import EditSession
from editsafety.model import scoring
from editsafety.model.handle import ModelHandle
from tests import tiny


@pytest.fixture
def handle() -> ModelHandle:
    return tiny.handle("gpt2")


def same_again(owner: Any, name: str) -> None:
    """Replace a function by one that does the same."""
    plain = getattr(owner, name)
    setattr(owner, name, functools.wraps(plain)(lambda *args, **kwargs: plain(*args, **kwargs)))


def with_a_copy(owner: Any, name: str) -> None:
    owner._plain = getattr(owner, name)
    setattr(owner, name, lambda *args, **kwargs: owner._plain(*args, **kwargs))


def other_code(handle: ModelHandle) -> None:
    forward: Any = type(handle.model.transformer.h[0].mlp.c_fc).forward
    forward.__code__ = (lambda self, x: x).__code__


def other_defaults(handle: ModelHandle) -> None:
    softmax: Any = functional.softmax
    softmax.__defaults__ = (1, 3, None)


DEEDS: dict[str, tuple[Callable[[ModelHandle], Any], tuple[str, ...]]] = {
    "a function of torch": (lambda h: same_again(torch, "matmul"), ("torch.matmul was replaced",)),
    "a function of a layer": (
        lambda h: with_a_copy(functional, "linear"),
        ("torch.nn.functional.linear was replaced", "torch.nn.functional._plain was added"),
    ),
    "a method of all tensors": (
        lambda h: same_again(torch.Tensor, "norm"), ("norm of the class Tensor was replaced",)
    ),
    "a method that a class inherited": (
        lambda h: setattr(torch.Tensor, "add_", lambda *a, **k: None), ("add_ was added to the class Tensor",)
    ),
    "the call of every module": (
        lambda h: same_again(nn.Module, "__call__"), ("__call__ of the class Module was replaced",)
    ),
    "forward of the model's class": (
        lambda h: with_a_copy(type(h.model), "forward"),
        ("forward of the class GPT2LMHeadModel was replaced", "_plain was added to the class GPT2LMHeadModel"),
    ),
    "data of the model's class": (
        lambda h: setattr(type(h.model), "base_model_prefix", "x"),
        ("base_model_prefix was added to the class GPT2LMHeadModel",),
    ),
    "a method taken away": (
        lambda h: delattr(type(h.model), "forward"), ("forward of the class GPT2LMHeadModel was taken away",)
    ),
    "a method of the handle's class": (
        lambda h: same_again(ModelHandle, "logits"), ("logits of the class ModelHandle was replaced",)
    ),
    "a function of this package": (
        lambda h: same_again(scoring, "continuations"), ("editsafety.model.scoring.continuations was replaced",)
    ),
    "an optimizer's step": (lambda h: setattr(torch.optim.SGD, "step", None), ("step of the class SGD was replaced",)),
    "a function of Python": (lambda h: same_again(builtins, "sum"), ("builtins.sum was replaced",)),
    "a function that comparing needs": (lambda h: setattr(builtins, "id", lambda x: 0), ("builtins.id was replaced",)),
    "a function of mathematics": (lambda h: same_again(math, "exp"), ("math.exp was replaced",)),
    "a function that results are kept by": (lambda h: setattr(json, "dumps", str), ("json.dumps was replaced",)),
    "the clock": (lambda h: setattr(time, "monotonic", float), ("time.monotonic was replaced",)),
    "a whole module": (
        lambda h: sys.modules.update({"torch.nn.functional": types.ModuleType("x")}),
        ("the module torch.nn.functional was replaced by another object",),
    ),
    "the code of a function": (other_code, ("the code of transformers.pytorch_utils.Conv1D.forward was replaced",)),
    "the defaults of a function": (other_defaults, ("the code of torch.nn.functional.softmax was replaced",)),
}  # fmt: skip


@pytest.mark.parametrize("kind", DEEDS)
def test_what_is_bound_to_something_else_is_named_and_put_back(handle: ModelHandle, kind: str) -> None:
    do, expected = DEEDS[kind]
    before = Bindings.of(handle)
    do(handle)
    assert before.put_back() == expected
    assert before.put_back() == ()
    assert Bindings.of(handle).put_back() == ()


@pytest.mark.parametrize("kind", DEEDS)
def test_a_session_names_it_and_the_model_says_what_it_said(handle: ModelHandle, kind: str) -> None:
    do, expected = DEEDS[kind]
    ids = handle.batch([handle.ids("Toren lives in Ostrin")])
    before = handle.logits(ids)
    session = EditSession(handle)
    with session:
        do(handle)
    assert set(expected) <= set(session.leftovers)
    assert torch.equal(handle.logits(ids), before)


def test_a_first_optimizer_and_lazy_imports_are_no_findings(handle: ModelHandle) -> None:
    class Steps(torch.optim.SGD):
        pass

    before = Bindings.of(handle)
    weight = nn.Parameter(torch.ones(2))
    for kind in (torch.optim.Adadelta, torch.optim.Rprop, Steps):
        kind([weight], lr=0.1)
    functional.lazily = "added"  # type: ignore[attr-defined]
    assert before.put_back() == ()
    assert hasattr(functional, "lazily")
    del functional.lazily


def test_an_optimizer_of_a_class_that_inherits_its_step_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first AdamW of a process adds a wrapped `step` of Adam to its class: every method with AdamW was an ERROR."""
    handle = tiny.handle("gpt2")
    for kind in (torch.optim.Adam, torch.optim.AdamW):
        plain = kind.step
        while hasattr(plain, "__wrapped__") and hasattr(plain, "hooked"):
            plain = plain.__wrapped__
        if kind is torch.optim.Adam:
            monkeypatch.setattr(kind, "step", plain)
        elif "step" in vars(kind):
            monkeypatch.delattr(kind, "step")
    before = Bindings.of(handle)
    weight = nn.Parameter(torch.ones(2))
    torch.optim.AdamW([weight], lr=0.1)
    assert "step" in vars(torch.optim.AdamW)
    torch.optim.Adam([weight], lr=0.1)
    assert before.findings() == ()
    monkeypatch.setattr(torch.optim.AdamW, "step", functools.wraps(torch.optim.SGD.step)(lambda *_: None))
    assert before.findings() == ("step was added to the class AdamW",)


COMPILED = """
import sys
import torch
from editsafety.edits.bindings import Bindings
from tests import tiny
handle = tiny.handle("gpt2")
before = Bindings.of(handle)
torch.compile(handle.model, backend="eager")(input_ids=torch.tensor([[1, 2]]))
torch.optim.AdamW(handle.model.parameters())
print(before.findings())
sys.modules["torch.optim.adam"]._fused_adam = torch._dynamo.disable(lambda *a, **k: None)
print(before.findings())
"""


def test_the_first_torch_compile_of_a_process_is_no_finding() -> None:
    """It wraps optimizers and the constructor of modules; in a process of its own, since that stays."""
    root = Path(__file__).parent.parent.parent
    ended = subprocess.run(
        [sys.executable, "-c", COMPILED], cwd=root, capture_output=True, text=True, check=True, timeout=120
    )
    plainly, wrapped = ended.stdout.splitlines()[-2:]
    assert plainly == "()"
    assert wrapped == "('torch.optim.adam._fused_adam was replaced',)"


def test_another_model_of_the_same_class_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that is made by its own constructor has transformers 5.24 note what its source says, on the class.

    An editor that trains a small Llama beside the Llama it edits (SERAC does) was told to have left that behind.
    """
    handle = tiny.handle("llama")
    kind: Any = type(handle.model.model)
    memo = "_can_set_experts_implementation_cached_value"
    monkeypatch.delattr(kind, memo, raising=False)
    before = Bindings.of(handle)
    kind(type(handle.model.config)(vocab_size=8, hidden_size=8, intermediate_size=8, num_attention_heads=2))
    assert before.findings() == ()
    monkeypatch.setattr(kind, memo, lambda _: True, raising=False)  # no memo, but code
    assert before.findings() == (f"{memo} was added to the class {kind.__name__}",)


def test_warnings_that_are_caught_meanwhile_are_no_finding(handle: ModelHandle) -> None:
    """As pytest does in every phase of a test: a session may be opened in one of them and closed in another."""
    with warnings.catch_warnings(record=True):
        before = Bindings.of(handle)
    with warnings.catch_warnings(record=True):
        assert before.findings() == ()


def test_replacing_the_methods_that_look_for_replacements_does_not_help(
    handle: ModelHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline = Baseline.of(handle)
    session = EditSession(handle, baseline=baseline)
    with session:
        monkeypatch.setattr(Bindings, "put_back", lambda self: ())
        monkeypatch.setattr(Seal, "changed", lambda *_: ())
        same_again(functional, "gelu")
    assert {
        "put_back of the class Bindings was replaced",
        "changed of the class Seal was replaced",
        "torch.nn.functional.gelu was replaced",
    } <= set(session.leftovers)


def test_changes_between_cases_are_taken_as_given(handle: ModelHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    baseline = Baseline.of(handle)
    assert baseline.renewed() is baseline
    monkeypatch.setattr(functional, "gelu", functional.relu)
    renewed = baseline.renewed()
    assert renewed.put_back() == ()
    monkeypatch.undo()
    assert renewed.put_back() == ("torch.nn.functional.gelu was replaced",)
    assert baseline.put_back() == ("torch.nn.functional.gelu was replaced",)
