"""What GRACE and WISE have in common: one projection of one layer, and a sidecar that goes on growing.

The sidecar of the second edit of a sequence holds everything that the first one held, while the first one's hook is
still on the module. So sidecars carry a lineage, and of one lineage only the last to be applied speaks.

Whatever a sidecar decides, it decides token by token, from that token's own input: in a causal model this input is
already a summary of everything before it. Nothing then depends on the other rows of a batch, on padding, or on whether
a text is run at once or token by token behind a cache of keys and values.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from editsafety.datasets.request import EditRequest
from editsafety.editors import Editor
from editsafety.errors import EditorError
from editsafety.hyperparameters import Hparams
from editsafety.model.architectures import Part
from editsafety.model.sites import Site


class SidecarHparams(Hparams):
    """Where the sidecar is: behind the MLP's up-projection (`mlp_in`) or down-projection (`mlp_out`) of a layer."""

    layer: int = Field(ge=0)
    part: Literal["mlp_in", "mlp_out"]

    layer_numbers: ClassVar[tuple[str, ...]] = ("layer",)


class SidecarEditor(Editor):
    """An editor whose edits are a sidecar behind one projection."""

    hparams: SidecarHparams

    @cached_property
    def site(self) -> Site:
        """The projection. Raises EditorError where the part consists of several (gate and up in Llama)."""
        settings = self.hparams
        sites = self.handle.sites(Part(settings.part), settings.layer)
        if len(sites) > 1:
            names = ", ".join(site.module for site in sites)
            raise EditorError(
                f"{self.name} runs behind one projection, but {settings.part} of layer {settings.layer} of "
                f"{self.handle.name} has {len(sites)}: {names}. Set part to mlp_out."
            )
        return sites[0]

    def new_lineage(self, first: EditRequest) -> Tensor:
        """The number `[]` that a sequence beginning with `first` is known by."""
        return torch.randint(2**62, (), generator=self.generator(first))

    def expect_shapes(self, found: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> None:
        """Check the last dimensions of what a sequence carries. Raises EditorError for those of another site."""
        for name, shape in wanted.items():
            if tuple(found[name].shape[-len(shape) :]) != shape:
                raise EditorError(
                    f"{self.name} was given a carry whose {name} are {list(found[name].shape)}; for {self.site.module} "
                    f"they end in {list(shape)}. Carry on with the layer and part that the sequence began with."
                )


class Voice:
    """What runs behind a projection and falls silent when a later one of its `lineage` is there."""

    target: str
    lineage: int

    @abstractmethod
    def speak(self, received: Tensor, output: Tensor) -> Tensor:
        """The output to use, `[..., d_out]`, for the module's input `[..., d_in]` and its output so far."""

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
        """What this one says; `output` itself where a later one of the lineage was applied."""
        riders = [getattr(hook, "__self__", None) for hook in module._forward_hooks.values()]
        own = [rider for rider in riders if isinstance(rider, Voice) and rider.lineage == self.lineage]
        received = args[0] if args else next(iter(kwargs.values()))
        return self.speak(received, output) if not own or own[-1] is self else output


@contextmanager
def riding(model: nn.Module, voice: Voice) -> Iterator[None]:
    """Inside the block `voice` runs behind its target, and those of its lineage that were there before are silent."""
    hook = model.get_submodule(voice.target).register_forward_hook(voice.after, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
