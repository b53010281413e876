"""Layers: a forward pass that is entered where it begins to differ from an earlier one of the same batch.

What the lower layers give is kept from the first pass; in later ones stand-ins give it again, and the model's own code
runs the rest: the same operations on the same tensors, so the same bits. A pass is entered in front of a decoder block,
or inside of one, at its MLP's down-projection (which is all that ROME and its relatives change):

    block l < L            gives what block L - 1 gave
    attention of block L   gives what it gave                       (inside only)
    MLP of block L         is its down-projection, of what that received then       (inside only)

Norms and sums of the block are left to the model, whatever their order. Where the MLP is more than its down-projection
(bloom adds the residual in it) or no module of its own (opt), a pass is entered in front of the block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from editsafety.model.architectures import Part
from editsafety.model.generation import has_hooks
from editsafety.model.handle import ModelHandle

Forward = Callable[..., Any]


def stands_alone(handle: ModelHandle) -> bool:
    """Whether a model answers by its weights alone: nothing is hooked to it, and its handle asks nothing else."""
    return not (handle.model.training or {"logits", "run"} & vars(handle).keys() or has_hooks(handle.model))


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where a forward pass is entered: in front of block `layer`, or `inside` of it, at its down-projection."""

    layer: int
    inside: bool = False

    @classmethod
    def below(cls, handle: ModelHandle, parameters: frozenset[str]) -> Entrance | None:
        """The last place that no change of these parameters reaches from above; None where that is the very beginning.

        Parameters outside of the blocks (embeddings, a head) count as the beginning.
        """
        if not handle.has_row:
            return None
        layers = [_layer_of(handle, name) for name in parameters]
        if not layers or any(layer is None for layer in layers):
            return None
        layer = min(layer for layer in layers if layer is not None)
        (projection,) = handle.architecture.modules(Part.MLP_OUT, layer)
        here = [name for name in parameters if _layer_of(handle, name) == layer]
        inside = all(name.rpartition(".")[0] == projection for name in here)
        return cls(layer, inside) if layer or inside else None

    @classmethod
    def at(cls, handle: ModelHandle, module: str) -> Entrance | None:
        """Where to enter when the output of a module is changed: behind a block, or inside at a down-projection.

        None for any other module.
        """
        for layer in range(handle.layers if handle.has_row else 0):
            if module == handle.block(layer):
                return cls(layer + 1)
            if (module,) == handle.architecture.modules(Part.MLP_OUT, layer):
                return cls(layer, inside=True)
        return None


@dataclass(frozen=True, eq=False)
class LowerLayers:
    """What the layers below an entrance give for one batch: the stand-ins of modules, by their name."""

    entrance: Entrance
    outputs: Mapping[str, _Given]
    # What the down-projection received; None where a pass is entered in front of a block.
    received: Tensor | None = None

    def taken(self, rows: Tensor) -> LowerLayers:
        """The same for a batch whose rows are these of this one, each as often as it is named; in front of blocks only.

        Raises ValueError for an entrance inside of a block.
        """
        if self.received is not None:
            raise ValueError(f"rows can be taken in front of a block; this is inside of block {self.entrance.layer}.")
        taken = {name: _Given(one.value[rows.to(one.value.device)], one.beside) for name, one in self.outputs.items()}
        return LowerLayers(self.entrance, taken)

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._tensors)

    @property
    def whole(self) -> bool:
        """Whether the model's code has left it as it was: what is written into cannot be given again."""
        return not any(tensor.is_inference() or tensor._version for tensor in self._tensors)

    def of_rows(self, rows: Sequence[int]) -> LowerLayers:
        """What they give for some rows of the batch, in this order."""
        chosen = torch.tensor(rows)

        def pick(tensor: Tensor) -> Tensor:
            return tensor[chosen.to(tensor.device)]

        outputs = {name: _Given(pick(one.value), one.beside) for name, one in self.outputs.items()}
        return LowerLayers(self.entrance, outputs, None if self.received is None else pick(self.received))

    @property
    def _tensors(self) -> list[Tensor]:
        tensors = [output.value for output in self.outputs.values()]
        return tensors if self.received is None else [*tensors, self.received]


@dataclass(frozen=True, slots=True, eq=False)
class _Given:
    """What a module gave: a tensor, and how many things beside it (attention weights and the like, which nobody reads).

    `beside` is None for a module that gives the bare tensor.
    """

    value: Tensor
    beside: int | None

    @classmethod
    def of(cls, given: Any) -> _Given:
        if isinstance(given, tuple):
            return cls(given[0].detach().clone(), len(given) - 1)
        return cls(given.detach().clone(), None)

    def again(self, *_args: Any, **_kwargs: Any) -> Any:
        return self.value if self.beside is None else (self.value, *[None] * self.beside)


@dataclass
class Recording:
    """Filled in by the forward pass inside of `record`."""

    lower: LowerLayers | None = None


@contextmanager
def record(handle: ModelHandle, entrance: Entrance) -> Iterator[Recording]:
    """Keep what the lower layers give in the (one) forward pass of this block; `lower` is there afterwards."""
    recording = Recording()
    watched = _Watched(handle, entrance)
    with ExitStack() as hooks:
        watched.hook(hooks)
        yield recording
    recording.lower = watched.lower()


@contextmanager
def enter(handle: ModelHandle, lower: LowerLayers) -> Iterator[None]:
    """Run forward passes of the same batch in this block, without the layers below `lower.entrance`."""
    get, entrance = handle.model.get_submodule, lower.entrance
    stand_ins: dict[str, Forward] = {}
    if entrance.layer:
        below = lower.outputs[handle.block(entrance.layer - 1)].again
        stand_ins |= {handle.block(layer): below for layer in range(entrance.layer)}
    if lower.received is not None:
        attention, mlp, projection = _parts(handle, entrance.layer)
        stand_ins[attention] = lower.outputs[attention].again
        stand_ins[mlp] = _Projected(get(projection), lower.received)
    with standing_in(handle.model, stand_ins):
        yield


@contextmanager
def standing_in(model: nn.Module, stand_ins: Mapping[str, Forward]) -> Iterator[None]:
    """In this block, modules do what their stand-ins do."""
    modules = {name: model.get_submodule(name) for name in stand_ins}
    own = {name: vars(module)["forward"] for name, module in modules.items() if "forward" in vars(module)}
    try:
        for name, module in modules.items():
            vars(module)["forward"] = stand_ins[name]
        yield
    finally:
        for name, module in modules.items():
            vars(module).pop("forward", None)
            if name in own:  # a module may have been given a `forward` of its own (accelerate moves tensors so)
                vars(module)["forward"] = own[name]


class _Projected:
    """Stands in for an MLP of which only the down-projection is run."""

    def __init__(self, projection: nn.Module, received: Tensor) -> None:
        self.projection, self.received = projection, received

    def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
        return self.projection(self.received)


@dataclass
class _Watched:
    """The modules around an entrance, and what passed through them."""

    handle: ModelHandle
    entrance: Entrance
    outputs: dict[str, _Given] = field(default_factory=dict)
    received: dict[str, Tensor] = field(default_factory=dict)

    def hook(self, hooks: ExitStack) -> None:
        layer, get = self.entrance.layer, self.handle.model.get_submodule
        names = self._below
        if self.entrance.inside:
            attention, mlp, projection = _parts(self.handle, layer)
            names += [attention, mlp, projection]
            before = get(projection).register_forward_pre_hook(self._receives(projection))
            hooks.callback(before.remove)
        for name in dict.fromkeys(names):
            hooks.callback(get(name).register_forward_hook(self._gives(name)).remove)

    def lower(self) -> LowerLayers | None:
        """None where the pass did not come through (whoever called it ended it early) or cannot be entered."""
        layer = self.entrance.layer
        below = {name: self.outputs.get(name) for name in self._below}
        kept = {name: output for name, output in below.items() if output is not None}
        if len(kept) < len(below):
            return None
        if self.entrance.inside:
            attention, mlp, projection = _parts(self.handle, layer)
            if mlp in self.outputs and self._is_projection(mlp, projection):
                kept[attention] = self.outputs[attention]
                return LowerLayers(self.entrance, kept, self.received[projection])
        return LowerLayers(Entrance(layer), kept) if layer else None

    @property
    def _below(self) -> list[str]:
        """The last block below, if any."""
        return [self.handle.block(self.entrance.layer - 1)] if self.entrance.layer else []

    def _is_projection(self, mlp: str, projection: str) -> bool:
        """Whether the MLP gives what its down-projection gives, bit for bit."""
        whole, last = self.outputs[mlp], self.outputs[projection]
        return mlp != projection and whole.beside is None and torch.equal(whole.value, last.value)

    def _receives(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def before(_module: nn.Module, args: tuple[Any, ...]) -> None:
            self.received[name] = args[0].detach().clone()

        return before

    def _gives(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def after(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            self.outputs[name] = _Given.of(output)

        return after


def mlp_of(handle: ModelHandle, layer: int) -> tuple[str, ...]:
    """Name of a block's MLP; none where that is no module of its own (opt)."""
    mlp = _parts(handle, layer)[1]
    return () if mlp == handle.block(layer) else (mlp,)


def down_projection(handle: ModelHandle, layer: int) -> str:
    """Name of the down-projection of a block's MLP."""
    return _parts(handle, layer)[2]


def _parts(handle: ModelHandle, layer: int) -> tuple[str, str, str]:
    """Names of a block's attention, its MLP and the down-projection in it."""
    block = handle.block(layer)
    (projection,), (attention,) = (handle.architecture.modules(p, layer) for p in (Part.MLP_OUT, Part.ATTENTION_OUT))
    inner = attention.removeprefix(f"{block}.").partition(".")[0]
    return f"{block}.{inner}", projection.rpartition(".")[0], projection


def _layer_of(handle: ModelHandle, name: str) -> int | None:
    """The block that a parameter is in; None outside of all of them."""
    head, _, tail = handle.architecture.block.partition("{}")
    number = name.removeprefix(head).partition(".")[0]
    inside = name.startswith(head) and number.isdigit() and name.startswith(f"{head}{number}{tail}.")
    return int(number) if inside else None
