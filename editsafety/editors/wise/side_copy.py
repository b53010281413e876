"""What a change to a matrix does to single tokens, and how far it should (WISE, arXiv 2405.14768, section 2.3.1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from editsafety.model.handle import ModelHandle

ACTIVATIONS = ("hidden_act", "activation_function", "hidden_activation", "activation")


def activation_of(handle: ModelHandle) -> str:
    """The name of the model's activation function; bloom's config has none, it is gelu."""
    config = handle.model.config.get_text_config()
    return next((name for key in ACTIVATIONS if isinstance(name := getattr(config, key, None), str)), "gelu")


def distances(activation: str, moved: Tensor, output: Tensor) -> Tensor:
    """||act(moved) - act(output)|| of every token, `[...]` for `[..., d_out]`, float32."""
    from transformers.activations import ACT2FN

    act: Callable[[Tensor], Tensor] = ACT2FN[activation]
    apart: Tensor = torch.linalg.vector_norm(act(moved.float()) - act(output.float()), dim=-1)
    return apart


def margin(inside: Tensor, outside: Tensor, bounds: tuple[float, float, float]) -> Tensor:
    """Zero when tokens inside are moved by beta, those outside by at most alpha, and gamma lies between; a number.

    `bounds` is (alpha, beta, gamma); distances `[n]` and `[m]`.
    """
    alpha, beta, gamma = bounds
    apart = (gamma + outside.mean() - inside).relu().mean()
    return apart + (outside - alpha).relu().mean() + (beta - inside).relu().mean()
