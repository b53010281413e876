"""ArtifactStore: slow results on disk (covariances, context templates, trained parts), found by what made them."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editsafety import tensor_files
from editsafety.errors import EditorError, EditSafetyError, StoreError

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
    original's. What is made here also counts by the `tokenizer` (its identity): the same weights behind other tokens
    have other keys. A file that does not hold what its key promises is reported and made again, never used.
    """

    def __init__(self, root: Path, readonly: tuple[Path, ...] = (), *, tokenizer: str = "") -> None:
        self.root = root
        self.readonly = readonly
        self.tokenizer = tokenizer

    def get(self, key: ArtifactKey) -> dict[str, Tensor] | None:
        """The tensors of an artifact, or None when it has not been made (or is corrupt, after a warning)."""
        for folder, wanted in ((self.root, self._own(key)), *((folder, key) for folder in self.readonly)):
            path = folder / wanted.file_name
            if not path.is_file():
                continue
            try:
                tensors, about = tensor_files.load(path)
            except EditSafetyError as error:
                warnings.warn(f"{error} It is ignored and will be made again.", stacklevel=2)
                continue
            if {name: about.get(name) for name in wanted.about} != wanted.about:
                warnings.warn(f"{path}: holds another artifact than its name says; ignored.", stacklevel=2)
            elif (wrong := _not_finite(tensors)) is not None:
                reason = f"tensor {wrong!r} holds entries that are not finite"
                warnings.warn(f"{path}: {reason}. It is ignored and will be made again.", stacklevel=2)
            else:
                return tensors
        return None

    def put(self, key: ArtifactKey, tensors: Mapping[str, Tensor], notes: Mapping[str, Any] | None = None) -> Path:
        """Keep an artifact; returns its file.

        Raises EditorError for entries that are not finite (nothing is kept then), StoreError when it cannot be written.
        """
        own = self._own(key)
        path = self.root / own.file_name
        wrong = _not_finite(tensors)
        if wrong is not None:
            raise EditorError(
                f"the {key.kind} that was made is not kept: tensor {wrong!r} holds entries that are not finite. "
                "The model's own numbers overflow on these texts: use another --dtype or other texts."
            )
        try:
            tensor_files.save(path, tensors, {**own.about, "notes": dict(notes or {})})
        except OSError as error:
            raise StoreError(
                f"{path}: cannot be written ({error.strerror or error}). Make room or set EDITSAFETY_CACHE."
            ) from error
        return path

    def discard(self, key: ArtifactKey) -> None:
        """Take an artifact out of the store, where it is there; what is shipped stays."""
        (self.root / self._own(key).file_name).unlink(missing_ok=True)

    def _own(self, key: ArtifactKey) -> ArtifactKey:
        """The key of what is made here; what is shipped was made with the tokenizer that is shipped beside it."""
        return replace(key, settings={**key.settings, "tokenizer": self.tokenizer}) if self.tokenizer else key


def _not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The first tensor, by name, with an entry that is NaN or infinite."""
    import torch

    return next((name for name in sorted(tensors) if not torch.isfinite(tensors[name]).all()), None)


def default_root() -> Path:
    """`$EDITSAFETY_CACHE`, or `editsafety` in the user's cache folder."""
    given = os.environ.get("EDITSAFETY_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "editsafety"
