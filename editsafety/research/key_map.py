"""Keys on request: what ROME's formula is fed with, for every subject of a set, and where it lies on a map.

    k_u          the key of the bare prompt: input of the edited projection at the subject's last token
    k-bar        its mean over the editor's contexts, the bare prompt among them
    C^-1 k-bar   the direction of the update, C the second moment of the editor's artifacts (or the identity)

Published ROME divides by k_u . u, u = C^-1 k-bar / ||C^-1 k-bar||; for a subject in first place k_u lies apart from
everything else and the product nearly vanishes ("The Fall of ROME", arXiv 2406.11263, whose figures map these three).
"""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor

from editsafety import tensor_files
from editsafety.datasets.request import EditRequest
from editsafety.editing import keys, subject
from editsafety.editing.keys import by_token
from editsafety.editors import Editor
from editsafety.editors.rome_family import RankOneEditor
from editsafety.errors import DataError, UsageError
from editsafety.model import trace
from editsafety.model.handle import ModelHandle
from editsafety.progress import Progress
from editsafety.research.key_drawing import KINDS, TOKENS, draw

By = Literal["pca", "tsne"]
TEXT_BATCH = 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One subject whose keys were computed."""

    # Of its request.
    id: str
    # The set it belongs to: "hard", "normal".
    label: str
    # Its name.
    subject: str
    # Whether it is one token in first place.
    first: bool


@dataclass(frozen=True, eq=False)
class Keys:
    """Keys of several subjects at one projection: float32 `[n, d_in]` each, a row per entry."""

    # The model's name.
    model: str
    # Of its weights.
    fingerprint: str
    # Whose contexts and whose C they are.
    editor: str
    # The projection.
    module: str
    # Of the contexts.
    seed: int
    # Whose keys they are.
    entries: tuple[Entry, ...]
    # k_u: of the bare prompt.
    bare: Tensor
    # k-bar: the mean over contexts.
    mean: Tensor
    # C^-1 k-bar.
    solved: Tensor
    # The keys of every context, the bare one first, `[n, contexts, d_in]`, where they were asked for.
    contexts: Tensor | None = None
    # Keys of ordinary texts at position 0, `[m, d_in]`; empty where none were asked for.
    first: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    # Those behind it, likewise.
    later: Tensor = field(default_factory=lambda: torch.empty(0, 0))

    @property
    def denominators(self) -> Tensor:
        """k_u . u for every entry, `[n]`: what published ROME divides by."""
        return (self.bare * torch.nn.functional.normalize(self.solved, dim=1)).sum(1)

    @property
    def cosines(self) -> Tensor:
        """Cosine of k_u with k-bar for every entry, `[n]`."""
        return torch.nn.functional.cosine_similarity(self.bare, self.mean, dim=1)

    def rows(self) -> list[dict[str, Any]]:
        """The figures of every entry: cosine, |denominator|, and the norms of the three vectors."""
        columns = {
            "cosine": self.cosines,
            "denominator": self.denominators.abs(),
            **{f"{kind}_norm": getattr(self, kind).norm(dim=1) for kind in KINDS},
        }
        named = [{"id": e.id, "label": e.label, "subject": e.subject, "first": e.first} for e in self.entries]
        return [{**row, **{name: float(values[i]) for name, values in columns.items()}} for i, row in enumerate(named)]

    def medians(self) -> dict[str, dict[str, float]]:
        """By set: n, share of one-token subjects in first place, and medians of the figures."""
        by_set: dict[str, dict[str, float]] = {}
        rows = self.rows()
        for label in dict.fromkeys(entry.label for entry in self.entries):
            own = [row for row in rows if row["label"] == label]
            figures = [name for name in own[0] if name not in ("id", "label", "subject", "first")]
            shares = {"n": float(len(own)), "first": sum(row["first"] for row in own) / len(own)}
            by_set[label] = {**shares, **{name: statistics.median(row[name] for row in own) for name in figures}}
        return by_set

    def save(self, path: Path) -> None:
        """Write everything to a safetensors file with a checksum for every tensor."""
        tensors = {"bare": self.bare, "mean": self.mean, "solved": self.solved}
        tensors |= {} if self.contexts is None else {"contexts": self.contexts}
        tensors |= {name: one for name in TOKENS if len(one := getattr(self, name))}
        entries = [[e.id, e.label, e.subject, e.first] for e in self.entries]
        about = {name: getattr(self, name) for name in ("model", "fingerprint", "editor", "module", "seed")}
        tensor_files.save(path, tensors, {"kind": "keys", **about, "entries": entries})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises EditSafetyError for an altered file, DataError for one that is no keys."""
        tensors, about = tensor_files.load(path)
        made: dict[str, Any] = {**about, **tensors}
        if made.pop("kind", None) != "keys":
            raise DataError(f"{path}: holds no keys. Make it with `editsafety keys -o {path.name}`.")
        try:
            return cls(**{**made, "entries": tuple(Entry(*row) for row in made["entries"])})
        except (LookupError, TypeError, ValueError) as error:
            raise DataError(f"{path}: does not hold the keys that it says ({error}). Make it again.") from error


def collect(
    editor: Editor,
    requests: Mapping[str, Sequence[EditRequest]],
    *,
    layer: int | None = None,
    per_context: bool = False,
    texts: Sequence[str] = (),
    progress: Progress | None = None,
) -> Keys:
    """The keys of `requests` (by set) where `editor` would edit, in its contexts and with its C.

    `layer` is one of the editor's layers, by default its first. Raises UsageError for an editor outside of the ROME
    family or another layer, NotPreparedError where C has not been made, DataError when there is no request.
    """
    if not isinstance(editor, RankOneEditor):
        raise UsageError(f"{editor.name} has no keys in the sense of ROME. Give rome, c_rome, r_rome or p_rome.")
    sites = dict(zip(editor.sites, sorted(editor.hparams.layers), strict=True))
    site = next((site for site, number in sites.items() if layer in (None, number)), None)
    if site is None:
        known = ", ".join(map(str, sites.values()))
        raise UsageError(f"{editor.name} does not edit layer {layer} of {editor.handle.name}, only {known}.")
    chosen = [(label, request) for label, rows in requests.items() for request in rows]
    if not chosen:
        raise DataError("there is no request to compute keys of. Give --hard or --normal.")
    handle, templates = editor.handle, editor.templates()
    solve = editor.moments.inverse(site, editor.name) if editor.hparams.mom2_adjustment else None
    entries: list[Entry] = []
    by_context: list[Tensor] = []
    with (progress or Progress.quiet()).task(f"keys of {handle.name} at {site.module}", len(chosen)) as task:
        for label, request in chosen:
            prompts = [subject.locate(handle, request, template) for template in templates]
            by_context.append(keys.at_subject(handle, site.module, prompts).inputs.cpu())
            entries.append(Entry(request.id, label, request.subject, subject.is_first(handle, prompts[0])))
            task.step(request.id)
    every = torch.stack(by_context)
    mean = every.mean(1)
    solved = mean if solve is None else torch.stack([solve(key.to(handle.device)).cpu() for key in mean])
    ordinary = of_texts(handle, site.module, texts)
    first = torch.stack([row[0] for row in ordinary]) if ordinary else torch.empty(0, 0)
    later = torch.cat([row[1:] for row in ordinary]) if ordinary else torch.empty(0, 0)
    return Keys(
        handle.name, handle.identity, editor.name, site.module, editor.seed, tuple(entries), every[:, 0].contiguous(),
        mean, solved, every if per_context else None, first, later,
    )  # fmt: skip


@torch.no_grad()
def of_texts(handle: ModelHandle, module: str, texts: Sequence[str]) -> list[Tensor]:
    """The keys of every token of every text, float32 `[tokens, d_in]` each. No special tokens are added."""
    by_text: list[Tensor] = []
    rows = [ids for text in texts if (ids := handle.ids(text, special=False)[: handle.context])]
    for start in range(0, len(rows), TEXT_BATCH):
        batch = handle.batch(rows[start : start + TEXT_BATCH])
        with trace.watch(handle.model, [module], stop=True) as seen:
            handle.run(batch.ids, batch.mask)
        every = by_token(seen.inputs[module], *batch.ids.shape).float().cpu()
        by_text += [row[:length] for row, length in zip(every, batch.lengths, strict=True)]
    return by_text


@dataclass(frozen=True, slots=True)
class Point:
    """A vector on the map."""

    # Which one: `solved`, `bare`, `mean`, `first`, `later`.
    kind: str
    # Of which set.
    label: str
    # Whose: the request's, or "" of a text.
    id: str
    # Where, across.
    x: float
    # Where, up.
    y: float


@dataclass(frozen=True)
class Map:
    """A map of unit vectors in two dimensions."""

    # How they were laid onto the plane.
    by: By
    # What the map shows.
    title: str
    # What its axes mean.
    axes: tuple[str, str]
    # The vectors.
    points: tuple[Point, ...]

    def save(self, path: Path) -> tuple[Path, ...]:
        """Draw it (.svg or .png) and write the coordinates beside it as .csv and .json; returns all three files."""
        if path.suffix not in (".svg", ".png"):
            raise UsageError(f"{path}: a map is drawn as .svg or .png.")
        files = (path, path.with_suffix(".csv"), path.with_suffix(".json"))
        rows = [(p.kind, p.label, p.id, repr(p.x), repr(p.y)) for p in self.points]
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows([("kind", "set", "id", "x", "y"), *rows])
        points = [{"kind": p.kind, "set": p.label, "id": p.id, "x": p.x, "y": p.y} for p in self.points]
        body = {"by": self.by, "title": self.title, "axes": list(self.axes), "points": points}
        tensor_files.write_atomically(path, draw(self, path.suffix[1:]))
        tensor_files.write_atomically(files[1], table.getvalue().encode())
        tensor_files.write_atomically(files[2], (json.dumps(body, indent=1, ensure_ascii=False) + "\n").encode())
        return files


def project(found: Keys, by: By = "pca", *, seed: int = 0, tokens: int = 200) -> Map:
    """Lay every vector, scaled to length 1 (the three have very different lengths), onto a plane.

    Of the later tokens of texts `tokens` are taken, drawn with `seed`, which is also that of t-SNE. Raises UsageError
    where scikit-learn is missing, DataError when there are too few vectors, or one is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    few = torch.randperm(len(found.later), generator=generator)[:tokens]
    groups = {kind: getattr(found, kind) for kind in KINDS} | {"first": found.first[:tokens], "later": found.later[few]}
    whose = {kind: [(e.label, e.id) for e in found.entries] for kind in KINDS}
    named = [
        (kind, *(whose[kind][i] if kind in whose else ("texts", "")))
        for kind, rows in groups.items()
        for i in range(len(rows))
    ]
    vectors = torch.nn.functional.normalize(torch.cat([rows for rows in groups.values() if len(rows)]).double(), dim=1)
    if len(vectors) < 5 or not torch.isfinite(vectors).all():
        raise DataError(f"{len(vectors)} vectors cannot be mapped: at least 5 are needed, all of them finite.")
    places, axes = _project(vectors, by, seed)
    points = tuple(Point(*name, float(x), float(y)) for name, (x, y) in zip(named, places, strict=True))
    return Map(by, f"Keys of {found.editor} on {found.model} at {found.module}", axes, points)


def _project(vectors: Tensor, by: By, seed: int) -> tuple[Any, tuple[str, str]]:
    try:
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise UsageError(f"a map needs scikit-learn ({error}). Run: pip install 'editsafety[maps]'") from error
    if by == "pca":
        model = PCA(2, svd_solver="full").fit(vectors.numpy())
        shares = [
            f"component {i} ({100 * share:.0f} % of variance)"
            for i, share in enumerate(model.explained_variance_ratio_, 1)
        ]
        return model.transform(vectors.numpy()), (shares[0], shares[1])
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    places = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(vectors.numpy())
    return places, ("t-SNE 1 (no unit)", f"t-SNE 2 (perplexity {perplexity:.0f}, seed {seed})")
