"""The race itself cannot be had at will (2 of 920 processes on a busy machine): what is tried is the order of calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from editsafety.model import first_calls
from editsafety.model.handle import ModelHandle

# torch's own table of what it hands to the vector library (aten/src/ATen/cpu/vml.h), read by hand.
IN_THE_LIBRARY = {
    "acos",
    "asin",
    "atan",
    "cos",
    "erf",
    "erfc",
    "erfinv",
    "exp",
    "log",
    "log10",
    "log2",
    "sin",
    "sqrt",
    "tan",
    "tanh",
    "trunc",
}


class Calls(TorchDispatchMode):
    """Notes down every call of an elementwise function: its name, dtype, and how many numbers it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, torch.dtype, int]] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = str(func).split(".")[1]
        if name in IN_THE_LIBRARY:
            self.seen.append((name, args[0].dtype, args[0].numel()))
        return func(*args, **(kwargs or {}))


def test_every_function_is_called_on_one_number_before_a_model_is_asked_anything() -> None:
    with Calls() as calls:
        handle = ModelHandle.load("pocket-neo")
        taken_over = len(calls.seen)
        handle.logits(handle.batch([[1, 2, 3]]))
    before, after = calls.seen[:taken_over], calls.seen[taken_over:]
    for dtype in (torch.float32, torch.float64):
        assert {name for name, kind, _ in before if kind is dtype} >= IN_THE_LIBRARY
    assert {size for _, _, size in before} == {1}
    assert any(size > 1 for _, _, size in after)  # the model goes by such a function itself


def test_settling_leaves_random_numbers_threads_and_defaults_alone() -> None:
    def settings() -> tuple[object, ...]:
        return torch.get_rng_state().tolist(), torch.get_num_threads(), torch.get_default_dtype()

    before = settings()
    first_calls.settle()
    assert settings() == before
