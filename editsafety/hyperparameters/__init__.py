"""Hyperparameters: one YAML file per editor and model, holding the method's numbers only, each with its source.

No module paths (architectures know them), no devices (options know them). Unknown keys are refused with the known ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from editsafety import yaml_files
from editsafety.errors import UsageError
from editsafety.shipped import shipped


@dataclass(frozen=True)
class Published:
    """How an editor's published configurations (EasyEdit's, ROME's) differ from its own; see `published`."""

    # Keys that are not read here, with the reason.
    aside: Mapping[str, str] = field(default_factory=dict)
    # The values of a key that come to what is done here anyway; any other is refused.
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    # Published names of our fields; "" for a name that means another number there.
    renamed: Mapping[str, str] = field(default_factory=dict)
    # What the configurations mean by saying nothing.
    implied: Mapping[str, Any] = field(default_factory=dict)
    # Keys that would change the edit and cannot be honoured whatever they say, with the reason.
    refused: Mapping[str, str] = field(default_factory=dict)
    # Whether the configurations leave numbers to something else (a trained network, the script that is run): these are
    # then the shipped ones, for the model at hand, for the model that the file names, or else those for `like`.
    completed: bool = False
    like: str = ""
    # Is given all values before anything else and returns them in our terms; may raise ValueError(sentence).
    convert: Callable[[dict[str, Any]], dict[str, Any]] | None = None


class Hparams(BaseModel):
    """Base of every editor's hyperparameters: frozen, nothing unknown and no NaN or infinity accepted."""

    published: ClassVar[Published] = Published()
    # Numbers that a user's file may hold alone: the others are then those that ship (regularisers).
    on_top: ClassVar[frozenset[str]] = frozenset()
    # Whether a user's file is handed through as it is, whoever's it is.
    unread: ClassVar[bool] = False
    # Which numbers count decoder blocks from below, and which name projections: what is moved when another model's are
    # carried over (`carried`).
    layer_numbers: ClassVar[tuple[str, ...]] = ()
    projection_names: ClassVar[tuple[str, ...]] = ()
    # What stands, in numbers that are carried over, in the place of data sets that would have to be fetched.
    shipped_data: ClassVar[Mapping[str, Any]] = {}
    # The numbers that depend on the model beside the first of `layer_numbers`, in the order in which a calibration
    # seeks them, and the factors by which it tries each; or why single edits cannot tell what they are worth.
    sought: ClassVar[Mapping[str, tuple[float, ...]]] = {}
    unsought: ClassVar[str] = ""

    @model_validator(mode="before")
    @classmethod
    def _listed(cls, values: Any) -> Any:
        """One number or word needs no brackets where several may stand."""
        lists = {name for name, one in cls.model_fields.items() if get_origin(one.annotation) is tuple}
        return {
            name: (value,)
            if name in lists and isinstance(value, str | int | float) and not isinstance(value, bool)
            else value
            for name, value in values.items()
        }

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


H = TypeVar("H", bound=Hparams)


def read(path: Path) -> dict[str, Any]:
    """The numbers in a YAML or JSON file, without the list of models it is for. Raises UsageError."""
    values = _mapping(path)
    values.pop("models", None)
    return values


def _mapping(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UsageError(f"{path}: there is no such hyperparameter file.")
    values = yaml_files.read(path, str(path), twins=True)  # published files are read as they are
    if not isinstance(values, dict):
        raise UsageError(f"{path}: expected 'name: number' lines, found {type(values).__name__}.")
    return {str(key): value for key, value in values.items()}


def validate(kind: type[H], values: Mapping[str, Any], source: str) -> H:
    """Check values against an editor's hyperparameters. Raises UsageError naming key, value and known keys."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        # A key that is not known comes first: it may be the one that is missing, misspelt.
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in first["loc"])
        known = ", ".join(sorted(kind.model_fields))
        if first["type"] == "extra_forbidden":
            raise UsageError(f"{source}: unknown hyperparameter {key!r}. Known: {known}.") from error
        if first["type"] == "missing":
            raise UsageError(f"{source}: hyperparameter {key!r} is missing. Needed and known: {known}.") from error
        said = first["msg"].lower().replace("tuple", "list")
        raise UsageError(f"{source}: {key} = {first['input']!r}: {said}.") from error


def find(folder: str, slug: str) -> Path | None:
    """The shipped file of an editor's folder for a model: by file name, or by the list `models` inside."""
    place = shipped("hparams") / folder
    exact = place / f"{slug}.yaml"
    if exact.is_file():
        return exact
    for path in sorted(place.glob("*.yaml")):
        if slug in [str(name).lower() for name in _mapping(path).get("models") or []]:
            return path
    return None


def load(
    kind: type[H],
    editor: str,
    folder: str,
    slug: str,
    path: Path | None = None,
    values: Mapping[str, Any] | None = None,
    carried: Mapping[str, Any] | None = None,
) -> H:
    """Hyperparameters of `editor` for a model: from `path` when given, else those that ship for the model, else those
    `carried` over from another one (see `carried`), else the defaults.

    `values` is what `path` says where that has been read already. A file that holds nothing but numbers of
    `kind.on_top` lies on top of those that would be used without it. Raises UsageError when there are none and the
    editor has a number without a default.
    """
    ours = find(folder, slug)
    usual = carried if ours is None else read(ours)
    if path is not None:
        values = read(path) if values is None else values
        if values.keys() <= kind.on_top and usual is not None:
            values = {**usual, **values}
        return validate(kind, values, str(path))
    if usual is not None:
        return validate(kind, usual, f"numbers of {folder} carried over to {slug}" if ours is None else ours.name)
    needed = [name for name, one in kind.model_fields.items() if one.is_required()]
    if needed:
        have = ", ".join(sorted(p.stem for p in (shipped("hparams") / folder).glob("*.yaml"))) or "none"
        raise UsageError(
            f"no hyperparameters of {editor} for {slug} (shipped are those for: {have}), and none that could be "
            f"carried over to it. Give --hparams FILE with a line for {', '.join(needed)}."
        )
    return kind()
