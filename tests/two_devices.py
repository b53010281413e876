"""Two devices on a machine that has none: tensors that live in main memory and say that they are elsewhere.

    with pretended():
        handle = spread(tiny.model("gpt2", tied=False))   # block 0 on lazy:0, the others on lazy:1
        handle.logits(...)                                 # computed as on the CPU, but for the choice of kernels

As on cards, what meets in one operation has to be on one device: a tensor that was not brought there raises, with the
operation's name. Numbers without dimensions, and indices on the CPU, may be used anywhere, as torch allows for cards.
`lazy` is a device type that torch knows by name and differentiates in the calling thread, and has no kernels for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import dispatch_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from editsafety.model import placement
from editsafety.model.handle import ModelHandle
from tests import tiny

PRETENDED = "lazy"
# Their indices may be on the CPU.
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")
# They copy from device to device.
MOVING = ("_to_copy", "copy_", "copy")


class Elsewhere(Tensor):
    """A tensor in main memory that says it is on a pretended device."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor, device: torch.device, requires_grad: bool = False) -> Any:
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, here.shape, strides=here.stride(), storage_offset=here.storage_offset(), dtype=here.dtype,
            device=device, requires_grad=requires_grad,
        )  # fmt: skip
        made.here = here
        return made

    def __init__(self, here: Tensor, device: torch.device, requires_grad: bool = False) -> None:
        pass

    def data_ptr(self) -> int:
        return self.here.data_ptr()

    def untyped_storage(self) -> Any:
        return self.here.untyped_storage()

    def tolist(self) -> Any:
        return self.here.tolist()

    def new_tensor(self, data: Any, **more: Any) -> Any:
        return torch.tensor(data, dtype=more.get("dtype", self.dtype), device=self.device)

    def __deepcopy__(self, memo: Any) -> Any:
        return type(self)(self.here.clone(), self.device, self.requires_grad)

    @property
    def data(self) -> Any:
        return Elsewhere(self.here, self.device)

    @data.setter
    def data(self, value: Tensor) -> None:
        assert isinstance(value, Elsewhere), f"{value.device} is put in place of {self.device}"
        assert value.device == self.device, f"{value.device} is put in place of {self.device}"
        self.here = value.here

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with Pretending():
            return func(*args, **(kwargs or {}))

    __torch_function__ = torch._C._disabled_torch_function_impl


class Pretending(TorchDispatchMode):
    """Runs every operation in main memory, and refuses those whose tensors are on two devices."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        asked = kwargs.get("device")
        if asked is not None and torch.device(asked).type == PRETENDED:
            kwargs["device"] = torch.device("cpu")
        flat, shape = tree_flatten((args, kwargs))
        tensors = [one for one in flat if isinstance(one, Tensor)]
        place = torch.device(asked) if asked is not None else _common(name, tensors)
        given = tree_unflatten([one.here if isinstance(one, Elsewhere) else one for one in flat], shape)
        result = func(*given[0], **given[1])
        own = {id(one.here): one for one in tensors if isinstance(one, Elsewhere)}

        def outside(one: Any) -> Any:
            if not isinstance(one, Tensor) or place.type != PRETENDED:
                return one
            return own.get(id(one)) if id(one) in own else Elsewhere(one, place)

        return tree_map(outside, result)


def _common(name: str, tensors: Sequence[Tensor]) -> torch.device:
    """The device of an operation. Raises RuntimeError for tensors that were not brought together."""
    if name in MOVING:
        return tensors[0].device if tensors else torch.device("cpu")
    counted = [one for one in tensors if one.ndim or one.device.type == PRETENDED]
    if name in INDEXING:
        counted = [tensors[0], *(one for one in tensors[1:] if one.device.type == PRETENDED)]
    found = {one.device for one in counted}
    wide = {one.device for one in counted if one.ndim}
    if len(found) > 1 and len(wide) > 1:
        raise RuntimeError(f"{name}: tensors on two devices, {' and '.join(sorted(map(str, found)))}")
    away = [device for device in (*wide, *found) if device.type == PRETENDED] or [*found]
    return away[0] if away else torch.device("cpu")


@contextmanager
def pretended() -> Iterator[None]:
    """Inside the block there are devices lazy:0, lazy:1 and so on."""
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # what is made of a Python list is brought to its device by an operation
    try:
        with Pretending():
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(before)


def places_of(model: nn.Module, first: str, then: str) -> dict[str, str]:
    """A device map: embeddings and the first block on one device, all later blocks and the head on another."""
    places: dict[str, str] = {}
    for name, module in model.named_modules():
        number = name.rpartition(".")[2]
        inside = any(name.startswith(f"{known}.") for known in places)
        if name and not inside and (number.isdigit() or not list(module.children())):
            early = number == "0" or isinstance(module, nn.Embedding)
            places[name] = first if early else then
    return places


def spread(model: Any, name: str = "two", **more: Any) -> ModelHandle:
    """The model on two pretended devices, with accelerate's hooks; inside of `pretended` only."""
    placement.dispatch(model, places_of(model, "lazy:0", "lazy:1"))
    return ModelHandle.of(model, tiny.tokenizer(), name=name, **more)


def hooked(model: Any, name: str = "hooked") -> ModelHandle:
    """The model on the CPU, with the hooks that accelerate gives to models on several devices."""
    skipped = sorted(model._skip_keys_device_placement)
    dispatch_model(model, places_of(model, "cpu", "cpu"), skip_keys=skipped, force_hooks=True)
    return ModelHandle.of(model, tiny.tokenizer(), name=name)
