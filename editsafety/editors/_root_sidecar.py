"""What IKE and SERAC have in common: a sidecar around the whole model, which reads what the model is asked.

The sidecar of the second edit of a sequence holds everything that the first one held, while the first one's hooks are
still on the model. So sidecars carry a lineage, and of one lineage only the last to be applied acts.

A model may be asked a text at once, or token by token behind a cache of keys and values. What a sidecar has to know of
the tokens in a cache it keeps beside that cache, as long as the cache lives; a cache that it has not seen filled is
refused, because nobody could say what is in it.
"""

from __future__ import annotations

import inspect
import weakref
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from editsafety.edits.edit import Sidecar
from editsafety.errors import EditError
from editsafety.model import kv_cache

Memory = TypeVar("Memory")


@dataclass(frozen=True, eq=False)
class Asked:
    """One call of a model: its arguments by name, the new ids `[batch, seq]`, and how many tokens are in the cache."""

    by_name: dict[str, Any]
    ids: Tensor
    seen: int

    @property
    def mask(self) -> Tensor | None:
        """The attention mask over cache and new ids together, `[batch, seen + seq]`; None when there is none."""
        found: Tensor | None = self.by_name.get("attention_mask")
        return found

    @classmethod
    def of(cls, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], who: str) -> Asked:
        """Read a call. Raises EditError for one that has no plain token ids, or hands over what cannot be followed."""
        by_name = {**dict(zip(inspect.signature(module.forward).parameters, args, strict=False)), **kwargs}
        ids, mask, cache = by_name.get("input_ids"), by_name.get("attention_mask"), kv_cache.given(by_name)
        if not isinstance(ids, Tensor) or ids.ndim != 2:
            raise EditError(f"{who} reads token ids; call the model with input_ids [batch, seq], not with embeddings.")
        if mask is not None and not (isinstance(mask, Tensor) and mask.ndim == 2):
            raise EditError(f"{who} needs an attention mask [batch, seq] of ones and zeros, or none.")
        if cache is not None and not hasattr(cache, "get_seq_length"):
            raise EditError(f"{who} cannot read a cache of type {type(cache).__name__}; use transformers' Cache.")
        if by_name.get("return_dict") is False:
            raise EditError(f"{who} needs the model's output by name; leave return_dict=False out.")
        return cls(by_name, ids, 0 if cache is None else int(cache.get_seq_length()))


@dataclass(eq=False)
class RootSidecar(Sidecar, Generic[Memory]):
    """A sidecar around the whole model; `Memory` is what it keeps of the tokens in a cache."""

    target: str
    lineage: int
    _behind: weakref.WeakKeyDictionary[Any, Memory] = field(
        default_factory=weakref.WeakKeyDictionary, init=False, repr=False
    )
    _open: tuple[Asked, Memory] | None = field(default=None, init=False, repr=False)

    def before(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The question as this sidecar puts it; as it came, where a later one of the lineage acts."""
        self._open = None
        if self._outranked(module):
            return args, kwargs
        asked = Asked.of(module, args, kwargs, self.kind)
        cache = kv_cache.given(asked.by_name)
        if asked.seen and cache not in self._behind:
            raise EditError(
                f"{self.kind} was given a cache of {asked.seen} tokens that was filled without it. Begin with an empty "
                "cache, inside the session that holds the edit."
            )
        by_name, memory = self.asks(asked, self._behind[cache] if asked.seen else None)
        self._open = asked, memory
        return (), by_name

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
        """The answer as this sidecar gives it."""
        if self._open is None:
            return output
        (asked, memory), self._open = self._open, None
        cache = kv_cache.returned(output)
        if cache is not None:
            self._behind[cache] = memory
        self.answers(module, asked, memory, output)
        return output

    @abstractmethod
    def asks(self, asked: Asked, memory: Memory | None) -> tuple[dict[str, Any], Memory]:
        """The arguments to call the model with, and what to remember of cache and new ids together.

        `memory` is what was remembered of the tokens in the cache, None when there are none.
        """

    @abstractmethod
    def answers(self, module: nn.Module, asked: Asked, memory: Memory, output: Any) -> None:
        """Put into `output` (fresh from the model, fields by name) what the edited model says."""

    def _outranked(self, module: nn.Module) -> bool:
        riders = [getattr(hook, "__self__", None) for hook in module._forward_hooks.values()]
        own = [car for car in riders if type(car) is type(self) and car.lineage == self.lineage]
        return bool(own) and own[-1] is not self


def leading(mask: Tensor | None, ids: Tensor) -> Tensor:
    """How many columns of padding every row begins with, `[batch]`."""
    if mask is None:
        return torch.zeros(len(ids), dtype=torch.long, device=ids.device)
    return (mask.to(ids.device)[:, : ids.shape[1]].cumsum(1) == 0).sum(1)
