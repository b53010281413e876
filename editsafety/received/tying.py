"""Tying: one matrix that is both ends of a model, made into two with the same numbers, so that one end can differ.

An adapter or a checkpoint may change the embedding alone, or the head alone, of a model that has one matrix for both.
The unedited model with two equal matrices computes what it computed, bit for bit, and takes such an edit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from editsafety.model.handle import ModelHandle


def is_tied(handle: ModelHandle) -> bool:
    """Whether the head's matrix is the embedding's."""
    head = handle.model.get_output_embeddings()
    return getattr(head, "weight", None) is handle.model.get_input_embeddings().weight


def untie(model: nn.Module) -> None:
    """Give every module a matrix of its own, with the same numbers."""
    owners: dict[int, nn.Module] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and owners.setdefault(id(parameter), module) is not module:
                module._parameters[name] = _copy(parameter)


def tie_again(handle: ModelHandle) -> None:
    """One matrix for both ends, where both hold the same numbers."""
    head, embedding = handle.model.get_output_embeddings(), handle.model.get_input_embeddings()
    if isinstance(getattr(head, "weight", None), nn.Parameter) and torch.equal(head.weight, embedding.weight):
        head.weight = embedding.weight


@contextmanager
def untied(handle: ModelHandle) -> Iterator[None]:
    """Inside the block the model's head has its own copy of the embedding's matrix; afterwards it is tied again."""
    head: Any = handle.model.get_output_embeddings()
    shared = head.weight
    head.weight = _copy(shared)
    try:
        yield
    finally:
        head.weight = shared


def _copy(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
