"""A calibration of the pocket model: what trials come to, what is kept, and the file that is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from editsafety import datasets, editors, measures
from editsafety.artifacts import ArtifactStore
from editsafety.edits.session import EditSession
from editsafety.errors import DataError, UsageError
from editsafety.measures import Inputs
from editsafety.model.handle import ModelHandle
from editsafety.progress import Task
from editsafety.research.calibration import calibrating, trials
from editsafety.research.calibration.calibrating import Extent
from editsafety.research.calibration.trials import Trials

NUMBERS = """\
layers: [0]
v_num_grad_steps: 4
v_lr: 0.2
v_weight_decay: 0.00001
clamp_norm_factor: 10
kl_factor: 0
mom2_adjustment: false
context_template_length_params: [[4, 1]]
context_starts: [The]
"""


@pytest.fixture(scope="module")
def handle() -> ModelHandle:
    return ModelHandle.load("pocket-neo")


@pytest.fixture
def hparams(tmp_path: Path) -> Path:
    path = tmp_path / "few-steps.yaml"
    path.write_text(NUMBERS)
    return path


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def test_a_trial_is_what_the_measures_say_of_the_edited_model_and_is_made_once(
    handle: ModelHandle, hparams: Path, artifacts: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = editors.read_hparams("rome", handle.name, hparams).model_dump()
    (request,) = datasets.requests("pocket-world/normal", limit=1)
    found = Trials(handle, "rome", start, artifacts).outcome({"v_num_grad_steps": 6}, [request], Task(1))
    editor = editors.make("rome", handle, artifacts, path=hparams, changes={"v_num_grad_steps": 6})
    (before, _) = measures.load("locality")(handle, Inputs([request]))
    edit = editor.edit([request])
    with EditSession(handle) as session:
        session.apply(edit)
        inputs = Inputs([request], edit=edit, before={"locality": before})
        said = {one.name: one.value for name in trials.ASKED for one in measures.load(name)(handle, inputs)}
    assert [found.efficacy, found.generalisation, found.locality] == [said[name] for name in trials.ASKED]
    monkeypatch.setattr(trials, "compute", None)  # nothing is edited again
    assert Trials(handle, "rome", start, artifacts).outcome({"v_num_grad_steps": 6}, [request], Task(1)) == found


@pytest.mark.parametrize("minutes", [0, pytest.param(None, marks=pytest.mark.thorough)])
def test_the_file_is_read_as_hyperparameters_and_says_where_every_number_comes_from(
    handle: ModelHandle, hparams: Path, artifacts: ArtifactStore, tmp_path: Path, minutes: float | None
) -> None:
    rows = datasets.requests("pocket-world/normal", limit=6)
    extent = Extent(facts=1, requests=1, others=1, minutes=minutes)
    found = calibrating.calibrate(handle, "rome", rows, "pocket-world/normal", artifacts, extent, hparams=hparams)
    found.save(tmp_path / "found.yaml")
    text = (tmp_path / "found.yaml").read_text()
    read = editors.read_hparams("rome", handle.name, tmp_path / "found.yaml").model_dump()
    assert read == {**editors.read_hparams("rome", handle.name, hparams).model_dump(), **found.found.values}
    assert editors.read_hparams("c_rome", handle.name, tmp_path / "found.yaml")  # one file for the family
    assert f"fingerprint {handle.identity}" in text
    numbers = [line for line in text.splitlines() if not line.startswith(("#", "models:"))]
    told = "not sought; no time for" if minutes == 0 else "score with"
    assert all(f" # {told} " in line or f" # as in {hparams}" in line for line in numbers)
    assert {line.split(":")[0] for line in numbers if told in line} == {
        "layers", "v_num_grad_steps", "v_lr", "v_weight_decay", "clamp_norm_factor",
    }  # fmt: skip
    assert "v_weight_decay: 1.0e-0" in text
    assert "causal tracing: MLPs around layer" in text
    assert handle.fingerprint() == handle.identity


def test_what_cannot_be_calibrated_is_refused(handle: ModelHandle, artifacts: ArtifactStore) -> None:
    rows = datasets.requests("pocket-world/normal", limit=3)
    with pytest.raises(UsageError, match=r"the numbers of noop are not sought here; those of .*ft.*memit.*rome.* are"):
        calibrating.calibrate(handle, "noop", rows, "three", artifacts, Extent())
    with pytest.raises(UsageError, match="of mend are not sought here: each set of them takes a training of its own;"):
        calibrating.calibrate(handle, "mend", rows, "three", artifacts, Extent())
    with pytest.raises(DataError, match=r"knows \d of the \d requests .* takes 6 and 10 others"):
        calibrating.calibrate(handle, "rome", rows, "three", artifacts, Extent())
