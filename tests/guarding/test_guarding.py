"""The guard: edits as transactions, on tiny models and on the pocket model."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from editsafety import datasets, guard
from editsafety.editors import Traits
from editsafety.errors import NotPreparedError, UsageError
from editsafety.guarding import audit
from editsafety.judging.verdict import Verdict
from editsafety.model.handle import ModelHandle
from editsafety.reporting import as_json
from tests import tiny
from tests.guarding.scripted import LAX, TEXTS, Louder, Scripted, ask, guarded, loud, nan, scripted, small, told


def test_the_name_is_a_function_however_often_it_is_asked_for() -> None:
    import editsafety.guarding

    assert editsafety.guard is editsafety.guarding.guard is guard


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_refused_edit_is_taken_back_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    handle = tiny.handle("gpt2", dtype=dtype)
    before = handle.fingerprint()
    editor = scripted(handle, tmp_path, small(handle), loud(handle), small(handle, 2))
    with guarded(editor, policy=LAX.model_copy(update={"case": {"perplexity": LAX.case["perplexity"]}})) as one:
        assert one.edit(ask(1)).kept
        first = handle.fingerprint()
        refused = one.edit(ask(2))
        assert not refused
        assert (refused.verdict, refused.stage) == (Verdict.COLLAPSE, "measured")
        assert refused.sentence.startswith("COLLAPSE: perplexity ")
        assert handle.fingerprint() == first != before
        assert one.edit(ask(3)).kept
        assert [decision.number for decision in one.accepted] == [1, 3]
        assert editor.seen == [0, 1, 1]  # what the refused edit would have carried on is forgotten
        one.undo()
        assert handle.fingerprint() == first
        one.undo_all()
        assert handle.fingerprint() == before


def test_accepted_edits_stay_in_the_model_and_nothing_else_does(handle: ModelHandle, tmp_path: Path) -> None:
    before = handle.fingerprint()
    hooks = len(handle.model.transformer.h[1].mlp._forward_hooks)
    with guarded(scripted(handle, tmp_path, small(handle), small(handle, 1))) as one:
        one.edit(ask(1))
        one.edit(ask(2))
        during = handle.fingerprint()
    assert handle.fingerprint() == during == handle.identity != before
    assert len(handle.model.transformer.h[1].mlp._forward_hooks) == hooks
    delta = small(handle).matrix() + small(handle, 1).matrix()
    fresh = tiny.handle("gpt2")
    expected = fresh.weight(fresh.mlp_out(1)) + delta
    assert torch.allclose(handle.weight(handle.mlp_out(1)), expected, atol=1e-6)
    with guarded(scripted(handle, tmp_path, small(handle, 2))) as again:  # the kept model is the next one's original
        assert again.edit(ask(3)).kept


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_an_error_in_the_block_takes_everything_back(handle: ModelHandle, tmp_path: Path, error: BaseException) -> None:
    before, path = handle.fingerprint(), tmp_path / "audit.jsonl"
    one = guarded(scripted(handle, tmp_path, small(handle)), audit=path)

    def work() -> None:
        with one:
            assert one.edit(ask())
            raise error

    with pytest.raises(type(error)):
        work()
    assert handle.fingerprint() == before == handle.identity
    assert told(path) == ["opened", "begun", "kept", "closed"]
    assert audit.read(path)[-1]["kept"] == []


def test_keep_false_takes_everything_back(handle: ModelHandle, tmp_path: Path) -> None:
    before = handle.fingerprint()
    with guarded(scripted(handle, tmp_path, small(handle)), keep=False) as one:
        one.edit(ask())
    assert handle.fingerprint() == before


def test_the_report_is_about_every_edit_that_was_tried_kept_or_not(handle: ModelHandle, tmp_path: Path) -> None:
    script = (small(handle), loud(handle), ValueError("no such layer"), nan(handle))
    policy = LAX.model_copy(update={"case": {name: LAX.case[name] for name in ("perplexity", "finite")}})
    with guarded(scripted(handle, tmp_path, *script), policy=policy) as one:
        for number in range(1, 5):
            one.edit(ask(number))
        report = one.report()
    assert [decision.stage for decision in one.tried] == ["measured", "measured", "editor", "preflight"]
    assert [decision.number for decision in one.accepted] == [1]
    (group,) = report.groups
    assert [case.record.case for case in group.cases] == ["edit 1", "edit 2", "edit 3", "edit 4"]
    assert [case.verdict for case in group.cases] == [decision.verdict for decision in one.tried]
    assert [case.record.requests for case in group.cases] == [decision.requests for decision in one.tried]
    assert (report.verdict, report.exit_code) == (Verdict.ERROR, 13)
    cases = as_json.document(report)["groups"][0]["cases"]
    verdicts = {case["case"]: case["verdict"] for case in cases}
    assert verdicts == {"edit 1": "PASS", "edit 2": "COLLAPSE", "edit 3": "ERROR", "edit 4": "COLLAPSE"}


def test_sidecars_are_kept_taken_back_and_left_in_place(handle: ModelHandle, tmp_path: Path) -> None:
    module = "transformer.ln_f"
    riding = handle.model.get_submodule(module)._forward_hooks
    ids = handle.batch([handle.ids(TEXTS[0])])
    plain = handle.logits(ids)
    cars = [([], [Louder(module, factor)]) for factor in (1.01, 20.0, 1.02)]
    with guarded(scripted(handle, tmp_path, *cars)) as one:
        assert one.edit(ask(1)).kept
        assert not one.edit(ask(2))
        assert len(riding) == 1
        assert one.edit(ask(3)).kept
        one.undo()
        assert len(riding) == 1
        one.undo()
        assert torch.equal(handle.logits(ids), plain)
    with guarded(scripted(handle, tmp_path, cars[0])) as one:
        one.edit(ask(4))
    assert len(riding) == 1
    assert not torch.equal(handle.logits(ids), plain)


def test_threads_take_turns(handle: ModelHandle, tmp_path: Path) -> None:
    editor = scripted(handle, tmp_path, *(small(handle, seed) for seed in range(4)))
    with guarded(editor) as one:
        threads = [threading.Thread(target=one.edit, args=(ask(number),)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [decision.number for decision in one.accepted] == [1, 2, 3, 4]
        assert sorted(editor.seen) == [0, 1, 2, 3]


def test_an_editor_cannot_call_the_guard_that_calls_it(handle: ModelHandle, tmp_path: Path) -> None:
    with guarded(scripted(handle, tmp_path, lambda: one.edit(ask()))) as one:
        assert "must not call the guard itself" in one.edit(ask()).sentence


@pytest.mark.parametrize(
    ("traits", "said"),
    [(Traits(batch=False), "one fact at a time"), (Traits(batch=True, sequential=False), "on top of itself")],
)
def test_what_an_editor_cannot_do_is_refused(
    handle: ModelHandle, tmp_path: Path, traits: Traits, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scripted, "traits", traits)
    with guarded(scripted(handle, tmp_path, small(handle), small(handle, 1))) as one:
        one.edit(ask(1))
        with pytest.raises(UsageError, match=said):
            one.edit([ask(2), ask(3)] if not traits.batch else ask(2))
        with pytest.raises(UsageError, match="no request"):
            one.edit(())


def test_a_guard_is_used_while_it_is_open(handle: ModelHandle, tmp_path: Path) -> None:
    one = guarded(scripted(handle, tmp_path, small(handle)))
    with pytest.raises(UsageError, match="not open"):
        one.edit(ask())
    with one:
        with pytest.raises(UsageError, match="2 edit"):
            one.undo(2)
        one.close()
        with pytest.raises(UsageError, match="has been closed"):
            one.edit(ask())
    with pytest.raises(UsageError, match="opened once"):
        one.open()


def test_an_editor_by_name_needs_a_model_and_its_preparation(handle: ModelHandle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give handle="):
        guard("rome")
    with pytest.raises(UsageError, match="another handle"):
        guard(scripted(handle, tmp_path), handle=tiny.handle("gpt2"), texts=TEXTS)
    editor = scripted(handle, tmp_path)
    editor.missing = lambda: "statistics"  # type: ignore[method-assign]
    with pytest.raises(NotPreparedError, match="statistics"):
        guarded(editor).open()


@pytest.mark.slow
def test_on_the_pocket_model_a_hard_case_of_rome_is_refused_and_a_normal_one_kept(tmp_path: Path) -> None:
    handle = ModelHandle.load("pocket-neo")
    normal = datasets.requests("pocket-world/normal", limit=2)
    (hard,) = datasets.requests("pocket-neo/hardcf", limit=1)
    path = tmp_path / "audit.jsonl"
    texts = datasets.texts("pocket-world/texts", limit=10)
    with guard("rome", handle=handle, texts=texts, audit=path) as one:
        assert one.edit(normal[0]).kept
        state = handle.fingerprint()
        refused = one.edit(hard)
        assert refused.verdict is Verdict.COLLAPSE
        assert (refused.ratio or 0) > 2
        assert handle.fingerprint() == state
        second = one.edit(normal[1])
        assert second.kept
        assert second.found["kept"].value == 1.0
    assert handle.fingerprint() == audit.read(path)[-1]["fingerprint"] != state
    assert told(path) == ["opened", "begun", "kept", "begun", "rolled back", "begun", "kept", "closed"]
