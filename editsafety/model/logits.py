"""Logits only where they are read: the unembedding is applied to the chosen positions, not to the whole batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from editsafety.errors import ModelError
from editsafety.model.handle import ModelHandle


@contextmanager
def only_at(handle: ModelHandle, rows: Tensor, positions: Tensor) -> Iterator[None]:
    """Inside the block a forward pass returns logits `[1, n, vocab]`, of `(rows[i], positions[i])` for i < n.

    Exact: what follows the unembedding (soft-capping, scaling) works on each logit by itself. Raises ModelError for
    a model without an unembedding.
    """
    head = handle.model.get_output_embeddings()
    if not isinstance(head, nn.Module):
        raise ModelError(f"{handle.name} has no unembedding: load it as a causal language model.")

    def choose(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = args[0]
        return (hidden[rows.to(hidden.device), positions.to(hidden.device)].unsqueeze(0), *args[1:])

    hook = head.register_forward_pre_hook(choose)
    try:
        yield
    finally:
        hook.remove()


def log_probabilities(logits: Tensor) -> Tensor:
    """Natural log-probabilities over the vocabulary, float32."""
    return torch.log_softmax(logits.float(), -1)
