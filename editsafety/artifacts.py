"""ArtifactStore: slow results on disk (covariances, context templates, trained parts), found by what made them."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editsafety import tensor_files
from editsafety.errors import EditSafetyError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ArtifactKey:
    """What an artifact is."""

    # Such as "covariance".
    kind: str
    # Of the model it was made from.
    fingerprint: str
    # Every setting that matters.
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def about(self) -> dict[str, Any]:
        """The key as JSON values, as they come back from a file (a tuple is a list there)."""
        body = {"kind": self.kind, "fingerprint": self.fingerprint, "settings": dict(self.settings)}
        return dict(json.loads(json.dumps(body)))

    @property
    def file_name(self) -> str:
        """kind-hash.safetensors"""
        body = json.dumps(self.about, sort_keys=True)
        return f"{self.kind}-{hashlib.sha256(body.encode()).hexdigest()[:24]}.safetensors"


class ArtifactStore:
    """A folder of artifacts, plus read-only folders (those shipped with a pocket model).

    Keyed by the weights' fingerprint: two models with the same name never share, an edited model never finds the
    original's. A file that does not hold what its key promises is reported and made again, never used.
    """

    def __init__(self, root: Path, readonly: tuple[Path, ...] = ()) -> None:
        self.root = root
        self.readonly = readonly

    def get(self, key: ArtifactKey) -> dict[str, Tensor] | None:
        """The tensors of an artifact, or None when it has not been made (or is corrupt, after a warning)."""
        for folder in (self.root, *self.readonly):
            path = folder / key.file_name
            if not path.is_file():
                continue
            try:
                tensors, about = tensor_files.load(path)
            except EditSafetyError as error:
                warnings.warn(f"{error} It is ignored and will be made again.", stacklevel=2)
                continue
            if {name: about.get(name) for name in key.about} == key.about:
                return tensors
            warnings.warn(f"{path}: holds another artifact than its name says; ignored.", stacklevel=2)
        return None

    def put(self, key: ArtifactKey, tensors: Mapping[str, Tensor], notes: Mapping[str, Any] | None = None) -> Path:
        """Keep an artifact; returns its file."""
        path = self.root / key.file_name
        tensor_files.save(path, tensors, {**key.about, "notes": dict(notes or {})})
        return path


def default_root() -> Path:
    """`$EDITSAFETY_CACHE`, or `editsafety` in the user's cache folder."""
    given = os.environ.get("EDITSAFETY_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "editsafety"
