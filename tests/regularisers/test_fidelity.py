"""RECT against the published implementation's own deltas: MEMIT_rect of AlphaEdit on a tiny GPT-2."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from editsafety import editors
from editsafety.artifacts import ArtifactStore
from editsafety.datasets.request import EditRequest
from editsafety.editing import covariance
from editsafety.editing.covariance import Covariance
from editsafety.regularisers.rect import Rect, largest
from tests import tiny
from tests.regularisers.conftest import weights

TOLERANCE = 1e-4  # relative Frobenius error, as for the editors


@pytest.fixture(scope="module")
def shared() -> Path:
    here = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("EDITSAFETY_SHARED", here.parent / "shared"))
    if not (folder / "goldens" / "tiny-gpt2").is_dir():
        pytest.skip(f"{folder} is not here: the published deltas cannot be compared")
    return folder


def golden(shared: Path, name: str) -> dict[str, Tensor]:
    found = load_file(shared / "goldens" / "tiny-gpt2" / f"{name}.deltas.safetensors")
    return {key.partition("::")[2]: tensor for key, tensor in found.items()}


def test_rect_of_the_published_memit_deltas_is_the_published_memit_rect(shared: Path) -> None:
    handle = tiny.golden(shared)
    index = json.loads((shared / "goldens" / "tiny-gpt2" / "index.json").read_text())
    assert "keep 40 %" in index["memit_rect"]["what"]
    plain, expected = golden(shared, "memit"), golden(shared, "memit_rect")
    assert plain.keys() == expected.keys()
    for name, delta in plain.items():
        weight = handle.model.get_parameter(name).detach().double()
        found = torch.where(largest(delta.double(), weight, 0.4), delta.double(), 0.0)
        assert (found - expected[name]).norm() < TOLERANCE * expected[name].norm()
        assert ((found != 0) == (expected[name] != 0)).double().mean() > 0.9999


def test_rect_of_our_memit_is_the_published_memit_rect(shared: Path, tmp_path: Path) -> None:
    place = shared / "goldens" / "tiny-gpt2"
    handle = tiny.golden(shared)
    handle.model.set_attn_implementation("eager")
    numbers = json.loads((place / "index.json").read_text())["memit_rect"]["hyperparameters"]
    groups = tuple(map(tuple, json.loads((place / "templates.json").read_text())["memit"]))
    rows = json.loads((place / "requests.json").read_text())
    requests = [EditRequest(str(row["case_id"]), row["prompt"], row["subject"], row["target_new"]) for row in rows]
    store = ArtifactStore(tmp_path)
    for module, matrix in load_file(place / "covariance.safetensors").items():
        tokens = covariance.TOKENS_PER_DIMENSION * len(matrix)
        covariance.keep(handle, store, Covariance(module, matrix, 10**6), "prepared by the user", tokens)
    fixed: Any = type("Golden", (editors.load("memit"),), {"groups": lambda _: groups})
    kind = Rect.around(fixed, "memit")
    known = {name: value for name, value in numbers.items() if name in kind.Hparams.model_fields}
    editor = kind(handle, kind.Hparams(**known), store, name="rect(memit)")
    editor.prepare()
    edit = editor.edit(requests)
    expected = golden(shared, "memit_rect")
    assert set(edit.parameters) == set(expected)
    for name, value in weights(handle, edit).items():
        delta = value - handle.model.get_parameter(name).detach()
        assert (delta - expected[name]).norm() < TOLERANCE * expected[name].norm()
