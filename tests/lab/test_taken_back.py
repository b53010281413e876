"""What an editor takes back itself when it edits next: proofs that are made once in several cases miss it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from editsafety.judging.checks import judge_case
from editsafety.judging.policy import Policy
from editsafety.judging.verdict import Verdict
from editsafety.lab.lab import Lab
from editsafety.progress import Progress
from editsafety.runs.store import Store
from tests.system import world

QUIET = Progress(io.StringIO(), "quiet")
EDITORS = '''

class TakesBack(Nudge):
    """Leaves something at some edits, and first takes back what it left before."""

    left = None

    def edit(self, requests, carry=None):
        if type(self).left is not None:
            self.take_back(self.handle)
            type(self).left = None
        if requests[0].id.endswith("1"):
            self.leave(self.handle)
        return super().edit(requests)


class WritesAndTakesBack(TakesBack):
    def leave(self, handle):
        weight = handle.model.get_parameter("transformer.ln_f.weight")
        type(self).left = weight.detach().clone()
        weight.data.add_(1e-3)

    def take_back(self, handle):
        handle.model.get_parameter("transformer.ln_f.weight").data.copy_(self.left)


class PatchesAndTakesBack(TakesBack):
    def leave(self, handle):
        plain = torch.nn.functional.layer_norm
        type(self).left = [plain]
        torch.nn.functional.layer_norm = lambda *a, **k: plain(*a, **k)

    def take_back(self, handle):
        (torch.nn.functional.layer_norm,) = self.left
'''


@pytest.mark.parametrize(
    ("editor", "said"),
    [
        ("WritesAndTakesBack", "transformer.ln_f.weight differs"),
        ("PatchesAndTakesBack", "torch.nn.functional.layer_norm was replaced"),
    ],
)
def test_what_the_next_edit_would_take_back_is_found_after_the_case_that_left_it(
    paths: dict[str, str], tmp_path: Path, editor: str, said: str
) -> None:
    found = Lab(world.plan(paths, editor), Store(tmp_path / "run" / "store.sqlite"), QUIET)
    policy = Policy.read("default")
    judged = {case.request.id: judge_case(policy, found.record(case)) for case in found.plan.cases}  # all in one go
    left = {name for name, one in judged.items() if any(said in sentence for sentence in one.sentences)}
    assert left == {name for name in judged if name.endswith("1")}
    assert {one.verdict for name, one in judged.items() if name in left} == {Verdict.ERROR}
    assert {one.verdict for name, one in judged.items() if name not in left} == {Verdict.PASS}
