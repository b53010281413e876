"""A calibration from model and editor to its file: where by causal tracing, how much by the search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from editsafety import editors
from editsafety.artifacts import ArtifactStore
from editsafety.datasets.request import EditRequest
from editsafety.errors import DataError, UsageError
from editsafety.hyperparameters import find
from editsafety.model.handle import ModelHandle
from editsafety.names import label
from editsafety.progress import Progress
from editsafety.research.calibration.search import layer_name, seek
from editsafety.research.calibration.trials import Trials
from editsafety.research.calibration.where import choices_like
from editsafety.research.calibration.writing import Calibration
from editsafety.research.tracing.effects import AverageEffects
from editsafety.research.tracing.facts import LAST_OF_SUBJECT, known_facts, known_requests
from editsafety.research.tracing.runs import Protocol
from editsafety.research.tracing.tracing import trace_facts


@dataclass(frozen=True, slots=True)
class Extent:
    """How much a calibration may take."""

    # Known facts that are traced.
    facts: int = 20
    # Known facts that every set of numbers is tried on.
    requests: int = 6
    # Other known facts, on which beginning and end are compared.
    others: int = 10
    # After which no further value is tried; None for as long as it takes.
    minutes: float | None = None
    seed: int = 0


def calibrate(
    handle: ModelHandle,
    editor: str,
    rows: Sequence[EditRequest],
    source: str,
    artifacts: ArtifactStore,
    extent: Extent,
    *,
    hparams: Path | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Find an editor's numbers for a model; `rows` come from `source`.

    The first known facts of `rows` are traced, the last ones are edited: a run with a limit takes the first ones.
    Layers are traced where the editor edits some and not all.
    Raises UsageError for an editor whose numbers are not sought here, DataError where the model knows too few facts.
    """
    progress = progress or Progress.quiet()
    refuse_other_methods(editor)
    start = editors.read_hparams(editor, handle.name, hparams, build=editors.build_of(handle))
    held_out = _held_out(handle, rows, extent)
    trials = Trials(handle, editor, start.model_dump(), artifacts, extent.seed)
    where, effects = layer_name(trials.kind, trials.start), None
    layers: tuple[Any, ...] = ()
    if where is not None:
        effects = _traced(handle, rows, artifacts, extent, progress)
        layers = choices_like(trials.start[where], effects)
    trials.prepare(where, layers, progress)
    found = seek(
        trials,
        layers,
        held_out[: extent.requests],
        held_out[extent.requests :],
        minutes=extent.minutes,
        progress=progress,
    )
    fixed = frozenset(editors.load(editor).overrides)
    origin = _origin(handle, editor, hparams)
    return Calibration(
        label(editor), handle.name, handle.identity, start, fixed, origin, effects, source, extent.requests, found
    )


def refuse_other_methods(editor: str) -> None:
    """Raise UsageError for an editor whose hyperparameters name no number that is worth a search."""
    kind = editors.load(editor).Hparams
    if not kind.sought:
        able = [name for name in editors.names() if editors.load(name).Hparams.sought]
        why = f": {kind.unsought}" if kind.unsought else ""
        raise UsageError(f"the numbers of {label(editor)} are not sought here{why}; those of {', '.join(able)} are.")


def _held_out(handle: ModelHandle, rows: Sequence[EditRequest], extent: Extent) -> list[EditRequest]:
    """The last facts that the model knows and that can be asked for in other words and beside."""
    usable = [row for row in reversed(rows) if row.target_true and row.rephrasings and row.neighbours]
    wanted = extent.requests + extent.others
    found = list(islice(known_requests(handle, usable), wanted))
    if len(found) < wanted:
        raise DataError(
            f"{handle.name} knows {len(found)} of the {len(usable)} requests that have a true answer, rephrasings and "
            f"neighbours; a calibration takes {extent.requests} and {extent.others} others. Give more requests, or "
            "ask for fewer."
        )
    return found


def _traced(
    handle: ModelHandle, rows: Sequence[EditRequest], artifacts: ArtifactStore, extent: Extent, progress: Progress
) -> AverageEffects:
    """What restoring the MLPs at the subject's last token brings back, by layer."""
    window = Protocol.window_of(handle.layers)
    protocol = Protocol(("mlp",), window=window, seed=extent.seed, tokens=(LAST_OF_SUBJECT,))
    found = trace_facts(handle, known_facts(handle, rows, extent.facts), protocol, artifacts, progress)
    effects = found.average("mlp", LAST_OF_SUBJECT)
    assert effects is not None  # every subject has a last token
    return effects


def _origin(handle: ModelHandle, editor: str, hparams: Path | None) -> str:
    """Where the numbers of the beginning come from."""
    carried = editors.carried_from(editor, handle.name, hparams, editors.build_of(handle))
    if carried is not None:
        return f"carried over from {carried.model} ({carried.file})"
    shipped = find(editors.load(editor).folder or label(editor), handle.name)
    return f"as in {hparams or (shipped and f'{shipped.parent.name}/{shipped.name}') or 'the editor'}"
