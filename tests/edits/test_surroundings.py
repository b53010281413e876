"""Surroundings and threads: settings of torch and of the process are told apart and set again."""

from __future__ import annotations

import gc
import hashlib
import io
import logging
import os
import re
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from editsafety.edits.session import EditSession
from editsafety.edits.surroundings import Surroundings
from editsafety.errors import UndoError
from editsafety.model.handle import ModelHandle
from tests import tiny


@pytest.fixture
def handle() -> ModelHandle:
    return tiny.handle("gpt2")


class OverFunctions(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class OverOperators(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class Strange(Warning):
    """Nobody else's."""


def fewer_files() -> None:
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (now - 1, most))


def autocast() -> None:
    torch.autocast("cpu", dtype=torch.bfloat16).__enter__()


def save_hooks() -> None:
    torch._C._autograd._push_saved_tensors_default_hooks(lambda x: x, lambda x: x)


def activation() -> None:
    from transformers.activations import ACT2FN

    ACT2FN["gelu_new"] = nn.ReLU


def attention() -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS["sdpa"] = print


def optimizer_hook() -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    register_optimizer_step_post_hook(lambda *_: None)


CHANGES: dict[str, tuple[Callable[[], Any], str]] = {
    "default dtype": (lambda: torch.set_default_dtype(torch.float64), "torch's default dtype changed from torch.flo"),
    "gradient mode": (lambda: torch.set_grad_enabled(False), "torch's gradient mode changed from True to False"),
    "autocast": (autocast, "torch's autocast on cpu changed from False to True"),
    "precision": (lambda: torch.set_float32_matmul_precision("medium"), "float32 products changed from 'highest'"),
    "deterministic": (lambda: torch.use_deterministic_algorithms(True), "torch's deterministic algorithms changed"),
    "threads": (lambda: torch.set_num_threads(torch.get_num_threads() + 1), "torch's number of threads changed"),
    "mode over functions": (lambda: OverFunctions().__enter__(), r"functions changed from \(\) to \(OverFunctions\)"),
    "default device": (lambda: torch.set_default_device("cpu"), "torch's modes over functions changed"),
    "mode over operators": (lambda: OverOperators().__enter__(), "torch's modes over operators changed"),
    "anomaly": (lambda: torch.autograd.set_detect_anomaly(True), "torch's anomaly detection changed"),
    "saved tensors": (save_hooks, "torch's hooks on saved tensors changed from None"),
    "denormals": (lambda: torch.set_flush_denormal(True), "rounds denormal numbers to zero changed from False"),
    "one thread of gradients": (lambda: torch._C._set_multithreading_enabled(False), "gradients by several threads"),
    "global hook": (
        lambda: nn.modules.module.register_module_forward_pre_hook(lambda *_: None),
        "torch's global forward pre hooks were changed",
    ),
    "global backward hook": (
        lambda: nn.modules.module.register_module_full_backward_hook(lambda *_: None),
        "torch's global backward hooks were changed",
    ),
    "registration hook": (
        lambda: nn.modules.module.register_module_parameter_registration_hook(lambda *_: None),
        "torch's global parameter registration hooks were changed",
    ),
    "optimizer hook": (optimizer_hook, "torch's global optimizer post hooks were changed"),
    "activation by name": (activation, "transformers' activations by name were changed"),
    "attention by name": (attention, "transformers' attention functions by name were changed"),
    "working directory": (lambda: os.chdir("/"), "the working directory changed from '.*' to '/'"),
    "environment": (lambda: os.environ.update(MY_TOKEN="hidden"), "the environment changed: MY_TOKEN$"),
    "search path": (lambda: sys.path.insert(0, "/nowhere"), "Python's search path changed: /nowhere$"),
    "recursion limit": (lambda: sys.setrecursionlimit(5000), "Python's recursion limit changed .* to 5000"),
    "garbage collection": (gc.disable, "Python's garbage collection changed from True to False"),
    "standard output": (lambda: setattr(sys, "stdout", io.StringIO()), "Python's standard output changed"),
    "logging": (lambda: logging.disable(logging.ERROR), "the level at which logging is off changed from 0 to 40"),
    "root logger": (lambda: logging.root.setLevel(1), "the level of the root logger changed from [0-9]+ to 1$"),
    "warnings": (lambda: warnings.simplefilter("error", Strange), "which warnings Python raises as errors changed$"),
    "uncaught errors": (lambda: setattr(sys, "excepthook", print), "Python's hook for uncaught errors changed from"),
    "numpy": (lambda: np.seterr(over="raise"), "numpy's answers to floating-point errors changed: over$"),
    "umask": (lambda: os.umask(0o777), "the permissions that new files do not get changed from [0-9]+ to 511$"),
    "limits": (lambda: fewer_files(), "limits of the system changed: RLIMIT_NOFILE"),
    "signal": (lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN), "signal handlers changed: SIGTERM$"),
    "alarm": (lambda: signal.setitimer(signal.ITIMER_REAL, 1000), "an alarm of the system's clock changed"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHANGES)
def test_a_setting_that_was_changed_is_named_and_set_again(handle: ModelHandle, kind: str) -> None:
    change, message = CHANGES[kind]
    before = Surroundings.now()
    session = EditSession(handle)
    with session:
        change()
    assert any(re.search(message, said) for said in session.leftovers), session.leftovers
    assert before.findings() == ()
    assert "hidden" not in "".join(session.leftovers)


def test_autocast_that_stays_nested_would_keep_old_weights_and_is_unwound(handle: ModelHandle) -> None:
    with EditSession(handle):
        autocast()
        autocast()
    assert torch.autocast_increment_nesting() == 1
    assert torch.autocast_decrement_nesting() == 0


def test_a_session_inside_another_leaves_the_surroundings_to_the_outer_one(handle: ModelHandle) -> None:
    outer = EditSession(handle)
    with outer:
        inner = EditSession(handle)
        with inner:
            torch.set_float32_matmul_precision("high")
        assert inner.leftovers == ()
        assert torch.get_float32_matmul_precision() == "high"
    assert outer.leftovers == ("torch's precision of float32 products changed from 'highest' to 'high'",)
    assert handle.open_sessions == 0


def test_warnings_that_were_errors_are_errors_again_and_other_filters_stay() -> None:
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("error", Strange)
        around = Surroundings.now()
        warnings.resetwarnings()
        warnings.simplefilter("ignore", ResourceWarning)
        assert around.put_back() == ("which warnings Python raises as errors changed",)
        assert around.findings() == ()
        assert [one[0] for one in warnings.filters] == ["error", "ignore"]
        with pytest.raises(Strange):
            warnings.warn("here", Strange, stacklevel=1)


def test_a_standard_stream_that_leads_elsewhere_or_is_closed_lasts(
    handle: ModelHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, kept = io.StringIO(), os.dup(1)
    monkeypatch.setattr(sys, "stdout", stream)
    elsewhere = os.open(os.devnull, os.O_WRONLY)
    try:
        session = EditSession(handle)
        session.__enter__()
        stream.close()
        os.dup2(elsewhere, 1)
        with pytest.raises(UndoError) as caught:
            session.__exit__(None, None, None)
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(elsewhere)
    assert caught.value.lasting == (
        "whether Python's standard streams are closed changed from (False, False) to (True, False)",
        "where the standard streams lead to changed",
    )


def test_a_setting_that_cannot_be_set_again_is_an_undo_error(handle: ModelHandle) -> None:
    guard = torch.inference_mode()
    try:
        with pytest.raises(UndoError) as caught, EditSession(handle):
            guard.__enter__()
        assert caught.value.lasting == ("torch's inference mode changed from False to True",)
    finally:
        guard.__exit__(None, None, None)


WATCHED = {
    "modes over functions", "modes over operators", "default dtype", "gradient mode", "inference mode",
    "deterministic algorithms", "number of threads", "functions for subclasses", "anomaly detection",
    "hooks on saved tensors", "gradients by several threads", "full backward hooks", "nesting of autocast",
    "cache of autocast", "autocast on cpu", "dtype of autocast on cpu", "precision of float32 products",
}  # fmt: skip
USED = {"oneDNN", "cuDNN", "flash attention", "memory-efficient attention", "plain attention", "cuDNN's attention"}
SHARED = {
    "torch's global forward hooks", "torch's global forward pre hooks", "torch's global backward hooks",
    "torch's global backward pre hooks", "torch's global forward hooks with kwargs",
    "torch's global forward hooks always called", "torch's global buffer registration hooks",
    "torch's global module registration hooks", "torch's global parameter registration hooks",
    "torch's global optimizer pre hooks", "torch's global optimizer post hooks", "transformers' activations by name",
    "transformers' attention functions by name", "transformers' attention masks by name",
}  # fmt: skip


def test_every_setting_and_every_shared_registry_is_watched_and_can_be_read(handle: ModelHandle) -> None:
    around = Surroundings.now()
    values = {setting.name: value for setting, value in around.settings}
    assert values.keys() >= {f"torch's {name}" for name in WATCHED} | {f"whether torch uses {name}" for name in USED}
    assert values.keys() >= {
        "whether torch rounds denormal numbers to zero", "cuDNN's benchmark mode", "cuDNN's deterministic mode",
        "cuDNN's use of TF32", "cuBLAS's use of TF32", "cuBLAS's sums in float16", "cuBLAS's sums in bfloat16",
        "the working directory", "the environment", "Python's search path", "Python's recursion limit",
        "Python's garbage collection", "Python's standard output", "Python's standard error",
        "the level at which logging is off", "signal handlers", "the level of the root logger",
        "whether Python's standard streams are closed", "where the standard streams lead to", "limits of the system",
        "which warnings Python raises as errors", "Python's hook for uncaught errors",
        "numpy's answers to floating-point errors", "the permissions that new files do not get",
        "an alarm of the system's clock",
    }  # fmt: skip
    assert [name for name, value in values.items() if value == "unreadable"] == []
    assert {name for name, *_ in around.registries} == SHARED
    assert around.findings() == around.put_back() == ()
    assert not around.rewired


@pytest.mark.parametrize("doubt", ["a mode", "a thread", "an error"])
def test_a_session_that_proves_in_doubt_looks_at_functions_where_anything_else_was_found(
    handle: ModelHandle, doubt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("editsafety.edits.threads.GRACE", 0.0)
    kind, stop = type(handle.model.transformer.ln_f), threading.Event()
    forward, thread = kind.forward, threading.Thread(target=stop.wait)
    session = EditSession(handle, prove="in doubt")
    try:
        with pytest.raises((UndoError, KeyError)) if doubt != "a mode" else nullcontext(), session:
            kind.forward = lambda self, x: forward(self, x)  # type: ignore[method-assign]
            if doubt == "a mode":
                handle.model.transformer.h[0].train()
            elif doubt == "a thread":
                thread.start()
            else:
                raise KeyError(doubt)
        assert "forward of the class LayerNorm was replaced" in session.leftovers
        assert kind.forward is forward
    finally:
        kind.forward = forward  # type: ignore[method-assign]
        stop.set()


def test_a_function_that_reading_needs_is_named_and_no_weight_is_for_it(
    handle: ModelHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = EditSession(handle, prove="in doubt")
    with monkeypatch.context() as patched, session:
        patched.setattr(hashlib, "sha256", hashlib.md5)
        patched.setattr("editsafety.edits.checksum.checksum", lambda tensor: "")
        patched.setattr("editsafety.edits.seal.checksum", lambda tensor: "")
    assert "editsafety.edits.seal.checksum was replaced" in session.leftovers


def test_the_standard_error_and_the_dtype_of_autocast_are_set_again() -> None:
    around, stream, dtype = Surroundings.now(), sys.stderr, torch.get_autocast_dtype("cpu")
    other = torch.float16 if dtype is not torch.float16 else torch.bfloat16
    try:
        sys.stderr = io.StringIO()
        torch.set_autocast_dtype("cpu", other)
        said = around.put_back()
        assert (sys.stderr, torch.get_autocast_dtype("cpu")) == (stream, dtype)
    finally:
        sys.stderr = stream
        torch.set_autocast_dtype("cpu", dtype)
    assert said[0] == f"torch's dtype of autocast on cpu changed from {dtype} to {other}"
    assert said[1].startswith("Python's standard error changed from ")
