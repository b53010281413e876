"""Finder: the parts of a block of a family without a row, looked for in the model and proved on it, or refused.

A block is one of as many equal modules as the model has layers. In it, attention's projections are those below a module
that is called so, and of the others one gives the block's width: the MLP's down-projection. That is believed only if a
pass shows that the block gives what it got, plus what these two projections give, to rounding. A norm or a scale
between them, experts, or a state in the place of attention do not pass; such a family needs a row (`architectures`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from editsafety.errors import sentence_of
from editsafety.model.architectures import Architecture

ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
INTO = re.compile(r"(^|[._])(q|k|v|qkv|wqkv|query|key|value)|c_attn|query_key_value", re.IGNORECASE)
TOKENS = 8
EXACT, HALF = 1e-3, 5e-2  # by how much a sum may be missed, of what the block adds; in narrow types

Matrices = Mapping[str, tuple[int, int]]  # by the name below a block: (d_out, d_in)


class NotFoundError(Exception):
    """Why the parts of a model's blocks cannot be told, as the end of a sentence."""


def find(model: Any) -> Architecture:
    """The row that a model's family would have. Raises NotFoundError."""
    place, blocks = _blocks(model)
    matrices = [_matrices(block) for block in blocks]
    other = next((i for i, one in enumerate(matrices) if one != matrices[0]), None)
    if other is not None:
        raise NotFoundError(f"its blocks are not all alike (layer {other} is not built like layer 0)")
    width = int(model.config.get_text_config().hidden_size)
    attention = {name: shape for name, shape in matrices[0].items() if ATTENTION.search(name.rpartition(".")[0])}
    rest = {name: shape for name, shape in matrices[0].items() if name not in attention}
    found = Architecture(
        str(model.config.model_type),
        f"{place}.{{}}",
        mlp_in=tuple(name for name, (_, d_in) in rest.items() if d_in == width and name != _only_out(rest, width)),
        mlp_out=_only_out(rest, width),
        attention_out=_only_out({n: s for n, s in attention.items() if not INTO.search(n.rpartition(".")[2])}, width),
        attention_in=tuple(name for name in attention if INTO.search(name.rpartition(".")[2])),
    )
    if not found.mlp_in or not found.attention_in:
        raise NotFoundError("nothing leads into its MLP or its attention that has the model's width")
    _prove(model, found, len(blocks) // 2)
    return found


def _blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    config: Any = model.config
    count = int(getattr(config.get_text_config(), "num_hidden_layers", 0))
    lists = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if not count or not lists:
        raise NotFoundError(f"it has no list of {count} blocks")
    return max(lists, key=lambda one: sum(parameter.numel() for parameter in one[1].parameters()))


def _matrices(block: nn.Module) -> Matrices:
    """Its plain projections, in the order of the module."""
    from transformers.pytorch_utils import Conv1D

    found: dict[str, tuple[int, int]] = {}
    for name, module in block.named_modules():
        if isinstance(module, nn.Linear):
            found[name] = (module.weight.shape[0], module.weight.shape[1])
        elif isinstance(module, Conv1D):
            found[name] = (module.weight.shape[1], module.weight.shape[0])
    return found


def _only_out(matrices: Matrices, width: int) -> str:
    """The only one that gives the model's width."""
    names = [name for name, (d_out, _) in matrices.items() if d_out == width]
    if len(names) != 1:
        said = ", ".join(names) or "none"
        raise NotFoundError(
            f"one projection of its MLP and one of its attention should give {width} numbers, found: {said}"
        )
    return names[0]


@dataclass
class _Passed:
    """What went through a block and two of its projections."""

    received: list[Tensor] = field(default_factory=list)
    given: dict[str, Tensor] = field(default_factory=dict)

    def note(self, name: str) -> Any:
        def after(_module: nn.Module, _args: Any, output: Any) -> None:
            self.given[name] = (output[0] if isinstance(output, tuple | list) else output).detach().float().clone()

        return after

    def receives(self, _module: nn.Module, args: Any, kwargs: Any) -> None:
        first = args[0] if args else kwargs.get("hidden_states")
        if isinstance(first, Tensor):
            self.received.append(first.detach().float().clone())


@torch.no_grad()
def _prove(model: Any, found: Architecture, layer: int) -> None:
    """Raise NotFoundError unless the block adds what the two projections give, and nothing else."""
    block, passed = found.block_of(layer), _Passed()
    parts = [f"{block}.{found.attention_out}", f"{block}.{found.mlp_out}"]
    hooks = [model.get_submodule(block).register_forward_pre_hook(passed.receives, with_kwargs=True)]
    hooks += [model.get_submodule(name).register_forward_hook(passed.note(name)) for name in (block, *parts)]
    words = int(model.config.get_text_config().vocab_size)
    try:
        weight = model.get_input_embeddings().weight
        model(input_ids=torch.arange(TOKENS, device=weight.device)[None] % words)
    except (MemoryError, torch.OutOfMemoryError):
        raise  # says nothing of the model
    except Exception as error:  # somebody else's model may refuse the tokens, for whatever reason
        raise NotFoundError(f"it could not be tried ({sentence_of(error)})") from error
    finally:
        for hook in hooks:
            hook.remove()
    if len(passed.received) != 1 or set(passed.given) != {block, *parts}:
        raise NotFoundError("its blocks are not run once each with their hidden states first")
    before, after = passed.received[0], passed.given[block]
    if before.numel() != TOKENS * before.shape[-1]:
        raise NotFoundError("its blocks are given other tokens beside those of the text")
    added = after - before
    missed = added - sum(passed.given[name].reshape(before.shape) for name in parts)
    exact = HALF if weight.dtype.itemsize < torch.float32.itemsize else EXACT
    if not float(missed.norm()) <= exact * float(added.norm()):
        raise NotFoundError(
            "its blocks add something else than what attention and MLP give (a norm or a scale between)"
        )
