"""Memory that runs out: while an edit is computed, while the edited model is measured, while it is put back.

Only the error itself is made up (torch raises it on a GPU); what happens then is the product's own. On a real GPU:
tests/system/test_gpu.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from editsafety.edits import originals
from editsafety.lab import bench as benches
from editsafety.lab.lab import Lab
from editsafety.progress import Progress
from editsafety.runs.store import Store
from tests.lab.walking import timeless
from tests.system import world
from tests.system.commands import cases, ended, given, report, start

GREEDY = '''

class Greedy(Nudge):
    """There is not enough memory for one of its edits, and the model is being trained by then."""

    def edit(self, requests, carry=None):
        if requests[0].id.endswith("1"):
            self.handle.model.train()
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return super().edit(requests)
'''
SAID = "CUDA out of memory"


@pytest.fixture
def laboratory(paths, tmp_path):
    """laboratory("name"): a lab with a store of its own."""

    def made(name: str, editor: str = "Nudge") -> Lab:
        return Lab(world.plan(paths, editor), Store(tmp_path / name / "store.sqlite"), Progress.quiet())

    return made


def out_of_memory_once(real, when):
    """`real`, but for one call, the first for which `when` holds."""
    done = []

    def called(*args, **more):
        if not done and when(*args, **more):
            done.append(True)
            raise torch.OutOfMemoryError(f"{SAID}. Tried to allocate 20.00 GiB.")
        return real(*args, **more)

    return called


def test_out_of_memory_in_an_edit_is_an_error_of_its_case_and_of_no_other(paths, command, tmp_path):
    nudge = Path(paths["nudge"])
    nudge.write_text(nudge.read_text() + GREEDY)
    done = command("run", *given(paths, "Greedy", "Nudge", out="out"))
    assert done.code == 13
    found = cases(report("out"))
    for name in ("hard-1", "normal-1"):
        case = found[f"tiny-model-Greedy-{name}"]
        assert (case["verdict"], case["failure"]["kind"]) == ("ERROR", "oom")
        assert SAID in case["failure"]["message"]
    for name in ("hard-0", "normal-0"):
        assert values(found[f"tiny-model-Greedy-{name}"]) == values(found[f"tiny-model-Nudge-{name}"])


def values(case):
    """What was measured; reasons name the editor."""
    return {name: (one["value"], one.get("items")) for name, one in case["after"].items()}


def measuring(which: str):
    """Whether a call of `lab.bench.measure` is the measuring of an edited model with this scope."""
    return lambda chosen, handle, inputs, scope: scope == which and inputs.edit is not None


@pytest.mark.parametrize("scope", ["case", "edit"])
def test_out_of_memory_while_measuring_is_an_error_and_the_next_case_is_that_of_a_fresh_process(
    laboratory, monkeypatch, scope
):
    whole, short = laboratory("whole"), laboratory("short")
    alone = [timeless(whole.record(case)) for case in whole.plan.cases]
    monkeypatch.setattr(benches, "measure", out_of_memory_once(benches.measure, measuring(scope)))
    first, *others = [short.record(case) for case in short.plan.cases]
    assert (first.failure.kind, first.ended) == ("oom", "failed")
    assert [timeless(record) for record in others] == alone[1:]


def test_out_of_memory_while_a_model_is_put_back_spoils_no_later_case(laboratory, monkeypatch):
    whole, short = laboratory("whole"), laboratory("short")
    alone = [timeless(whole.record(case)) for case in whole.plan.cases]
    put_back = originals.Original.put_back
    monkeypatch.setattr(originals.Original, "put_back", out_of_memory_once(put_back, lambda original: True))
    first, *others = [short.record(case) for case in short.plan.cases]
    assert (first.failure.kind, first.ended) == ("oom", "failed")
    assert [timeless(record) for record in others] == alone[1:]


ASSERTS = '''

class Asserts(Nudge):
    """A device-side assert at its second edit: from then on every call to the GPU fails with the same words."""

    def edit(self, requests, carry=None):
        if requests[0].id == "hard-1":
            import editsafety.edits.session as session

            def lost(*args, **more):
                raise RuntimeError("CUDA error: device-side assert triggered")

            session.Seal.of = lost
            lost()
        return super().edit(requests)
'''


@pytest.mark.slow
def test_a_gpu_that_answers_nothing_any_more_ends_what_its_process_judges(paths, tmp_path):
    """Every later case is without a result, and none is judged by what a lost device says; a new process goes on."""
    nudge = Path(paths["nudge"])
    nudge.write_text(nudge.read_text() + ASSERTS)
    words = ["run", *given(paths, "Asserts", out="out", controls=0, k="not order")]
    done = ended(start(*words, cwd=tmp_path))
    assert done.code == 13, done.out + done.err
    found = cases(report(tmp_path / "out"))
    failure = found["tiny-model-Asserts-hard-1"]["failure"]
    assert failure["kind"] == "device"
    assert "device-side assert triggered" in failure["message"]
    assert found["tiny-model-Asserts-hard-0"]["verdict"] == "PASS"
    assert "PASS" not in {case["verdict"] for name, case in found.items() if "normal" in name}
