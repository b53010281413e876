"""Results, statistics and models of the same name that belong to something else: never used in its place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from editsafety.artifacts import ArtifactStore
from editsafety.editing import covariance
from editsafety.lab.lab import Lab
from editsafety.progress import Progress
from editsafety.runs.store import Store
from tests import tiny
from tests.system import world
from tests.system.commands import given, report

WIDER = {"n_embd": 64}


@pytest.fixture
def logged(paths):
    """How many edits were computed: an editor that logs each."""
    nudge = Path(paths["nudge"])
    nudge.write_text(
        nudge.read_text()
        + "\n\nclass Logged(Nudge):\n    def edit(self, requests, carry=None):\n"
        + "        from pathlib import Path\n"
        + "        with (Path(__file__).parent / 'log').open('a') as log:\n            log.write('x')\n"
        + "        return super().edit(requests)\n"
    )
    log = nudge.parent / "log"
    return lambda: len(log.read_text()) if log.exists() else 0


def perplexity(paths, folder, logged, **more):
    """What is measured of the first case with these settings, and whether it had to be computed."""
    before = logged()
    lab = Lab(world.plan(paths, "Logged", **more), Store(folder / "store.sqlite"), Progress.quiet())
    record = lab.record(lab.plan.cases[0], beside=())
    return record, logged() > before


@pytest.mark.parametrize("change", ["batch", "seed", "data", "texts", "code"])
def test_a_stored_result_is_not_served_for_anything_else(paths, tmp_path, logged, change):
    first, computed = perplexity(paths, tmp_path, logged)
    assert computed
    again, computed = perplexity(paths, tmp_path, logged)
    assert not computed
    assert again == first
    more = {}
    if change == "batch":
        more = {"batch_size": 3}
    elif change == "seed":
        more = {"seed": 7}
    elif change == "texts":
        more = {"texts": 3}
    elif change == "data":
        rows = Path(paths["hard"])
        rows.write_text(rows.read_text().replace("teacher", "baker"))
    else:
        nudge = Path(paths["nudge"])
        nudge.write_text(nudge.read_text() + "\n# mended\n")
    assert perplexity(paths, tmp_path, logged, **more)[1]


def test_a_folder_of_another_run_is_refused_and_kept(paths, command):
    assert command("run", *given(paths, "Nudge", out="out")).code == 11
    before = report("out")
    for change in (("--seed", 3), ("--texts", 3), ("--batch-size", 3), ("--dtype", "bfloat16")):
        done = command("run", *given(paths, "Nudge", out="out"), *change)
        assert done.code == 4, change
        assert "holds another run" in done.err
        assert report("out") == before


def test_statistics_of_another_model_with_the_same_short_name_are_never_found(tmp_path):
    """Two models called `tiny`: the same shape with other weights, and another shape."""
    handles = [tiny.handle("gpt2"), tiny.handle("gpt2", seed=1), tiny.handle("gpt2", **WIDER)]
    store = ArtifactStore(tmp_path)
    assert len({handle.name for handle in handles}) == 1
    site = handles[0].mlp_out(1)
    made = covariance.collect(handles[0], [site], tiny.SENTENCES, 100)[site.module]
    covariance.keep(handles[0], store, made, "corpus", 100)
    found = [covariance.load(handle, store, handle.mlp_out(1), "corpus", 100) for handle in handles]
    assert found[0] is not None
    assert torch.equal(found[0].matrix, made.matrix)
    assert found[1:] == [None, None]
