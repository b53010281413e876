"""What an editor leaves behind is an ERROR by name, and the next case is as if it had never run: bit for bit."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from editsafety.errors import EditorError, SpoiltProcessError, UndoError
from editsafety.judging.checks import judge_case
from editsafety.judging.policy import Policy
from editsafety.judging.verdict import Verdict
from editsafety.lab.lab import Lab
from editsafety.model.handle import ModelHandle
from editsafety.progress import Progress
from editsafety.runs.case import Case
from editsafety.runs.case_record import CaseRecord
from editsafety.runs.schedule import Schedule
from editsafety.runs.store import Store
from tests.lab.walking import timeless
from tests.system import world

QUIET = Progress(io.StringIO(), "quiet")
EDITORS = '''

class Trains(Nudge):
    """One step along the gradient of a weight: what is left on gradients shows in it."""

    def edit(self, requests, carry=None):
        name = "transformer.h.2.mlp.c_proj.weight"
        weight = self.handle.model.get_parameter(name)
        batch = self.handle.batch([self.handle.ids(requests[0].filled)])
        loss = self.handle.logits(batch).logsumexp(-1).sum()
        (gradient,) = torch.autograd.grad(loss, weight)
        delta = Replace(name, weight.detach() - 1e-4 * gradient)
        return Edit(self.name, (requests[0].id,), self.handle.identity, (delta,))


class Deed(Nudge):
    def edit(self, requests, carry=None):
        if requests[0].id.endswith("1"):
            self.do(self.handle)
        return super().edit(requests)


class HooksAGradient(Deed):
    def do(self, handle):
        handle.model.get_parameter("transformer.h.2.mlp.c_proj.weight").register_hook(lambda g: g * 0)


class Autocasts(Deed):
    def do(self, handle):
        torch.autocast("cpu", dtype=torch.bfloat16).__enter__()


class PatchesAFunction(Deed):
    def do(self, handle):
        plain = torch.nn.functional.layer_norm
        torch.nn.functional.layer_norm = lambda *a, **k: plain(*a, **k) * 1.05


class PatchesAClass(Deed):
    def do(self, handle):
        kind = type(handle.model)
        plain = kind.forward
        kind.forward = lambda self, *a, **k: plain(self, *a, **k)


class PatchesTheHandle(Deed):
    def do(self, handle):
        kind = type(handle)
        plain = kind.logits
        kind.logits = lambda self, batch: plain(self, batch) * 2


class Deafens(Deed):
    def do(self, handle):
        from tokenizers import normalizers

        handle.tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()


class Scribbles(Deed):
    stop = False

    def do(self, handle):
        import threading
        import time

        weight = handle.model.get_parameter("transformer.ln_f.weight")

        def scribble():
            while not type(self).stop:
                weight.data.add_(1e-6)
                time.sleep(0.005)

        threading.Thread(target=scribble, name="scribbler", daemon=True).start()


class ChangesAKernel(Deed):
    library = None

    def do(self, handle):
        def native_layer_norm(x, shape, weight, bias, eps):
            mean = x.mean(-1, keepdim=True)
            rstd = (x.var(-1, keepdim=True, unbiased=False) + eps).rsqrt()
            return (x - mean) * rstd * weight * 1.01 + bias, mean, rstd

        type(self).library = torch.library.Library("aten", "IMPL")
        type(self).library.impl("native_layer_norm", native_layer_norm, "CPU")


class TakesTheTokenizerAway(Deed):
    def do(self, handle):
        handle.tokenizer.__class__ = type("Mine", (type(handle.tokenizer),), {"decode": lambda *a, **k: "x"})


class StaysInAMode(Deed):
    mode = torch.inference_mode()

    def do(self, handle):
        self.mode.__enter__()


class PatchesWhenMade(Nudge):
    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        plain = torch.nn.functional.layer_norm
        torch.nn.functional.layer_norm = lambda *a, **k: plain(*a, **k)


class WritesWhenMade(Nudge):
    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        with torch.no_grad():
            self.handle.model.get_parameter("transformer.ln_f.weight").add_(1e-4)
'''

LEFT = {
    "HooksAGradient": "1 gradient hooks left on transformer.h.2.mlp.c_proj.weight",
    "Autocasts": "torch's autocast on cpu changed from False to True",
    "PatchesAFunction": "torch.nn.functional.layer_norm was replaced",
    "PatchesAClass": "forward of the class GPT2LMHeadModel was replaced",
    "PatchesTheHandle": "logits of the class ModelHandle was replaced",
    "TakesTheTokenizerAway": "the class of the tokenizer was changed from",
    "Deafens": "what the tokenizer makes of a test sentence changed",
    "Scribbles": "the thread 'scribbler' goes on (",
}
SOON = ("HooksAGradient", "PatchesAFunction", "Deafens", "Scribbles")  # one of each kind of place


def lab(paths: dict[str, str], folder: Path, *editors: str, **more: object) -> Lab:
    return Lab(world.plan(paths, *editors, **more), Store(folder / "store.sqlite"), QUIET)


def record(found: Lab, editor: str, request: str) -> CaseRecord:
    """The record of one case, computed alone, in the order in which it is asked for."""
    case = next(one for one in found.plan.cases if one.editor.endswith(f":{editor}") and one.request.id == request)
    return found.record(case, beside=[case])


def editor_class(found: Lab, paths: dict[str, str], name: str) -> Any:
    return type(found.tools.editor(paths["model"], world.spelled(paths, name)))


def course(found: Lab) -> Case:
    """Both hard requests on top of each other, measured after each."""
    rows = tuple(case.request for case in found.plan.cases if case.stream == "hard")
    model, editor = found.plan.blocks[0]
    return Case(model, editor, "hard", rows, Schedule("sequential", every=1))


@pytest.mark.parametrize(
    "editor", [pytest.param(name, marks=() if name in SOON else pytest.mark.thorough) for name in LEFT]
)
def test_it_is_named_and_the_next_cases_of_this_and_of_another_editor_are_those_of_a_fresh_process(
    paths: dict[str, str], tmp_path: Path, editor: str
) -> None:
    asked = [(editor, "hard-0"), (editor, "normal-0"), ("Trains", "hard-0"), ("Trains", "normal-1")]
    fresh = lab(paths, tmp_path / "fresh", editor, "Trains")
    expected = [timeless(record(fresh, *one)) for one in asked]
    found = lab(paths, tmp_path / "run", editor, "Trains")
    try:
        judged = judge_case(Policy.read("default"), record(found, editor, "hard-1"))
        assert judged.verdict is Verdict.ERROR
        assert any(LEFT[editor] in check.sentence for check in judged.checks), judged.checks
        assert [timeless(record(found, *one)) for one in asked] == expected
    finally:
        if editor == "Scribbles":
            editor_class(found, paths, editor).stop = True
    assert not found.tools.spoilt


def test_a_thread_that_goes_on_costs_the_model_and_not_the_process(paths: dict[str, str], tmp_path: Path) -> None:
    found = lab(paths, tmp_path / "run", "Scribbles")
    before = found.tools.bench(paths["model"]).handle
    kind = editor_class(found, paths, "Scribbles")
    try:
        failed = record(found, "Scribbles", "hard-1").failure
        assert failed is not None
        assert failed.kind == "undeclared"
        assert "the thread 'scribbler' goes on (scribble in nudge.py, line" in failed.message
        assert found.tools.bench(paths["model"]).handle is not before
        assert record(found, "Scribbles", "normal-0").failure is None
    finally:
        kind.stop = True


def test_what_has_no_name_shows_in_what_the_model_does_and_a_spoilt_process_judges_nothing_any_more(
    paths: dict[str, str], tmp_path: Path
) -> None:
    found = lab(paths, tmp_path / "run", "ChangesAKernel", "Nudge")
    assert record(found, "Nudge", "hard-0").failure is None
    kind = editor_class(found, paths, "ChangesAKernel")
    try:
        failed = record(found, "ChangesAKernel", "hard-1").failure
        assert failed is not None
        assert "the unedited model does not behave as before: on a fixed sentence its logits differ" in failed.message
        for _ in range(2):
            with pytest.raises(SpoiltProcessError, match="was loaded again, and the unedited model does not behave"):
                record(found, "Nudge", "hard-1")
        assert found.tools.spoilt
        assert ("tiny-model", "Nudge") not in found.store.facts().problems
        assert record(found, "Nudge", "hard-0").failure is None  # what is on record stays
    finally:
        kind.library._destroy()
    assert record(lab(paths, tmp_path / "run", "Nudge"), "Nudge", "hard-1").failure is None


def test_a_mode_that_cannot_be_left_spoils_the_process(paths: dict[str, str], tmp_path: Path) -> None:
    found = lab(paths, tmp_path / "run", "StaysInAMode", "Nudge")
    kind = editor_class(found, paths, "StaysInAMode")
    try:
        failed = record(found, "StaysInAMode", "hard-1").failure
        assert failed is not None
        assert "torch's inference mode changed from False to True" in failed.message
        with pytest.raises(SpoiltProcessError, match=r"mode changed from False to True\. Run the same command"):
            record(found, "Nudge", "hard-1")
    finally:
        kind.mode.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("editor", "said"),
    [
        ("PatchesWhenMade", "left something behind while it was made: torch.nn.functional.layer_norm was replaced"),
        ("WritesWhenMade", "changed something while it was made: .* transformer.ln_f.weight differs"),
    ],
)
def test_an_editor_that_does_it_when_it_is_made_is_refused_and_the_others_are_not(
    paths: dict[str, str], tmp_path: Path, editor: str, said: str
) -> None:
    expected = timeless(record(lab(paths, tmp_path / "fresh", "Trains"), "Trains", "hard-0"))
    plain = functional.layer_norm
    found = lab(paths, tmp_path / "run", editor, "Trains")
    with pytest.raises(EditorError, match=said):
        record(found, editor, "hard-0")
    assert functional.layer_norm is plain
    assert timeless(record(found, "Trains", "hard-0")) == expected


def test_along_a_course_it_is_an_error_at_the_step_where_it_was_left(paths: dict[str, str], tmp_path: Path) -> None:
    found = lab(paths, tmp_path / "run", "PatchesAFunction")
    walked = found.record(course(found))
    assert [step.leftovers for step in walked.steps] == [(), ("torch.nn.functional.layer_norm was replaced",)]
    judged = judge_case(Policy.read("default"), walked)
    assert judged.verdict is Verdict.ERROR
    assert any("left behind: torch.nn.functional.layer_norm was replaced" in one for one in judged.sentences)


def test_along_a_course_what_has_no_name_ends_it(paths: dict[str, str], tmp_path: Path) -> None:
    found = lab(paths, tmp_path / "run", "ChangesAKernel")
    kind = editor_class(found, paths, "ChangesAKernel")
    try:
        walked = found.record(course(found))
    finally:
        kind.library._destroy()
    assert len(walked.steps) == 1
    assert walked.failure is not None
    assert "the unedited model does not behave as before" in walked.failure.message


def test_a_model_that_cannot_be_loaded_again_spoils_the_process_when_it_cannot_be_brought_back(
    paths: dict[str, str], tmp_path: Path
) -> None:
    handle = ModelHandle.load(paths["model"])
    handle.reloadable = False
    found = Lab(world.plan(paths, "Nudge"), Store(tmp_path / "store.sqlite"), QUIET, handles={paths["model"]: handle})
    bench = found.tools.bench(paths["model"])
    with torch.no_grad():
        copy = next(copy for _, copy in bench.keepsake.values.values() if copy is not None)
        copy.add_(1)  # what it would be brought back from is damaged as well
    with pytest.raises(UndoError, match="cannot be brought back"):
        bench.repair()
    found.tools.drop()
    handle.identity = bench.handle.identity
    with pytest.raises(SpoiltProcessError):
        found.tools.bench(paths["model"])
