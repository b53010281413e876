"""Edit: the change that an editor wants, as data.

An edit holds low-rank deltas (`W += left @ right`), replaced parameters, or sidecars (modules that run after another
one, weights untouched). It can be saved, loaded, applied by a session, and undone; editors keep no state, what the next
edit of a sequence needs travels in `carry`.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from editsafety import tensor_files
from editsafety.edits.description import EditDescription, LowRankRow, SidecarRow
from editsafety.edits.soundness import refuse_members, refuse_named, refuse_no_numbers
from editsafety.errors import EditError, EditSafetyError
from editsafety.model.sites import Layout, Site


@dataclass(frozen=True, eq=False)
class LowRank:
    """`W += left @ right` with W seen as `[d_out, d_in]`; left `[d_out, r]`, right `[r, d_in]`."""

    site: Site
    left: Tensor
    right: Tensor

    def __post_init__(self) -> None:
        for side, factor in (("left", self.left), ("right", self.right)):
            refuse_no_numbers(f"delta for {self.site.module}: {side}", factor)
        left, right = tuple(self.left.shape), tuple(self.right.shape)
        fits = len(left) == len(right) == 2 and left[0] == self.site.d_out and right[1] == self.site.d_in
        if not fits or left[1] != right[0] or not left[1]:
            raise EditError(
                f"delta for {self.site.module}: left {list(left)} and right {list(right)} do not make "
                f"[{self.site.d_out}, {self.site.d_in}] (d_out, d_in). Was this edit made for another model?"
            )

    @property
    def parameter(self) -> str:
        """The name of the parameter that changes."""
        return self.site.parameter

    def matrix(self) -> Tensor:
        """The whole delta, `[d_out, d_in]`, in float32 or wider."""
        wide = torch.promote_types(torch.promote_types(self.left.dtype, self.right.dtype), torch.float32)
        return self.left.detach().to(wide) @ self.right.detach().to(wide)

    def on(self, weight: Tensor) -> Tensor:
        """The changed weight as the module stores it, of the same dtype and device.

        Multiplied and summed where the weight is, in float32 or wider, then rounded once: an edit read from a file
        gives the same bits as the edit that was saved.
        """
        wide = torch.float32
        for tensor in (weight, self.left, self.right):
            wide = torch.promote_types(wide, tensor.dtype)
        left, right = (factor.detach().to(device=weight.device, dtype=wide) for factor in (self.left, self.right))
        return (weight.to(wide) + self.site.stored(left @ right)).to(weight.dtype)


@dataclass(frozen=True, eq=False)
class Replace:
    """`parameter := value`, bit for bit, in the stored layout (fine-tuning, KN)."""

    parameter: str
    value: Tensor

    def __post_init__(self) -> None:
        refuse_no_numbers(f"new value for {self.parameter}", self.value)

    def refuse_unlike(self, weight: Tensor) -> None:
        """Raise EditError for a parameter of another shape."""
        if self.value.shape != weight.shape:
            raise EditError(
                f"new value for {self.parameter} is {list(self.value.shape)}; that parameter is "
                f"{list(weight.shape)} here. Was this edit made for another model?"
            )

    def on(self, weight: Tensor) -> Tensor:
        """A copy of the new value, on the device and in the dtype of the old one."""
        self.refuse_unlike(weight)
        return self.value.detach().to(device=weight.device, dtype=weight.dtype, copy=True)


Delta = LowRank | Replace


class Sidecar(ABC):
    """Something that runs around module `target` and may change its input and its output; no weight is touched.

    `target` "" is the whole model. Of several sidecars on one module the last to be applied is the outermost.
    """

    kind: ClassVar[str]
    target: str

    def before(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The input to use instead (torch forward-pre-hook semantics); a sidecar that has none does not override it."""
        return args, kwargs

    @abstractmethod
    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
        """The output to use instead of `output` (torch forward-hook semantics)."""

    @abstractmethod
    def tensors(self) -> Mapping[str, Tensor]:
        """Everything to be saved."""

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """JSON values to be saved beside the tensors."""

    @classmethod
    @abstractmethod
    def rebuild(cls, target: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        """The inverse of `tensors` and `settings`."""


@dataclass(frozen=True, eq=False)
class Edit:
    """What an editor returns."""

    # Its name.
    editor: str
    # Of the facts that it writes.
    request_ids: tuple[str, ...]
    # The fingerprint of the unedited model.
    made_for: str
    # Changes of weights.
    deltas: tuple[Delta, ...] = ()
    # What runs beside the model.
    sidecars: tuple[Sidecar, ...] = ()
    # The edits that were in place when it was computed.
    on_top_of: tuple[str, ...] = ()
    # What the editor says about itself, by name.
    notes: Mapping[str, float | str | bool] = field(default_factory=dict)
    # What the next edit of a sequence is given.
    carry: Mapping[str, Tensor] | None = None

    def __post_init__(self) -> None:
        # It comes from somebody else's code: said here, where that is at work, and not by whoever reads it later.
        refuse_members("deltas", self.deltas, LowRank, Replace)
        refuse_members("sidecars", self.sidecars, Sidecar)
        refuse_members("request_ids", self.request_ids, str)
        refuse_named("notes", self.notes)
        refuse_named("carry", {} if self.carry is None else self.carry, Tensor)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters that this edit declares to change, sorted."""
        return tuple(sorted({delta.parameter for delta in self.deltas}))

    @property
    def id(self) -> str:
        """sha256 over what the edit does, so that equal ids mean an equal effect."""
        tensors, about = self._parts()
        body = json.dumps([about["deltas"], about["sidecars"], self.made_for], sort_keys=True)
        prints = "".join(f"{name}{tensor_files.digest(tensor)}" for name, tensor in sorted(tensors.items()))
        return hashlib.sha256((body + prints).encode()).hexdigest()

    def tensors(self) -> Mapping[str, Tensor]:
        """Every tensor of its deltas and sidecars, by the name that it has in a file."""
        return self._parts()[0]

    def save(self, path: Path) -> None:
        """Write the edit as safetensors with a sha256 per tensor. `carry` is not included."""
        tensors, about = self._parts()
        tensor_files.save(path, tensors, about)

    @classmethod
    def load(
        cls,
        path: Path,
        sidecars: Mapping[str, type[Sidecar]] | None = None,
        place: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor,
    ) -> Self:
        """Read a saved edit; `sidecars` maps the kinds that may occur to their classes.

        `place` is given every tensor with its name and may bring it elsewhere: a file keeps neither device nor memory
        layout. Raises EditError when the file is truncated, altered, not an edit, or holds an unknown sidecar.
        """
        try:
            tensors, about = tensor_files.load(path)
        except EditSafetyError as error:
            raise EditError(str(error)) from error
        if about.get("what") != "edit":
            raise EditError(f"{path}: holds {about.get('what', 'something else')!r}, expected an edit.")
        try:
            described = EditDescription.read(about, tensors)
            placed = {name: place(name, tensor) for name, tensor in tensors.items()}
            return cls._read(placed, described, sidecars or {})
        except EditError as error:
            raise EditError(f"{path}: {error}") from error
        except KeyError as error:  # of whoever places tensors
            raise EditError(f"{path}: holds a tensor {error} that was not expected.") from error

    @classmethod
    def _read(
        cls, tensors: Mapping[str, Tensor], described: EditDescription, known: Mapping[str, type[Sidecar]]
    ) -> Self:
        deltas: list[Delta] = []
        for i, row in enumerate(described.deltas):
            if isinstance(row, LowRankRow):
                site = Site(row.module, Layout(row.layout), row.d_out, row.d_in)
                deltas.append(LowRank(site, tensors[f"{i}.left"], tensors[f"{i}.right"]))
            else:
                deltas.append(Replace(row.parameter, tensors[f"{i}.value"]))
        return cls(
            editor=described.editor,
            request_ids=tuple(described.requests),
            made_for=described.made_for,
            deltas=tuple(deltas),
            sidecars=tuple(_rebuild(i, row, tensors, known) for i, row in enumerate(described.sidecars)),
            on_top_of=tuple(described.on_top_of),
            notes=described.notes,
        )

    def _parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors: dict[str, Tensor] = {}
        rows: list[dict[str, Any]] = []
        for i, delta in enumerate(self.deltas):
            if isinstance(delta, LowRank):
                tensors[f"{i}.left"], tensors[f"{i}.right"] = delta.left, delta.right
                site = delta.site
                shape = {"d_out": site.d_out, "d_in": site.d_in}
                rows.append({"kind": "low_rank", "module": site.module, "layout": site.layout.value, **shape})
            else:
                tensors[f"{i}.value"] = delta.value
                rows.append({"kind": "replace", "parameter": delta.parameter})
        cars: list[dict[str, Any]] = []
        for i, car in enumerate(self.sidecars):
            tensors.update({f"sidecar{i}.{name}": tensor for name, tensor in car.tensors().items()})
            cars.append({"kind": car.kind, "target": car.target, "settings": dict(car.settings())})
        about = {
            "what": "edit",
            "editor": self.editor,
            "requests": list(self.request_ids),
            "made_for": self.made_for,
            "on_top_of": list(self.on_top_of),
            "deltas": rows,
            "sidecars": cars,
            "notes": {key: _finite(value) for key, value in self.notes.items()},
        }
        return tensors, about


def nothing(editor: str, request_ids: Sequence[str], made_for: str) -> Edit:
    """An edit that changes nothing."""
    return Edit(editor, tuple(request_ids), made_for)


def _rebuild(i: int, row: SidecarRow, tensors: Mapping[str, Tensor], known: Mapping[str, type[Sidecar]]) -> Sidecar:
    if row.kind not in known:
        raise EditError(
            f"needs the sidecar {row.kind!r}, known here: {', '.join(sorted(known)) or 'none'}. "
            "Load it with the editor that made it."
        )
    head = f"sidecar{i}."
    own = {name.removeprefix(head): tensor for name, tensor in tensors.items() if name.startswith(head)}
    try:
        return known[row.kind].rebuild(row.target, own, row.settings)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # Its class reads a description that it may not have written.
        raise EditError(f"sidecar {i} ({row.kind}) does not fit its class: {type(error).__name__}: {error}.") from error


def _finite(value: float | str | bool) -> float | str | bool:
    """JSON has no NaN: a number that is not finite is written as its name."""
    return str(value) if isinstance(value, float) and value - value != 0.0 else value
