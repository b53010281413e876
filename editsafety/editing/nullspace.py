"""P: the projection onto the directions that the keys of ordinary text hardly use (AlphaEdit, arXiv 2410.02355).

P = U' U'^T with the eigenvectors of C whose eigenvalue is below `nullspace_threshold`. C is a mean over tokens, so the
threshold is absolute: it depends on the scale of a model's activations and has to be chosen anew for every model.

In float64 by an eigendecomposition (C is symmetric), or as published by a float32 SVD. The two are one in exact
arithmetic, but float32 mixes eigenvectors on both sides of the threshold when their eigenvalues are close: on the tiny
model of our goldens one direction of P is 4 % off, and a delta 0.3 %.

Made by `prepare`, from the unedited model's C, and kept under the model's fingerprint, the module, the corpus, the
digest of C, the threshold and the precision. Kept is the smaller half of the eigenvectors: of P itself or of what it
leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from editsafety import tensor_files
from editsafety.artifacts import ArtifactKey, ArtifactStore
from editsafety.editing.covariance import Covariance, wide
from editsafety.editing.moments import SecondMoments
from editsafety.errors import EditorError, NotPreparedError
from editsafety.model.handle import ModelHandle
from editsafety.model.sites import Site
from editsafety.progress import Progress

Precision = Literal["float32", "float64"]


@dataclass(frozen=True, eq=False)
class NullSpace:
    """P of one projection's inputs, kept as an orthonormal basis; `dimensions` is its rank."""

    # The projection.
    module: str
    # `[d_in, k]`, orthonormal.
    basis: Tensor
    # Whether the basis spans the complement of the null space, and not the null space.
    outside: bool

    @property
    def dimensions(self) -> int:
        """The rank of P."""
        size, count = self.basis.shape
        return size - count if self.outside else count

    def project(self, columns: Tensor) -> Tensor:
        """P `columns`, `[d_in, n]`, in the dtype and on the device of the basis."""
        wide = columns.to(self.basis)
        inside = self.basis @ (self.basis.T @ wide)
        return wide - inside if self.outside else inside


def split(
    covariance: Covariance, threshold: float, device: torch.device | None = None, precision: Precision = "float64"
) -> NullSpace:
    """The null space of C: every direction with an eigenvalue below `threshold`.

    Raises EditorError when there is none: the published code then leaves the layer unedited without a word.
    """
    if precision == "float64":
        values, vectors = torch.linalg.eigh(wide(covariance, device=device))
    else:
        vectors, values, _ = torch.linalg.svd(covariance.matrix.float())  # the largest first
        values, vectors = values.flip(0), vectors.flip(1)
    count = int((values < threshold).sum())
    if count == 0:
        raise EditorError(
            f"the second moment of the input of {covariance.module} has no eigenvalue below nullspace_threshold = "
            f"{threshold:g} (smallest {values[0].item():.2g}, median {values.median().item():.2g}), so that AlphaEdit "
            "could change nothing there. Raise nullspace_threshold to the scale of this model's keys."
        )
    outside = count > len(values) - count
    basis = vectors[:, count:] if outside else vectors[:, :count]
    return NullSpace(covariance.module, basis.float().cpu().contiguous(), outside)


class NullSpaces:
    """The null spaces of a model's projections, for one threshold. Reads each from the store once.

    `editor` is who asks: an error names the command that prepares it.
    """

    def __init__(
        self,
        handle: ModelHandle,
        artifacts: ArtifactStore,
        moments: SecondMoments,
        threshold: float,
        editor: str,
        precision: Precision,
    ) -> None:
        self.handle = handle
        self.artifacts = artifacts
        self.moments = moments
        self.threshold = threshold
        self.editor = editor
        self.precision = precision
        self._found: dict[str, NullSpace] = {}

    def missing(self, sites: Sequence[Site]) -> str | None:
        """What has to be prepared, in words; None when everything is there."""
        lacking = self.moments.missing(sites)
        if lacking is not None:
            return f"{lacking}, and its null space"
        names = [site.module for site in sites if self._load(site) is None]
        return f"the null space of the second moment of the input of {', '.join(names)}" if names else None

    def prepare(self, sites: Sequence[Site], progress: Progress | None = None, corpus: Path | None = None) -> None:
        """Make what is missing, C included; with `corpus`, all of it anew. Raises what C needs; see `split`."""
        self.moments.prepare(sites, progress, corpus)
        if corpus is not None:
            self._found.clear()  # they came from another C
        wanted = [site for site in sites if self._load(site) is None]
        with (progress or Progress.quiet()).task(f"null spaces of {self.handle.name}", len(wanted)) as task:
            for site in wanted:
                moment = self.moments.of(site, self.editor)
                made = split(moment, self.threshold, self.handle.weight(site).device, self.precision)
                tensors = {"basis": made.basis, "outside": torch.tensor(made.outside)}
                self.artifacts.put(self._key(site), tensors)
                task.step(f"{made.dimensions} of {site.d_in} dimensions")

    def of(self, site: Site) -> NullSpace:
        """P of a site, float64 on the device of its weight. Raises NotPreparedError."""
        found = self._load(site)
        if found is None:
            what = f"the null space of the second moment of the input of {site.module}"
            raise NotPreparedError(self.editor, self.handle.spec.name, what)
        return found

    def _load(self, site: Site) -> NullSpace | None:
        if site.module not in self._found:
            stored = self.artifacts.get(self._key(site))
            if stored is None:
                return None
            # Apple's GPUs have no float64.
            home = self.handle.weight(site).device
            place = torch.device("cpu") if home.type == "mps" else home
            if not _is_null_space(stored, site):
                raise EditorError(
                    f"the stored null space of {site.module} is no basis of [{site.d_in}, n]. "
                    "Delete it from the artifact folder and prepare again."
                )
            basis = stored["basis"].to(device=place, dtype=torch.float64)
            self._found[site.module] = NullSpace(site.module, basis, bool(stored["outside"]))
        return self._found[site.module]

    def _key(self, site: Site) -> ArtifactKey:
        """C can be prepared anew under the same name; its digest keeps a stale P from being found."""
        source = tensor_files.digest(self.moments.of(site, self.editor).matrix)
        numbers = {"threshold": self.threshold, "precision": self.precision}
        settings = {**self.moments.origin(site), "second_moment": source, **numbers}
        return ArtifactKey("nullspace", self.handle.identity, settings)


def _is_null_space(stored: Mapping[str, Tensor], site: Site) -> bool:
    """Whether a stored artifact is what `prepare` wrote for this site."""
    if stored.keys() != {"basis", "outside"}:
        return False
    basis, outside = stored["basis"], stored["outside"]
    shaped = basis.ndim == 2 and len(basis) == site.d_in and outside.numel() == 1
    return shaped and basis.is_floating_point() and not outside.is_complex()
