"""Editors: one method per file. A file here, an entry point in group `editsafety.editors`, `path.py:Class`, or
`path.py:function` for a method as its authors wrote it (`_function`); `command: ...` for a program (`outside`).

Around any of them may stand regularisers: `rect(memit)` is an editor too (see `editsafety.regularisers`). An editor
turns requests into an Edit and keeps no state. Its file ends in `EDITOR = TheClass`.
"""

from __future__ import annotations

import hashlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from editsafety import discovery, hyperparameters
from editsafety.artifacts import ArtifactStore
from editsafety.datasets.request import EditRequest
from editsafety.edits.edit import Edit, Sidecar
from editsafety.errors import EditorError, UsageError
from editsafety.hyperparameters import Hparams, published
from editsafety.hyperparameters.carried import Build, Carried, CarriedFrom, carry_over
from editsafety.model.handle import ModelHandle
from editsafety.names import label, parts, unwrapped
from editsafety.progress import Progress
from editsafety.source_files import sources_of


@dataclass(frozen=True)
class Traits:
    """What a method can do and where it comes from."""

    # Whether one edit may write several facts together.
    batch: bool = False
    # Whether edits may be made on top of each other.
    sequential: bool = True
    # Where its edits are: in the weights, beside the model, or nowhere.
    changes: Literal["weights", "sidecar", "nothing"] = "weights"
    # Where the method was published.
    paper: str = ""
    # The code that it follows, with its commit.
    reference: str = ""


class Editor(ABC):
    """A method of model editing.

    `folder` is the name under `hparams/`; `overrides` are the numbers by which a registered variant differs. Drawing
    random numbers: only from `self.generator(request)`, seeded by run seed and request, so that results do not depend
    on the order of edits.
    """

    traits: ClassVar[Traits] = Traits()
    Hparams: ClassVar[type[Hparams]] = Hparams
    sidecars: ClassVar[Mapping[str, type[Sidecar]]] = {}
    folder: ClassVar[str] = ""
    overrides: ClassVar[Mapping[str, Any]] = {}
    # Seconds that the run gives a case (0: no limit), for an editor that waits for others; None: its own choice.
    patience: float | None = None

    def __init__(
        self, handle: ModelHandle, hparams: Any, artifacts: ArtifactStore, *, name: str, seed: int = 0
    ) -> None:
        self.handle = handle
        self.hparams = hparams
        self.artifacts = artifacts
        self.name = name
        self.seed = seed

    def missing(self) -> str | None:
        """What has to be prepared first, in words; None when the editor is ready."""
        return None

    def prepare(self, progress: Progress | None = None, corpus: Path | None = None) -> None:
        """Make what `missing` names: slow, data-hungry, idempotent. Never started from inside a test.

        `corpus` is a user's file of texts, or of published statistics; what is made from it is what `edit` then uses.
        """
        return

    @abstractmethod
    def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Edit:
        """The edit that writes `requests` into the model as it is now; the model is left as it was.

        Raises NotPreparedError when `prepare` has to run first, EditorError for requests that it does not take: none
        at all (`refuse_none`), several where it writes one fact at a time (`only`), or another number than the traits
        allow.
        """

    def only(self, requests: Sequence[EditRequest]) -> EditRequest:
        """The request of an editor that writes one fact per edit. Raises EditorError for none and for several."""
        self.refuse_none(requests)
        if len(requests) > 1:
            raise EditorError(
                f"{self.name} writes one fact per edit and was given {len(requests)} requests. "
                "Give them one after another."
            )
        return requests[0]

    def refuse_none(self, requests: Sequence[EditRequest]) -> None:
        """Raise EditorError when nothing is requested."""
        if not requests:
            raise EditorError(f"{self.name} was given no request to edit.")

    @classmethod
    def lineage(cls) -> tuple[type[Editor], ...]:
        """The classes that make this editor what it is; results belong to the code in their files."""
        return tuple(kind for kind in cls.__mro__ if issubclass(kind, Editor))

    @classmethod
    def sources(cls) -> tuple[Path, ...]:
        """Further files that make this editor what it is: those that it does not import but runs."""
        return ()

    def generator(self, request: EditRequest) -> torch.Generator:
        """Random numbers (CPU) for one request: the same in any order of edits."""
        digest = hashlib.sha256(f"{self.seed}:{request.digest()}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def names() -> list[str]:
    """Every editor that can be asked for by name; imports none."""
    return discovery.names("editors")


def load(name: str) -> type[Editor]:
    """The class behind a name, `path.py:Class`, or an expression: that of `rect(memit)` is made around MEMIT's.

    Raises UnknownNameError or UsageError.
    """
    discovery.expect_editor(name)
    outer, inner = unwrapped(name)
    if outer:
        return _around(outer, inner)
    kind = discovery.load("editors", inner)
    if callable(kind) and not isinstance(kind, type):
        from editsafety.editors import _function

        made: type[Editor] = _function.around(kind, name)
        return made
    if not (isinstance(kind, type) and issubclass(kind, Editor)):
        raise UsageError(
            f"{name!r} is {kind!r}, expected a subclass of editsafety.editors.Editor with an edit() method, or a "
            "function (model, tokenizer, requests) that changes the model."
        )
    return kind


def _around(outer: str, inner: str) -> type[Editor]:
    regulariser = discovery.load("regularisers", outer)
    if not (isinstance(regulariser, type) and issubclass(regulariser, Editor) and hasattr(regulariser, "around")):
        raise UsageError(f"{outer!r} is {regulariser!r}, expected a subclass of editsafety.regularisers.Regulariser.")
    inside = load(inner)
    kind: type[Editor] = regulariser.around(inside, inside.folder or label(inner))
    return kind


def read_hparams(
    name: str,
    slug: str,
    path: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    build: Build | None = None,
) -> Hparams:
    """Hyperparameters of an editor for a model, with the variant's overrides and then `changes` on top.

    With its `build`, a model that no numbers ship for gets those of the nearest one that has some. Raises UsageError
    for a file that contradicts an override: what it says is another variant.
    """
    kind = load(name)
    folder = kind.folder or label(name)
    read = _given(name, kind, path)
    read = read and published.complete(read, kind.Hparams, folder, slug)
    carried = _carried(name, slug, build)
    given = None if read is None else read.values
    others = None if carried is None else carried.values
    hparams = hyperparameters.load(kind.Hparams, label(name), folder, slug, path, given, others)
    for key, value in kind.overrides.items():
        if read is not None and key in read.values and getattr(hparams, key) != value:
            meant = [one for one in names() if _is_variant(one, folder, key, getattr(hparams, key))]
            raise UsageError(
                f"{path}: {key} = {getattr(hparams, key)!r}, but {label(name)} is the variant with {value!r}. "
                f"Drop the line, or ask for {' or '.join(meant) or 'the editor that it means'}."
            )
    both = {**kind.overrides, **(changes or {})}
    return (
        hyperparameters.validate(kind.Hparams, {**hparams.model_dump(), **both}, f"hyperparameters of {label(name)}")
        if both
        else hparams
    )


def _is_variant(name: str, folder: str, key: str, value: Any) -> bool:
    """Whether an editor is the member of its family that has this value."""
    kind = load(name)
    return kind.folder == folder and kind.overrides.get(key) == value


def carried_from(name: str, slug: str, path: Path | None, build: Build | None) -> CarriedFrom | None:
    """Where an editor's numbers for a model were carried over from; None where they are the model's own, or a user's.

    A user's file of a regulariser's numbers alone lies on top of the carried ones.
    """
    carried = _carried(name, slug, build)
    whole = path is not None and not hyperparameters.read(path).keys() <= load(name).Hparams.on_top
    return None if carried is None or whole else carried.origin


def _carried(name: str, slug: str, build: Build | None) -> Carried | None:
    kind = load(name)
    return carry_over(kind.Hparams, kind.folder or label(name), slug, build)


def build_of(handle: ModelHandle) -> Build:
    """How a model is built, as far as another model's numbers may suit it."""
    return Build(handle.kind, handle.layers, handle.parameters)


def set_aside(name: str, path: Path | None) -> tuple[str, ...]:
    """What a user's hyperparameter file says that is not read here: a line for each key, with the reason."""
    read = _given(name, load(name), path)
    return () if read is None else read.aside


def _given(name: str, kind: type[Editor], path: Path | None) -> published.PublishedValues | None:
    own = {label(parts(name)[1]), kind.folder or label(name)}
    if path is not None and kind.Hparams.unread:
        return published.PublishedValues(hyperparameters.read(path))
    return None if path is None else published.read(path, kind.Hparams, own)


def make(
    name: str,
    handle: ModelHandle,
    artifacts: ArtifactStore,
    *,
    path: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    seed: int = 0,
    patience: float | None = None,
) -> Editor:
    """An editor for a model, with its hyperparameters read and checked."""
    values = read_hparams(name, handle.name, path, changes, build_of(handle))
    made = load(name)(handle, values, artifacts, name=label(name), seed=seed)
    made.patience = patience
    return made


def code_version(name: str) -> str:
    """sha256 of the files that define an editor, its sidecars and their base classes, and of what editors share.

    Of a method that is a folder, all of its files.
    """
    kind = load(name)
    cars = [base for car in kind.sidecars.values() for base in car.__mro__ if issubclass(base, Sidecar)]
    files = {inspect.getsourcefile(one) for one in (*kind.lineage(), *cars)}
    if None in files:
        raise EditorError(f"the source of editor {name!r} cannot be found; results could not be told apart.")
    shared = {path for room in ("editing", "engine") for path in (Path(__file__).parent.parent / room).glob("*.py")}
    code = hashlib.sha256()
    own = {path for file in files for room in _room(Path(str(file))) for path in sources_of(room)}
    for path in sorted(own | shared | set(kind.sources())):
        code.update(path.name.encode() + path.read_bytes())
    return code.hexdigest()


def _room(file: Path) -> Iterable[Path]:
    """The files of a method: its folder where it has one, or the file alone (as that of a family's base class is)."""
    package = Path(__file__).parent.parent
    is_folder = file.name == "__init__.py" and file.parent.parent != package
    return file.parent.glob("*.py") if is_folder else (file,)
