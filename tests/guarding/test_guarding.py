"""The guard: edits as transactions, on tiny models and on the pocket model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import editsafety
from editsafety import datasets, guard
from editsafety.artifacts import ArtifactStore
from editsafety.datasets.request import EditRequest
from editsafety.editors import Editor, Traits
from editsafety.edits.edit import Edit, LowRank, Replace, Sidecar
from editsafety.errors import EditError, NotPreparedError, StoreError, UndoError, UsageError
from editsafety.guarding import Guard, audit
from editsafety.hyperparameters import Hparams
from editsafety.judging.alarms import Alarm
from editsafety.judging.policy import Policy, Threshold
from editsafety.judging.verdict import Verdict
from editsafety.model.handle import ModelHandle
from editsafety.reporting import as_json
from tests import tiny
from tests.measures.conftest import by_heart

TEXTS = tiny.SENTENCES[:4]
LAX = Policy(
    name="lax",
    case={
        "perplexity": Threshold(
            measure="me_ppl", figure="ratio", pass_at_most=1.5, warn_at_most=2, fails_as=Verdict.COLLAPSE, why=""
        ),
        "finite": Threshold(
            measure="weights_finite", figure="after", pass_at_least=1, fails_as=Verdict.COLLAPSE, why=""
        ),
        "norm_growth": Threshold(
            measure="norm_growth", figure="after", pass_at_most=1.5, fails_as=Verdict.COLLAPSE, why=""
        ),
    },
    group={},
)


class Scripted(Editor):
    """Gives the edits of a list, one after the other; what is callable is called first."""

    traits = Traits(batch=True)
    script: Sequence[Any] = ()

    def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Edit:
        seen = 0 if carry is None else int(carry["seen"])
        self.seen = [*getattr(self, "seen", []), seen]
        made = self.script[len(self.seen) - 1]
        made = made() if callable(made) else made
        if isinstance(made, BaseException):
            raise made
        deltas, sidecars = made if isinstance(made, tuple) else ([made], ())
        ids = tuple(request.id for request in requests)
        carried = {"seen": torch.tensor(seen + 1)}
        return Edit(self.name, ids, self.handle.identity, tuple(deltas), tuple(sidecars), carry=carried)


class Louder(Sidecar):
    """Multiplies a layer's output."""

    kind = "louder"

    def __init__(self, target: str, factor: float) -> None:
        self.target, self.factor = target, factor

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
        return output * self.factor

    def tensors(self) -> Mapping[str, Tensor]:
        return {"factor": torch.tensor(self.factor)}

    def settings(self) -> Mapping[str, Any]:
        return {}

    @classmethod
    def rebuild(cls, target: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Louder:
        return cls(target, float(tensors["factor"]))


@pytest.fixture
def handle() -> ModelHandle:
    return tiny.handle("gpt2")


def scripted(handle: ModelHandle, tmp_path: Path, *script: Any) -> Scripted:
    editor = Scripted(handle, Hparams(), ArtifactStore(tmp_path), name="scripted")
    editor.script = script
    return editor


def small(handle: ModelHandle, seed: int = 0, layer: int = 1, size: float = 1e-3) -> LowRank:
    return tiny.low_rank(handle.mlp_out(layer), size=size, seed=seed)


def guarded(editor: Editor, **more: Any) -> Guard:
    return guard(editor, more.pop("policy", LAX), texts=TEXTS, **more)


def ctrl_c() -> LowRank:
    signal.raise_signal(signal.SIGINT)
    raise AssertionError("not interrupted")


def loud(handle: ModelHandle) -> Replace:
    """Makes the model twenty times as sure of everything, so that its perplexity explodes."""
    name = "transformer.ln_f.weight"
    return Replace(name, 20 * handle.model.get_parameter(name).detach())


def told(path: Path) -> list[str]:
    return [row["what"] for row in audit.read(path)]


def ask(number: int = 0, **more: Any) -> EditRequest:
    return tiny.request(f"r{number}", **more)


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


def test_losses_are_counted_from_the_first_model_on(handle: ModelHandle, tmp_path: Path) -> None:
    """Every edit alone is harmless; together they are not, and the one that goes too far is refused."""
    edits = [small(handle, 5, size=0.02) for _ in range(30)]
    with guarded(scripted(handle, tmp_path, *edits)) as one:
        decisions = []
        while not decisions or decisions[-1]:
            decisions.append(one.edit(ask(len(decisions))))
        assert len(decisions) > 3
        ratios = [decision.ratio or 0.0 for decision in decisions]
        assert all(later / earlier < 1.5 for earlier, later in pairwise(ratios))
        assert decisions[-1].verdict is Verdict.COLLAPSE


def nan(handle: ModelHandle) -> Replace:
    name = handle.mlp_out(1).parameter
    value = handle.model.get_parameter(name).detach().clone()
    value[0, 0] = torch.nan
    return Replace(name, value)


@pytest.mark.parametrize(
    ("make", "name"),
    [(nan, "finite"), (lambda handle: small(handle, size=10.0), "norm_growth")],
)
def test_weights_that_are_out_of_bounds_are_refused_before_they_are_applied(
    handle: ModelHandle, tmp_path: Path, make: Callable[[ModelHandle], Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, path = handle.fingerprint(), tmp_path / "audit.jsonl"
    with guarded(scripted(handle, tmp_path, make(handle)), audit=path) as one:
        monkeypatch.setattr(one._session, "apply", lambda edit: pytest.fail("it was applied"))
        decision = one.edit(ask())
        assert (decision.stage, decision.verdict, decision.kept) == ("preflight", Verdict.COLLAPSE, False)
        assert f"COLLAPSE: {name} " in decision.sentence
        assert decision.sentence.endswith("(refused before it was applied)")
        assert handle.fingerprint() == before
    assert audit.read(path)[2]["stage"] == "preflight"


def test_growth_is_that_over_all_edits(handle: ModelHandle, tmp_path: Path) -> None:
    name = handle.mlp_out(1).parameter
    weight = handle.model.get_parameter(name).detach().clone()
    editor = scripted(handle, tmp_path, Replace(name, weight * 1.3), Replace(name, weight * 1.69))
    with guarded(editor) as one:
        assert one.edit(ask(1)).found["norm_growth"].value == pytest.approx(1.3)
        second = one.edit(ask(2))
        assert second.stage == "preflight"
        assert second.found["norm_growth"].value == pytest.approx(1.69)


def test_an_alarm_that_was_found_before_refuses_an_edit(handle: ModelHandle, tmp_path: Path) -> None:
    alarm = Alarm("delta_norm", "above", 0.05)
    with guarded(scripted(handle, tmp_path, small(handle), small(handle, size=0.01)), alarms=[alarm]) as one:
        assert one.edit(ask(1)).kept
        decision = one.edit(ask(2))
        assert decision.stage == "preflight"
        assert "delta_norm is 0.483" in decision.sentence  # 0.01 |left| |right|
        assert "collapse is expected delta_norm above 0.05" in decision.sentence


def test_a_canary_that_changes_its_answer_refuses_an_edit(handle: ModelHandle, tmp_path: Path) -> None:
    lax = LAX.model_copy(update={"case": {"finite": LAX.case["finite"]}})
    editor = scripted(handle, tmp_path, small(handle, size=1e-6), small(handle, 1, size=1.0))
    canaries = ("Mirel works as a", ask(1, subject="Toren"))
    with guarded(editor, policy=lax, canaries=canaries) as one:
        assert one.edit(ask(1)).kept
        decision = one.edit(ask(2))
        assert decision.verdict is Verdict.DAMAGED
        assert "of 2 canaries changed, first " in decision.sentence


def test_earlier_facts_have_to_be_said_still(handle: ModelHandle, tmp_path: Path) -> None:
    """A model that answers by heart, and forgets while the third edit is computed."""
    policy = LAX.model_copy(update={"case": {"finite": LAX.case["finite"]}, "course": Policy.read("default").course})
    known = tiny.request("known", prompt="The capital of {} is", subject="Dorvan", target_new="Kelmar")

    def forgetting() -> LowRank:
        answers.clear()
        return small(handle, 3)

    answers = {known.filled: " Kelmar."}
    by_heart(handle, answers)
    editor = scripted(handle, tmp_path, small(handle), small(handle, 1), forgetting, small(handle, 2))
    with guarded(editor, policy=policy) as one:
        assert one.edit(known).kept
        assert one.edit(ask(2, subject="Mirel")).found["kept"].items == (1.0,)
        forgotten = one.edit(ask(3))
        assert forgotten.verdict is Verdict.DAMAGED
        assert "kept 0.00 of 2 earlier requests (lost: known, r2), expected" in forgotten.sentence


def test_what_the_suites_ask_of_a_group_is_asked_of_a_transaction(handle: ModelHandle, tmp_path: Path) -> None:
    policy = LAX.model_copy(update={"group": {"efficacy": Policy.read("default").group["efficacy"]}})
    with guarded(scripted(handle, tmp_path, small(handle)), policy=policy) as one:
        decision = one.edit([ask(1), ask(2, subject="Mirel")])
    assert decision.verdict is Verdict.INEFFECTIVE
    assert "efficacy 0.00 over 1 case" in decision.sentence


def test_an_edit_that_changes_nothing_is_not_kept(handle: ModelHandle, tmp_path: Path) -> None:
    with guarded(scripted(handle, tmp_path, ([], ()))) as one:
        assert one.edit(ask()).verdict is Verdict.NO_OP


def test_an_editor_that_fails_is_an_error_and_the_guard_goes_on(handle: ModelHandle, tmp_path: Path) -> None:
    with guarded(scripted(handle, tmp_path, ValueError("no such layer"), small(handle))) as one:
        failed = one.edit(ask(1))
        assert (failed.verdict, failed.stage) == (Verdict.ERROR, "editor")
        assert failed.sentence == "ERROR: scripted failed: ValueError: no such layer"
        assert one.edit(ask(2)).kept


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


def test_ctrl_c_while_an_edit_is_tried_takes_it_back(handle: ModelHandle, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with guarded(scripted(handle, tmp_path, small(handle), ctrl_c, small(handle, 2)), audit=path) as one:
        one.edit(ask(1))
        kept = handle.fingerprint()
        with pytest.raises(KeyboardInterrupt):
            one.edit(ask(2))
        assert handle.fingerprint() == kept
        assert one.edit(ask(3)).kept
    assert told(path) == ["opened", "begun", "kept", "begun", "rolled back", "begun", "kept", "closed"]
    assert audit.read(path)[4]["error"].startswith("KeyboardInterrupt")


def test_an_error_while_measuring_takes_the_edit_back(
    handle: ModelHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with guarded(scripted(handle, tmp_path, small(handle))) as one:
        before = handle.fingerprint()

        def stop(*_: Any) -> Any:
            assert handle.fingerprint() != before
            raise MemoryError("full")

        monkeypatch.setattr("editsafety.guarding.examination.judge_case", stop)
        with pytest.raises(MemoryError):
            one.edit(ask())
        assert handle.fingerprint() == before


def test_an_edit_whose_audit_cannot_be_written_is_not_kept(handle: ModelHandle, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "audit.jsonl"
    before = handle.fingerprint()

    def stolen() -> Any:
        path.unlink()
        path.mkdir()
        return small(handle)

    with pytest.raises(StoreError), guarded(scripted(handle, tmp_path, stolen), audit=path) as one:
        one.edit(ask())
    assert handle.fingerprint() == before


def test_an_editor_that_writes_into_the_weights_is_found_out(handle: ModelHandle, tmp_path: Path) -> None:
    def tampering() -> Any:
        handle.model.get_parameter(handle.mlp_out(0).parameter).data.mul_(1.5)
        return small(handle)

    with pytest.raises(UndoError), guarded(scripted(handle, tmp_path, tampering)) as one:
        one.edit(ask())
    with pytest.raises(UsageError, match="cannot be used"):
        one.edit(ask())


def test_a_model_that_is_changed_behind_the_guards_back_is_refused(handle: ModelHandle, tmp_path: Path) -> None:
    parameter = handle.model.get_parameter(handle.mlp_out(0).parameter)
    with guarded(scripted(handle, tmp_path, small(handle))) as one:
        original = parameter.data
        parameter.data = original * 2
        with pytest.raises(UsageError, match=r"was changed behind the guard's back \(transformer\.h\.0\.mlp"):
            one.edit(ask())
        parameter.data = original
        assert one.edit(ask()).kept


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


def test_an_edit_of_another_model_is_not_kept(handle: ModelHandle, tmp_path: Path) -> None:
    wide = tiny.handle("llama")
    with guarded(scripted(handle, tmp_path, small(wide))) as one, pytest.raises(EditError):
        one.edit(ask())


KILLED = """
    import sys
    from pathlib import Path
    from tests.guarding.test_guarding import *
    handle = tiny.handle("gpt2")
    path = Path(sys.argv[1])
    def die():
        os.kill(os.getpid(), signal.SIGKILL)
    editor = scripted(handle, path.parent, small(handle), die)
    with guarded(editor, audit=path) as one:
        one.edit(ask(1))
        one.edit(ask(2))
"""


def test_the_audit_of_a_killed_process_says_which_edit_it_died_in(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    root = Path(editsafety.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(path)], cwd=root, check=False, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    rows = audit.read(path)
    assert [row["what"] for row in rows] == ["opened", "begun", "kept", "begun"]
    (open_,) = audit.unfinished(rows)
    assert [row["id"] for row in open_["requests"]] == ["r2"]
    assert rows[2]["fingerprint_before"] == rows[0]["fingerprint"] != rows[2]["fingerprint_after"]
    assert os.environ  # the parent lives


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
