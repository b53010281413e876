"""The second moments that an editor needs: from which texts, made when, found where.

Where they come from, in this order: the hyperparameter `mom2_corpus` (a text file, published statistics, or "self"),
else what the user prepared them from, else the texts of the small world for a pocket model, else text that the model
writes itself (`own_text`), which is said. An artifact remembers its corpus by content, so a changed file is another
artifact.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from editsafety.artifacts import ArtifactStore
from editsafety.editing import covariance, own_text, published
from editsafety.editing.covariance import Covariance, Inverse
from editsafety.errors import DataError, NotPreparedError, UsageError
from editsafety.hyperparameters import Hparams
from editsafety.model import room
from editsafety.model.handle import ModelHandle
from editsafety.model.sites import Site
from editsafety.progress import Progress

POCKET_SEED = 0
OWN_SEED = 0
SELF = "self"  # as a corpus: what the model writes by itself
BY_USER = "prepared by the user"
SHORTEST_TEXT = 8  # tokens; how many pocket texts are asked for


class CorpusHparams(Hparams):
    """From which texts C is made.

    mom2_tokens: at least so many tokens; None for 10 per input dimension. mom2_corpus: a file of texts (one per line,
    or JSON lines with "text"), a published `.npz`, or a folder of these; "self" for text that the model writes; empty
    for what was prepared, else the texts that come with the model, else "self".
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
        self._kept_as: dict[str, str] = {}
        self._inverses: dict[tuple[str, float], Inverse] = {}
        self._names: dict[Path, str] = {}

    def missing(self, sites: Sequence[Site]) -> str | None:
        """What has to be prepared, in words; None when everything is there."""
        lacking = [site.module for site in sites if self._load(site) is None]
        return f"the second moment of the input of {', '.join(lacking)}" if lacking else None

    def prepare(self, sites: Sequence[Site], progress: Progress | None = None, corpus: Path | None = None) -> None:
        """Make or import what is missing, all sites in one pass over the texts; with `corpus`, make all of it anew.

        `corpus` is a place, or "self". Raises UsageError when it is not there, DataError when it cannot be used.
        """
        wanted = [site for site in sites if corpus is not None or self._load(site) is None]
        if not wanted:
            return
        usual, source = self._source(), self._source() if corpus is None else str(corpus)
        place = _place_of(source)
        if place is not None and (place.is_dir() or place.suffix == ".npz"):
            made = {site.module: self._imported(place, site) for site in wanted}
        else:
            if self.handle.fingerprint() != self.handle.identity:
                raise UsageError(f"{self.handle.name} carries an edit; second moments come from the unedited model.")
            progress = progress or Progress.quiet()
            if corpus is None and source == SELF and not self.settings.mom2_corpus:
                progress.say(self._announcement(wanted))
            made = self._made(source, wanted, progress)
        self._inverses.clear()
        for site in wanted:
            self._found.pop(site.module, None)
            first, *others = self._corpora(site)
            name = others[0] if others and source == usual else first
            if name != first:
                covariance.discard(self.handle, self.artifacts, site.module, first, self._tokens(site))
            texts = self._name(source, site)
            covariance.keep(self.handle, self.artifacts, made[site.module], name, self._tokens(site), texts)

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
            self._inverses[key] = Inverse(self.of(site, editor), self._damping, self._place(site), ridge)
        return self._inverses[key]

    def matrix(self, site: Site, editor: str) -> Tensor:
        """What `inverse` inverts: C of a site in float64, damped. Raises NotPreparedError."""
        return covariance.wide(self.of(site, editor), self._damping, device=self._place(site))

    def _place(self, site: Site) -> torch.device:
        """Where factors in float64 are kept, one for each edited layer; five of llama-3-8b take 8 GB of a card."""
        layers = len(getattr(self.settings, "layers", ())) or 1
        home = self.handle.weight(site).device
        weights = sum(one.numel() * one.element_size() for one in self.handle.model.parameters() if one.device == home)
        return room.place_for(home, weights, (layers + 1) * site.d_in**2 * torch.float64.itemsize)

    def origin(self, site: Site) -> dict[str, str | int]:
        """What C of a site was made from, as it stands in artifact keys."""
        self._load(site)
        corpus = self._kept_as.get(site.module, self._corpora(site)[-1])
        return {"module": site.module, "corpus": corpus, "tokens": self._tokens(site)}

    def _imported(self, place: Path, site: Site) -> Covariance:
        return published.read(published.locate(place, site), site, self.handle.identity)

    def _made(self, source: str, sites: Sequence[Site], progress: Progress) -> dict[str, Covariance]:
        """C of every site from the texts of a source."""
        tokens = max(self._tokens(site) for site in sites)
        if source == SELF:
            rows = own_text.written(self.handle, self.artifacts, tokens, seed=OWN_SEED, progress=progress)
            return covariance.collect_rows(self.handle, sites, rows, progress)
        return covariance.collect(self.handle, sites, self._texts(source, tokens), tokens, progress)

    def _announcement(self, sites: Sequence[Site]) -> str:
        """What is said before the model writes texts because none were given."""
        modules, tokens = ", ".join(site.module for site in sites), max(self._tokens(site) for site in sites)
        return (
            f"{self.handle.name}: no texts were given for second moments of {modules}, so the model writes {tokens} "
            "tokens itself, once; `editsafety prepare --corpus FILE` takes texts"
        )

    def _load(self, site: Site) -> Covariance | None:
        if site.module not in self._found:
            for corpus in self._corpora(site):
                found = covariance.load(self.handle, self.artifacts, site, corpus, self._tokens(site))
                if found is not None:
                    self._found[site.module], self._kept_as[site.module] = found, corpus
                    break
        return self._found.get(site.module)

    def _tokens(self, site: Site) -> int:
        return self.settings.mom2_tokens or covariance.TOKENS_PER_DIMENSION * site.d_in

    def _source(self) -> str:
        """Where texts or statistics come from when nothing is given: a path, "self", or "" for the small world."""
        if self.settings.mom2_corpus:
            return self.settings.mom2_corpus
        return "" if self.handle.spec.name.startswith(("pocket-", "random:")) else SELF

    def _corpora(self, site: Site) -> tuple[str, ...]:
        """Under which names C of a site may be kept; the first that is there counts.

        Where the hyperparameters name a corpus it is that one alone. Otherwise what a user prepared C from comes before
        what is made when nothing is given.
        """
        usual = self._name(self._source(), site)
        return (usual,) if self.settings.mom2_corpus else (BY_USER, usual)

    def _name(self, source: str, site: Site) -> str:
        """What a source is called in artifact keys: a file by its sha256, generated texts by how they are made."""
        place = _place_of(source)
        if place is None:
            return own_text.name(OWN_SEED) if source == SELF else f"pocket texts, seed {POCKET_SEED}"
        file = published.locate(place, site) if place.is_dir() or place.suffix == ".npz" else place
        if file not in self._names:
            with file.open("rb") as data:
                self._names[file] = hashlib.file_digest(data, "sha256").hexdigest()
        return self._names[file]

    def _texts(self, source: str, tokens: int) -> Sequence[str]:
        place = _place_of(source)
        if place is not None:
            return read_texts(place)
        from editsafety.pocket.corpus import covariance_texts

        return covariance_texts(POCKET_SEED, tokens // SHORTEST_TEXT + 1)


def _place_of(source: str) -> Path | None:
    """The file or folder that a source names; None for generated texts. Raises UsageError when it is missing."""
    if source in ("", SELF):
        return None
    place = Path(source)
    if not place.exists():
        raise UsageError(
            f"{place} does not exist. Give second moments a text file, .npz, or folder of .npz, or the word self for "
            "text that the model writes."
        )
    return place


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
