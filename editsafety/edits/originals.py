"""Originals: parameters as they were before a session changed them for the first time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


def laid_out_as(home: Tensor, value: Tensor) -> Tensor:
    """The value in the memory layout of the original: products round by layout, and a file does not keep any."""
    same = value.stride() == home.stride() or value.shape != home.shape
    return value if same else torch.empty_like(home, dtype=value.dtype).copy_(value)


@dataclass(frozen=True)
class Original:
    """A parameter before its first change: the memory it was in, and its value (the same tensor unless parked)."""

    parameter: nn.Parameter
    home: Tensor
    value: Tensor
    requires_grad: bool
    grad: Tensor | None

    def put_back(self) -> None:
        """Point the parameter to its own memory, with its value in it."""
        self.parameter.grad = None
        self.parameter.data = self.home
        if self.value is not self.home:
            self.home.copy_(self.value)
        self.parameter.requires_grad_(self.requires_grad)
        self.parameter.grad = self.grad
