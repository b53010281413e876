"""The second moments that an editor needs: from which texts, made when, found where.

Where they come from, in this order: the hyperparameter `mom2_corpus` (a text file, or published statistics), else the
texts of the small world for a pocket model. Any other model has no texts here, and making some up would be worse than
saying so. An artifact remembers its corpus by content, so a changed file is another artifact.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field
from torch import Tensor

from editsafety.artifacts import ArtifactStore
from editsafety.editing import covariance, published
from editsafety.editing.covariance import Covariance, Inverse
from editsafety.errors import DataError, NotPreparedError, UsageError
from editsafety.hyperparameters import Hparams
from editsafety.model.handle import ModelHandle
from editsafety.model.sites import Site
from editsafety.progress import Progress

POCKET_SEED = 0
SHORTEST_TEXT = 8  # tokens; how many pocket texts are asked for


class CorpusHparams(Hparams):
    """From which texts C is made.

    mom2_tokens: at least so many tokens; None for 10 per input dimension. mom2_corpus: a file of texts (one per line,
    or JSON lines with "text"), a published `.npz`, or a folder of these; empty for the texts that come with the model.
    """

    mom2_tokens: int | None = Field(default=None, gt=0)
    mom2_corpus: str = ""


class Mom2Hparams(CorpusHparams):
    """How C is made and inverted.

    mom2_damping: share of the mean diagonal added to the diagonal before C is inverted; 0 as published.
    """

    mom2_damping: float = Field(default=0.0, ge=0.0)


class SecondMoments:
    """Second moments of a model's projections, for one setting. Reads each from the store once."""

    def __init__(self, handle: ModelHandle, artifacts: ArtifactStore, settings: CorpusHparams) -> None:
        self.handle = handle
        self.artifacts = artifacts
        self.settings = settings
        self._damping = settings.mom2_damping if isinstance(settings, Mom2Hparams) else 0.0
        self._found: dict[str, Covariance] = {}
        self._inverses: dict[tuple[str, float], Inverse] = {}
        self._names: dict[Path, str] = {}

    def missing(self, sites: Sequence[Site]) -> str | None:
        """What has to be prepared, in words; None when everything is there."""
        lacking = [site.module for site in sites if self._load(site) is None]
        return f"the second moment of the input of {', '.join(lacking)}" if lacking else None

    def prepare(self, sites: Sequence[Site], progress: Progress | None = None, corpus: Path | None = None) -> None:
        """Make or import what is missing, all sites in one pass over the texts; with `corpus`, make all of it anew.

        Raises UsageError when there are no texts, DataError when they cannot be used.
        """
        wanted = [site for site in sites if corpus is not None or self._load(site) is None]
        if not wanted:
            return
        place = corpus or self._place()
        if place is not None and (place.is_dir() or place.suffix == ".npz"):
            made = {site.module: self._imported(place, site) for site in wanted}
        else:
            if self.handle.fingerprint() != self.handle.identity:
                raise UsageError(f"{self.handle.name} carries an edit; second moments come from the unedited model.")
            tokens = max(self._tokens(site) for site in wanted)
            made = covariance.collect(self.handle, wanted, self._texts(place, tokens), tokens, progress)
        self._inverses.clear()
        for site in wanted:
            self._found.pop(site.module, None)
            covariance.keep(self.handle, self.artifacts, made[site.module], self._corpus(site), self._tokens(site))

    def of(self, site: Site, editor: str) -> Covariance:
        """C of a site. Raises NotPreparedError, naming the command for `editor`, when it has not been made."""
        found = self._load(site)
        if found is None:
            raise NotPreparedError(editor, self.handle.spec.name, f"the second moment of the input of {site.module}")
        return found

    def inverse(self, site: Site, editor: str, ridge: float = 0.0) -> Inverse:
        """(C + ridge I)^-1 of a site, factorised once. Raises NotPreparedError, or EditorError when C is singular."""
        key = (site.module, ridge)
        if key not in self._inverses:
            self._inverses[key] = Inverse(self.of(site, editor), self._damping, self.handle.device, ridge)
        return self._inverses[key]

    def matrix(self, site: Site, editor: str) -> Tensor:
        """What `inverse` inverts: C of a site in float64, damped. Raises NotPreparedError."""
        return covariance.wide(self.of(site, editor), self._damping, device=self.handle.device)

    def origin(self, site: Site) -> dict[str, str | int]:
        """What C of a site was made from, as it stands in artifact keys."""
        return {"module": site.module, "corpus": self._corpus(site), "tokens": self._tokens(site)}

    def _imported(self, place: Path, site: Site) -> Covariance:
        return published.read(published.locate(place, site), site, self.handle.identity)

    def _load(self, site: Site) -> Covariance | None:
        if site.module not in self._found:
            found = covariance.load(self.handle, self.artifacts, site, self._corpus(site), self._tokens(site))
            if found is None:
                return None
            self._found[site.module] = found
        return self._found[site.module]

    def _tokens(self, site: Site) -> int:
        return self.settings.mom2_tokens or covariance.TOKENS_PER_DIMENSION * site.d_in

    def _place(self) -> Path | None:
        if not self.settings.mom2_corpus:
            return None
        place = Path(self.settings.mom2_corpus)
        if not place.exists():
            raise UsageError(f"mom2_corpus: {place} does not exist. Give a text file, .npz, or folder of .npz.")
        return place

    def _corpus(self, site: Site) -> str:
        """The name of the corpus in artifact keys.

        The sha256 of the file that the hyperparameters name; else the pocket texts and their seed, or, for a model that
        has no texts here, whatever the user prepared it from.
        """
        place = self._place()
        if place is None:
            return f"pocket texts, seed {POCKET_SEED}" if self._has_texts() else "prepared by the user"
        file = published.locate(place, site) if place.is_dir() or place.suffix == ".npz" else place
        if file not in self._names:
            with file.open("rb") as data:
                self._names[file] = hashlib.file_digest(data, "sha256").hexdigest()
        return self._names[file]

    def _texts(self, place: Path | None, tokens: int) -> Sequence[str]:
        if place is not None:
            return read_texts(place)
        if not self._has_texts():
            raise UsageError(
                f"no texts to compute second moments of {self.handle.name} from. Give `editsafety prepare` a --corpus: "
                'a file with one text per line (or JSON lines with "text"), or published .npz statistics of the model.'
            )
        from editsafety.pocket.corpus import covariance_texts

        return covariance_texts(POCKET_SEED, tokens // SHORTEST_TEXT + 1)

    def _has_texts(self) -> bool:
        return self.handle.spec.name.startswith(("pocket-", "random:"))


def read_texts(path: Path) -> list[str]:
    """The texts of a file: one per line, or with `.jsonl` the field "text" of one JSON object per line.

    Raises DataError naming file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # JSON may hold other line separators
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error}).") from error
    if path.suffix != ".jsonl":
        return [line for line in lines if line.strip()]
    texts = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not a JSON object ({error}).") from error
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise DataError(f"{path}:{number}: needs a field 'text' that holds text, found {line!r:.80}.")
        texts.append(row["text"])
    return texts
