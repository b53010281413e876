"""Merging: the parts of one run, computed apart from each other, become the run that they are parts of. No torch here.

What was found is copied as it is. What each part knows beside that is joined: a fact that parts may have each for
themselves (which cases, which checks, how it ended) is put together, one that they must share (weights, settings,
versions) is compared, and a part that was computed under other conditions is refused by name.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from editsafety.errors import StoreError, UsageError
from editsafety.runs import folders
from editsafety.runs.fact import RunFact
from editsafety.runs.facts import (
    Columns,
    Ended,
    ModelFacts,
    ModelFiles,
    Pace,
    Unedited,
    Unexplained,
    Unusable,
    Wanted,
    Yardstick,
)
from editsafety.runs.plan import RunPlan
from editsafety.runs.settings import Settings
from editsafety.runs.shards import Shard
from editsafety.runs.store import Store

BREAKING = "breaking"  # folder of the edits that broke a model


@dataclass(frozen=True)
class RunPart:
    """The folder of a part, and what is written about it."""

    folder: Path
    about: Mapping[str, Any]
    shard: Shard

    @classmethod
    def of(cls, folder: Path) -> RunPart:
        """Raises StoreError when there is no run in it."""
        about = folders.about(folder)
        if "settings" not in about or not (folder / folders.STORE).is_file():
            raise StoreError(f"{folder}: holds no run. Give the folders that `run --shard` wrote.")
        return cls(folder, about, Shard.parse(str(about.get("shard", "1/1"))))


def merge(parts: Sequence[Path], out: Path) -> RunPlan:
    """Write the run that these folders are parts of into `out`, in any order the same; its plan.

    Raises UsageError where parts are missing, double or of different runs, StoreError where `out` holds a run already,
    a folder holds none, or parts were computed under different conditions. Nothing is written in any of these cases.
    """
    found = sorted((RunPart.of(folder) for folder in parts), key=lambda part: part.shard.number)
    _refuse_incomplete(found)
    plan = RunPlan.of(Settings.stored(found[0].about["settings"], str(found[0].folder / folders.PLAN)))
    _refuse_other_plans(found, plan)
    if (out / folders.STORE).exists():
        raise StoreError(f"{out}: holds a run already. Give another --out, or remove it.")
    with ExitStack() as opened:
        stores = [opened.enter_context(closing(Store(part.folder / folders.STORE))) for part in found]
        facts = _joined_facts(found, stores)
        lock = folders.begin(out, plan)
        opened.callback(lock.release)
        into = opened.enter_context(closing(Store(out / folders.STORE)))
        for key, record in chain.from_iterable(store.each_record() for store in stores):
            kept = into.record(key)
            if kept is None or not kept.ended:
                into.put(key, record)
        for key, unedited in chain.from_iterable(store.each_unedited() for store in stores):
            into.keep_unedited(key, unedited)
        for fact in facts:
            into.note(fact)
        try:
            for part in found:
                if (part.folder / BREAKING).is_dir():
                    shutil.copytree(part.folder / BREAKING, out / BREAKING, dirs_exist_ok=True)
            folders.finish(out, plan)
        except OSError as error:
            raise StoreError(f"{out}: cannot hold the merged run ({error}). Give another --out.") from error
    return plan


def _joined_facts(parts: Sequence[RunPart], stores: Sequence[Store]) -> list[RunFact]:
    """Every fact of the whole run. Raises StoreError where those of two parts contradict each other."""
    known: dict[tuple[str, str], tuple[RunFact, Path]] = {}
    for part, store in zip(parts, stores, strict=True):
        for fact in store.each_fact():
            place = fact.kind, fact.name
            before = known.get(place)
            known[place] = (
                (fact, part.folder) if before is None else (join_facts(*before, fact, part.folder), before[1])
            )
    return [fact for fact, _ in known.values()]


def _refuse_incomplete(parts: Sequence[RunPart]) -> None:
    counts = {part.shard.count for part in parts}
    if len(counts) != 1:
        told = ", ".join(f"{part.folder} is {part.shard}" for part in parts) or "none"
        raise UsageError(f"expected all parts of one run; given: {told}.")
    (count,) = counts
    numbers = [part.shard.number for part in parts]
    missing = [str(Shard(number, count)) for number in range(1, count + 1) if number not in numbers]
    if missing:
        raise UsageError(
            f"part {', '.join(missing)} is missing: give the folders of all parts, also of one that failed."
        )
    double = next((part for i, part in enumerate(parts) if part.shard.number in numbers[:i]), None)
    if double is not None:
        raise UsageError(f"{double.folder}: part {double.shard} was given already.")


def _refuse_other_plans(parts: Sequence[RunPart], plan: RunPlan) -> None:
    digest = plan.digest()
    for part in parts:
        if part.about.get("digest") == digest:
            continue
        theirs: Mapping[str, Any] = part.about["settings"]
        ours: Mapping[str, Any] = asdict(plan.settings)
        names = [name for name in ours if _plain(theirs.get(name)) != _plain(ours[name])]
        said = f"--{names[0].replace('_', '-')} differs" if names else "its data or an editor's file has changed since"
        raise StoreError(
            f"{part.folder}: is no part of this run: {said}. Parts are runs of one command but for --shard."
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def join_facts(first: RunFact, where: Path | str, second: RunFact, there: Path | str) -> RunFact:
    """One fact from those of two parts, which are named. Raises StoreError where they cannot both be of one run."""
    if (joined := JOINED.get(type(first))) is not None:
        return joined(first, second)
    if type(first) in KEPT:
        return first
    one, other = asdict(first), asdict(second)
    differs = next((name for name in one if one[name] != other[name] and name not in MAY_DIFFER), None)
    if differs is not None:
        said = f"{first.kind} {first.name or 'of the run'}: {differs} is {other[differs]!r:.80}"
        raise StoreError(
            f"{there}: was computed under other conditions than {where} ({said}, not {one[differs]!r:.80}). "
            "Compute that part again."
        )
    if isinstance(first, ModelFacts) and isinstance(second, ModelFacts):
        return replace(first, noise=max(first.noise, second.noise))
    return first


def _wanted(first: Wanted, second: Wanted) -> Wanted:
    cases, probed = {*first.cases, *second.cases}, {*first.probed, *second.probed}
    orders = max(first.orders, second.orders)
    return Wanted(tuple(sorted(cases)), tuple(sorted(probed)), first.apart or second.apart, orders)


JOINED: Mapping[type[RunFact], Callable[[Any, Any], RunFact]] = {
    Wanted: _wanted,
    Ended: lambda one, other: Ended(one.interrupted or other.interrupted, one.stopped or other.stopped),
    Unusable: lambda one, other: one if one.sentence else other,
    Columns: lambda one, other: Columns(tuple(dict.fromkeys((*one.columns, *other.columns)))),
    Unexplained: lambda one, other: Unexplained(tuple(sorted({*one.tests, *other.tests}))),
}
MAY_DIFFER = ("threads", "noise")  # of a model: what changes no result, and what that makes of rounding
KEPT: frozenset[type[RunFact]] = frozenset({ModelFiles, Pace, Unedited, Yardstick})  # of the first part that has it
