"""What a record is found by: everything that can change it, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from editsafety import editors
from editsafety.lab.keys import CaseKeys
from editsafety.names import slug
from editsafety.runs.case import Case
from editsafety.runs.facts import BlockKey, ModelFacts, ModelFiles
from editsafety.runs.model_files import state_of_files
from editsafety.runs.schedule import Schedule
from editsafety.runs.store import Store
from tests.system import world
from tests.system.commands import LENIENT, NO_COVARIANCE

FACTS = ModelFacts("tiny-model", "f" * 64, 46_200, "cpu", "float32", "eager")


def keys(
    paths: dict[str, str], folder: Path, editor: str = "Nudge", facts: ModelFacts = FACTS, **more: Any
) -> CaseKeys:
    """CaseKeys of a plan in a store of its own; the model is never loaded."""
    return CaseKeys(world.plan(paths, editor, **more), Store(folder / "store.sqlite"), lambda model: facts)


def cases(paths: dict[str, str], editor: str = "Nudge", **more: Any) -> tuple[Case, ...]:
    return world.plan(paths, editor, **more).cases


def test_every_case_has_a_key_of_its_own(paths: dict[str, str], tmp_path: Path) -> None:
    found = keys(paths, tmp_path)
    one, other, *_ = cases(paths)
    both = (*one.requests, *other.requests)
    every = [
        one,
        other,
        replace(one, probed=True),
        replace(one, requests=(replace(one.request, target_new="baker"),)),
        replace(one, requests=both, schedule=Schedule("sequential")),
        replace(one, requests=both, schedule=Schedule("sequential", every=2)),
        replace(one, requests=both[::-1], schedule=Schedule("sequential")),
        replace(one, requests=both, schedule=Schedule("batch", (2,))),
    ]
    assert len({found.of(case) for case in every}) == len(every)
    assert found.of(one) == found.of(replace(one)) == keys(paths, tmp_path / "other").of(one)


def test_a_key_is_worked_out_once_for_thousands_of_questions_and_anew_for_other_weights(
    paths: dict[str, str], tmp_path: Path
) -> None:
    facts = [FACTS]
    found = CaseKeys(world.plan(paths, "Nudge"), Store(tmp_path / "store.sqlite"), lambda model: facts[-1])
    (case, *_) = cases(paths)
    assert found.of(case) is found.of(case)
    before = found.of(case)
    facts.append(replace(FACTS, fingerprint="e" * 64))
    assert found.of(case) == before
    found.forget()
    assert found.of(case) != before


def test_settings_that_can_change_a_result_are_in_the_key(paths: dict[str, str], tmp_path: Path) -> None:
    (case, *_) = cases(paths)
    texts = Path(paths["texts"])
    found = [keys(paths, tmp_path / "plain").of(case)]
    found += [
        keys(paths, tmp_path / str(more), **more).of(case) for more in ({"seed": 1}, {"batch_size": 8}, {"texts": 2})
    ]
    changes = ({"fingerprint": "e" * 64}, {"device": "cuda:0"}, {"dtype": "bfloat16"}, {"attention": "sdpa"})
    found += [keys(paths, tmp_path / str(c), facts=replace(FACTS, **c)).of(case) for c in changes]  # type: ignore[arg-type]
    texts.write_text(texts.read_text().replace("fox", "cat"))
    found.append(keys(paths, tmp_path / "texts").of(case))
    assert len(set(found)) == len(found)


def test_the_editors_code_and_hyperparameters_are_in_the_key(paths: dict[str, str], tmp_path: Path) -> None:
    (case, *_) = cases(paths)
    before = keys(paths, tmp_path / "before").of(case)
    nudge = Path(paths["nudge"])
    nudge.write_text(nudge.read_text() + "\n# another version\n")
    assert keys(paths, tmp_path / "after").of(case) != before
    files = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    files[0].write_text(NO_COVARIANCE)
    files[1].write_text(NO_COVARIANCE.replace("v_num_grad_steps: 5", "v_num_grad_steps: 6"))
    given = [{"hparams": (str(file),)} for file in files]
    found = [
        keys(paths, tmp_path / str(n), "rome", **more).of(cases(paths, "rome", **more)[0])
        for n, more in enumerate(given)
    ]
    assert len(set(found)) == 2


def test_limits_of_a_policy_are_not_in_the_key_but_where_a_course_stops_is(
    paths: dict[str, str], tmp_path: Path
) -> None:
    (case, *_) = cases(paths)
    along = replace(case, schedule=Schedule("sequential"))
    (tmp_path / "strict.yaml").write_text(LENIENT)
    (tmp_path / "loose.yaml").write_text(LENIENT.replace("1.25", "9.5"))
    strict, loose = (
        keys(paths, tmp_path / name, policy=str(tmp_path / f"{name}.yaml")) for name in ("strict", "loose")
    )
    assert strict.of(case) == loose.of(case)
    assert strict.of(along) != loose.of(along)
    on = keys(paths, tmp_path / "on", policy=str(tmp_path / "strict.yaml"), keep_going=True)
    assert on.of(case) == strict.of(case)
    assert on.of(along) != strict.of(along)


def test_what_a_block_shares_is_kept_for_those_who_judge_without_a_model(paths: dict[str, str], tmp_path: Path) -> None:
    found = keys(paths, tmp_path)
    (case, *_) = cases(paths)
    facts = Store(tmp_path / "store.sqlite").facts()
    assert facts.key_of(case) is None
    shared = found.shared(case.block)
    facts = Store(tmp_path / "store.sqlite").facts()
    assert facts.keys == {("tiny-model", "Nudge"): shared}
    for one in (case, replace(case, probed=True), replace(case, schedule=Schedule("sequential"))):
        assert facts.key_of(one) == found.of(one)
    assert isinstance(shared, BlockKey)
    assert shared.single != shared.course


def test_a_model_that_the_store_knows_is_not_loaded_and_other_weights_are_other_keys(
    paths: dict[str, str], tmp_path: Path
) -> None:
    def never(model: str) -> ModelFacts:
        raise AssertionError("a model was loaded")

    (case, *_) = cases(paths)
    store = Store(tmp_path / "store.sqlite")
    found = CaseKeys(world.plan(paths, "Nudge"), store, never)
    with pytest.raises(AssertionError):
        found.of(case)
    store.note(ModelFiles(slug(case.model), state_of_files(case.model)))
    store.note(replace(FACTS, model=slug(case.model)))
    first = found.of(case)
    store.note(replace(FACTS, model=slug(case.model), fingerprint="e" * 64))
    assert found.of(case) == first
    found.forget()
    assert found.of(case) != first


def test_versions_of_the_tool_and_of_what_is_measured_and_the_editors_name_are_in_the_key(
    paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (case, *_) = cases(paths)
    found = [keys(paths, tmp_path / "before").of(case)]
    with monkeypatch.context() as other:
        other.setattr("editsafety.lab.keys.__version__", "another")
        found.append(keys(paths, tmp_path / "version").of(case))
    with monkeypatch.context() as other:
        other.setattr("editsafety.measures.perplexity.Perplexity.version", 99)
        found.append(keys(paths, tmp_path / "measure").of(case))
    (tmp_path / "fluent.yaml").write_text(LENIENT.replace("me_ppl", "fluency"))
    found.append(keys(paths, tmp_path / "more", policy=str(tmp_path / "fluent.yaml")).of(case))
    assert len(set(found)) == len(found)
    assert keys(paths, tmp_path / "again").of(case) == found[0]
    model, alike = case.block[0], editors.read_hparams("rome", "gpt2-xl")
    with monkeypatch.context() as other:
        other.setattr(editors, "code_version", lambda name: "the same")
        other.setattr(editors, "read_hparams", lambda *given, **more: alike)
        twins = keys(paths, tmp_path / "twins")
        assert twins.shared((model, "rome")).single != twins.shared((model, "memit")).single
