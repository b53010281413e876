"""KN against the published implementation's own neurons and deltas, on a tiny GPT-2."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from editsafety import editors
from editsafety.artifacts import ArtifactStore
from editsafety.datasets.request import EditRequest
from editsafety.edits.edit import LowRank
from editsafety.model.handle import ModelHandle

TOLERANCE = 1e-4  # relative Frobenius error, as in test_fidelity
CASES = range(5)


@pytest.fixture(scope="module")
def goldens() -> Path:
    here = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("EDITSAFETY_SHARED", here.parent / "shared")) / "goldens" / "tiny-gpt2"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here: the published deltas cannot be compared")
    return folder


@pytest.fixture(scope="module")
def editor(goldens: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    model = AutoModelForCausalLM.from_pretrained(goldens / "model", attn_implementation="eager")
    handle = ModelHandle.of(model, PreTrainedTokenizerFast.from_pretrained(goldens / "model"), name="tiny-gpt2")
    kind: Any = editors.load("kn")
    given = json.loads((goldens / "index.json").read_text())["kn"]["hyperparameters"]
    numbers = {key: value for key, value in given.items() if key in kind.Hparams.model_fields}
    return kind(handle, kind.Hparams(**numbers), ArtifactStore(tmp_path_factory.mktemp("store")), name="kn")


@pytest.fixture(scope="module")
def requests(goldens: Path) -> list[EditRequest]:
    rows = json.loads((goldens / "requests.json").read_text())
    return [
        EditRequest(str(row["case_id"]), row["prompt"], row["subject"], row["target_new"], row["target_true"])
        for row in rows
    ]


@pytest.mark.parametrize("case", CASES)
def test_the_neurons_are_the_published_ones(case: int, editor: Any, goldens: Path, requests: list[EditRequest]) -> None:
    found, _ = editor.neurons(requests[case])
    expected = json.loads((goldens / "kn.neurons.json").read_text())["neurons"][f"case_{case}::"]
    assert [list(neuron) for neuron in found] == sorted(expected)


@pytest.mark.parametrize("case", CASES)
def test_the_deltas_are_the_published_ones(case: int, editor: Any, goldens: Path, requests: list[EditRequest]) -> None:
    expected = load_file(goldens / "kn.deltas.safetensors")
    found = editor.edit([requests[case]]).deltas
    assert {f"case_{case}::{delta.parameter}" for delta in found} == {
        k for k in expected if k.startswith(f"case_{case}")
    }
    for delta in found:
        assert isinstance(delta, LowRank)
        assert error(delta.site.stored(delta.matrix()), expected[f"case_{case}::{delta.parameter}"]) < TOLERANCE


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())
