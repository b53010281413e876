"""Merging: the parts of a run become that run; what is no part of it, or was computed otherwise, is refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from editsafety.errors import StoreError, UsageError
from editsafety.names import label, slug
from editsafety.runs import folders
from editsafety.runs.case_record import CaseRecord
from editsafety.runs.facts import (
    BlockKey,
    Ended,
    JudgedCheck,
    ModelFacts,
    OrderFacts,
    RunFact,
    Software,
    Unexplained,
    Wanted,
)
from editsafety.runs.merging import merge
from editsafety.runs.plan import RunPlan
from editsafety.runs.settings import Settings
from editsafety.runs.shards import Shard
from editsafety.runs.store import Store

SETTINGS = Settings(models=("pocket-neo",), editors=("rome", "ft"), limit=2, controls=0)
MODEL = ModelFacts("pocket-neo", "f" * 64, 2_900_000, "cpu", "float32")
KEYS = {editor: BlockKey("pocket-neo", editor, f"single {editor}", f"course {editor}") for editor in ("rome", "ft")}


def part(
    folder: Path,
    number: int,
    count: int,
    *more: RunFact,
    settings: Settings = SETTINGS,
    model: ModelFacts = MODEL,
    begun: bool = False,
) -> Path:
    """The folder of a part that found its cases, one of them only `begun`."""
    plan, shard = RunPlan.of(settings), Shard(number, count)
    place = folder / f"part-{number}"
    folders.begin(place, plan, shard).release()
    store = Store(place / folders.STORE)
    held = shard.edits(plan.cases)
    for case in held:
        ended = "" if begun and case is held[0] else "complete"
        store.put(KEYS[case.editor].of(case), CaseRecord.begun(case, slug(case.model), label(case.editor), ended=ended))
    for fact in (Wanted(tuple(sorted(case.id for case in held))), Ended(False), model, *KEYS.values(), *more):
        store.note(fact)
    store.close()
    return place


def test_the_merged_run_has_every_case_and_is_asked_about_all_of_them(tmp_path: Path) -> None:
    parts = [part(tmp_path, number, 3, JudgedCheck(f"check {number}")) for number in (1, 2, 3)]
    plan = merge([parts[2], parts[0], parts[1]], tmp_path / "whole")
    store = Store(tmp_path / "whole" / folders.STORE)
    facts = store.facts()
    names = [case.id for case in RunPlan.of(SETTINGS).cases]
    assert facts.asked.cases == tuple(sorted(names))
    assert set(store.finished(plan.cases)) == set(names)
    assert facts.judged == {"check 1", "check 2", "check 3"}
    assert facts.ended == Ended(False)
    assert folders.about(tmp_path / "whole")["finished"] is True
    assert folders.about(tmp_path / "whole")["shard"] == "1/1"


def test_what_one_part_knows_is_known_of_the_whole(tmp_path: Path) -> None:
    order = OrderFacts("pocket-neo", "rome", 2, (), "single rome")
    first = part(tmp_path, 1, 2, order, Unexplained(("b: fell over",)))
    second = part(tmp_path, 2, 2, Ended(True, stopped=True), Unexplained(("a: fell over",)))
    merge([first, second], tmp_path / "whole")
    facts = Store(tmp_path / "whole" / folders.STORE).facts()
    assert facts.orders["pocket-neo", "rome"] == order
    assert facts.ended == Ended(True, stopped=True)
    assert facts.unexplained == ("a: fell over", "b: fell over")


def test_threads_and_noise_may_differ_and_the_larger_noise_counts(tmp_path: Path) -> None:
    first = part(tmp_path, 1, 2, model=replace(MODEL, noise=1e-7))
    second = part(tmp_path, 2, 2, model=replace(MODEL, threads=8, noise=3e-7))
    merge([first, second], tmp_path / "whole")
    assert Store(tmp_path / "whole" / folders.STORE).facts().models["pocket-neo"].noise == 3e-7


def test_a_case_that_one_part_has_whole_and_another_begun_is_whole(tmp_path: Path) -> None:
    first, second = part(tmp_path, 1, 2, begun=True), part(tmp_path, 2, 2)
    plan = RunPlan.of(SETTINGS)
    case = Shard(1, 2).edits(plan.cases)[0]
    store = Store(second / folders.STORE)
    store.put(
        KEYS[case.editor].of(case), CaseRecord.begun(case, slug(case.model), label(case.editor), ended="complete")
    )
    store.close()
    merge([first, second], tmp_path / "whole")
    assert case.id in Store(tmp_path / "whole" / folders.STORE).finished([case])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": replace(MODEL, fingerprint="e" * 64)}, "model pocket-neo: fingerprint is 'eeee"),
        ({"model": replace(MODEL, device="NVIDIA H100")}, "model pocket-neo: device is 'NVIDIA H100'"),
    ],
)
def test_a_part_of_other_weights_or_another_device_is_refused_and_nothing_is_written(
    tmp_path: Path, change: dict[str, ModelFacts], said: str
) -> None:
    first, second = part(tmp_path, 1, 2), part(tmp_path, 2, 2, **change)
    with pytest.raises(StoreError, match=f"other conditions .*{said}"):
        merge([first, second], tmp_path / "whole")
    assert not (tmp_path / "whole").exists()


def test_parts_by_other_versions_or_under_other_keys_are_refused(tmp_path: Path) -> None:
    first = part(tmp_path, 1, 2, Software({"torch": "2.13.0"}))
    second = part(tmp_path, 2, 2, Software({"torch": "2.6.0"}))
    with pytest.raises(StoreError, match=r"software of the run: versions is .*2\.6\.0"):
        merge([first, second], tmp_path / "whole")
    store = Store(second / folders.STORE)
    store.note(Software({"torch": "2.13.0"}))
    store.note(replace(KEYS["rome"], single="computed otherwise"))
    with pytest.raises(StoreError, match="key pocket-neo:rome: single is 'computed otherwise'"):
        merge([first, second], tmp_path / "whole")


def test_missing_double_and_foreign_parts_are_named(tmp_path: Path) -> None:
    first, second = part(tmp_path, 1, 3), part(tmp_path, 2, 3)
    with pytest.raises(UsageError, match="part 3/3 is missing"):
        merge([first, second], tmp_path / "whole")
    other = part(tmp_path / "of another count", 1, 2)
    with pytest.raises(UsageError, match=r"expected all parts of one run; given: .*1/2"):
        merge([first, second, other], tmp_path / "whole")
    with pytest.raises(UsageError, match=r"part-1: part 1/3 was given already"):
        merge([first, second, part(tmp_path, 3, 3), first], tmp_path / "whole")
    with pytest.raises(UsageError, match="expected all parts of one run; given: none"):
        merge([], tmp_path / "whole")
    with pytest.raises(StoreError, match="nothing: holds no run"):
        merge([tmp_path / "nothing"], tmp_path / "whole")


def test_a_part_of_another_run_is_refused_with_the_option_that_differs(tmp_path: Path) -> None:
    first = part(tmp_path, 1, 2)
    other = part(tmp_path, 2, 2, settings=replace(SETTINGS, seed=7))
    with pytest.raises(StoreError, match="part-2: is no part of this run: --seed differs"):
        merge([first, other], tmp_path / "whole")


def test_a_folder_that_holds_a_run_is_not_written_over(tmp_path: Path) -> None:
    parts = [part(tmp_path, 1, 2), part(tmp_path, 2, 2)]
    merge(parts, tmp_path / "whole")
    before = (tmp_path / "whole" / folders.STORE).read_bytes()
    for out in (tmp_path / "whole", parts[0]):
        with pytest.raises(StoreError, match="holds a run already"):
            merge(parts, out)
    assert (tmp_path / "whole" / folders.STORE).read_bytes() == before


def test_a_folder_holds_one_part_and_no_other(tmp_path: Path) -> None:
    place = part(tmp_path, 1, 2)
    plan = RunPlan.of(SETTINGS)
    with pytest.raises(StoreError, match=r"holds part 1/2 of this run, not 2/2"):
        folders.begin(place, plan, Shard(2, 2))
    assert folders.choose(plan, tmp_path, shard=Shard(1, 2)) == place
    assert folders.choose(plan, tmp_path, shard=Shard(2, 2)) != place
    assert folders.choose(plan, tmp_path) != place
