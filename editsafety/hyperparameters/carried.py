"""Numbers for a model that nobody has published any for: carried over from the nearest model that has some.

Near is, in this order: the same family; the same kind of MLP (gated or not); a similar depth; a similar size. Layer
numbers are moved by relative depth, l to round(l * (n - 1) / (N - 1)), where several fall together to as many around
there; names of projections that the family does not have become the part of the block that they are, data sets that
would have to be fetched become those that ship, and every other number is as published. It is a beginning and no
calibration, and whoever is shown a result is told so. The models with published numbers are those of
`hparams/models.yaml`; the pocket models are not among them: their numbers suit a model of 3 million weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import log
from statistics import fmean
from typing import Any

from editsafety import hyperparameters, yaml_files
from editsafety.hyperparameters import Hparams
from editsafety.model.architectures import ROWS, Architecture, Part
from editsafety.shipped import shipped


@dataclass(frozen=True, slots=True)
class Build:
    """How a model is built, as far as another model's numbers may suit it."""

    # As transformers' configs name it (`model_type`).
    family: str
    # Decoder blocks.
    layers: int
    # Weights, tied ones once.
    parameters: int


@dataclass(frozen=True, slots=True)
class CarriedFrom:
    """Where carried-over numbers come from, and which of them are not as published."""

    # The model that they were published for.
    model: str
    # The shipped file, below hparams/.
    file: str
    # Decoder blocks of that model, and of this one.
    layers: tuple[int, int]
    # The numbers that were moved, as published and as used here, by name.
    moved: Mapping[str, tuple[Any, Any]]

    @property
    def sentence(self) -> str:
        """`those of llama-2-7b (rome/llama-2-7b.yaml), layers [5] of 32 as [5] of 30`."""
        there, here = self.layers
        told = []
        for name, (old, new) in self.moved.items():
            words = any(
                isinstance(one, str) for one in (new if isinstance(new, list) else [new])
            )  # of projections, data
            depths = ("", "") if words else (f" of {there}", f" of {here}")
            told.append(f"{name} {_told(old)}{depths[0]} as {_told(new)}{depths[1]}")
        return ", ".join([f"those of {self.model} ({self.file})", *told])

    def announce(self, editor: str, model: str) -> str:
        """What is said before an editor uses such numbers on a model."""
        return f"{editor}: no numbers ship for {model}, so they are {self.sentence}; --hparams takes others"


@dataclass(frozen=True, slots=True)
class Carried:
    """Another model's numbers, fitted to this one."""

    # By name, to be validated as any.
    values: Mapping[str, Any]
    # Where they come from.
    origin: CarriedFrom


def carry_over(kind: type[Hparams], folder: str, slug: str, build: Build | None) -> Carried | None:
    """The numbers of an editor's folder for a model of this build that has none there under the name `slug`.

    None where the model has numbers of its own, where nothing is known of how it is built, and where the folder holds
    no published numbers.
    """
    if build is None or hyperparameters.find(folder, slug) is not None:
        return None
    places = {name: path for name in published() if (path := hyperparameters.find(folder, name)) is not None}
    if not places:
        return None
    model = min(places, key=lambda name: _distance(published()[name], build))
    there, path = published()[model], places[model]
    values = hyperparameters.read(path)
    moved = {name: _moved(values[name], there.layers, build.layers) for name in kind.layer_numbers if values.get(name)}
    names = {name: _renamed(values[name], there, build) for name in kind.projection_names if values.get(name)}
    moved |= {name: new for name, new in {**names, **kind.shipped_data}.items() if new != values[name]}
    changed = {name: (values[name], new) for name, new in moved.items()}
    file = f"{path.parent.name}/{path.name}"
    return Carried({**values, **moved}, CarriedFrom(model, file, (there.layers, build.layers), changed))


@cache
def published() -> Mapping[str, Build]:
    """The models that numbers are published for, by name."""
    rows = yaml_files.read(shipped("hparams") / "models.yaml", "hparams/models.yaml")
    return {name: Build(**row) for name, row in rows.items()}


def _distance(there: Build, here: Build) -> tuple[bool, bool, float, float]:
    """How far one model is from another: what counts most comes first."""
    depth, size = log(there.layers / here.layers), log(there.parameters / here.parameters)
    return there.family != here.family, _is_gated(there) != _is_gated(here), abs(depth), abs(size)


def _row(build: Build) -> Architecture | None:
    return next((row for row in ROWS if row.model_type == build.family), None)


def _is_gated(build: Build) -> bool:
    row = _row(build)
    return row is not None and row.is_gated


def _moved(layers: Any, there: int, here: int) -> Any:
    """Layer numbers (one, or a list) at the same relative depth; what falls together is spread around where it falls.

    An editor that shares a change out among five layers makes another change in four. Of a model with fewer layers
    than that, what falls together is there once.
    """
    if not isinstance(layers, list):
        return round(layers * (here - 1) / (there - 1))
    own = sorted(set(layers))
    moved = [_moved(layer, there, here) for layer in own]
    if len(set(moved)) < len(own) <= here:
        moved = _spread([layer * (here - 1) / (there - 1) for layer in own], here)
    places = dict(zip(own, moved, strict=True))
    return list(dict.fromkeys(places[layer] for layer in layers))


def _spread(depths: Sequence[float], here: int) -> list[int]:
    """Layers of a model of `here`, each once, as near to these depths (in order) as least squares brings them.

    Each depth less its place in the list has to be no smaller than the one before: where it is, neighbours are pooled.
    """
    pools: list[list[float]] = []
    for place, depth in enumerate(depths):
        pools.append([depth - place])
        while len(pools) > 1 and fmean(pools[-2]) > fmean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    starts = [round(fmean(pool)) for pool in pools for _ in pool]
    last = here - len(depths)  # the rest has to fit behind
    return [min(max(start, 0), last) + place for place, start in enumerate(starts)]


def _renamed(names: list[str], there: Build, here: Build) -> list[str]:
    """Names of projections; one that only the other family has becomes the part of the block that it is."""
    theirs, ours = _row(there), _row(here)
    if theirs is None or ours is None:
        return names
    parts = {_last(module): part.value for part in Part for module in theirs.projections(part)}
    own = {_last(module) for part in Part for module in ours.projections(part)}
    return list(dict.fromkeys(name if _last(name) in own else parts.get(_last(name), name) for name in names))


def _last(module: str) -> str:
    return module.rpartition(".")[2]


def _told(value: Any) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)
