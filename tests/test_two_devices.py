"""A model on two devices is edited, measured and given back as on one, by every editor and with every measure.

The devices are pretended (`tests/two_devices.py`): an operation on tensors of both raises, as it does on cards.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from editsafety import crash_test
from editsafety.editors import load
from editsafety.edits.edit import Edit
from editsafety.edits.session import EditSession
from editsafety.model import placement
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.system import world
from tests.system.conftest import command, everything_imported, own_cache, paths
from tests.test_every_editor import EVERY, OTHER, REQUEST, Bed, edited
from tests.two_devices import pretended, spread

__all__ = ["command", "everything_imported", "own_cache", "paths"]
FAMILY = "llama"
SOON = ("rome", "alphaedit", "ft", "grace")  # others are built like one of these, so they wait for tox
TOLERANCE = 2e-5  # of logits: kernels are chosen by device, and v* is sought in several steps
FIGURES = ("me_ppl", "ppl_median", "target_probability", "locality", "efficacy", "delta_norm", "nll_per_token")


@pytest.fixture(autouse=True)
def two_devices() -> Iterator[None]:
    with pretended():
        yield


@pytest.fixture(scope="module")
def one() -> ModelHandle:
    return tiny.handle(FAMILY, tied=False)


@pytest.fixture(scope="module")
def two() -> ModelHandle:
    with pretended():
        return spread(tiny.model(FAMILY, tied=False), "tiny")


def test_what_meets_in_one_operation_has_to_be_on_one_device() -> None:
    """What is relied on below."""
    left, right = torch.ones(2, device="lazy:0"), torch.ones(2, device="lazy:1")
    with pytest.raises(RuntimeError, match=r"add: tensors on two devices, lazy:0 and lazy:1"):
        left + right
    with pytest.raises(RuntimeError, match="tensors on two devices, cpu and lazy:1"):
        torch.ones(2) + right
    assert (left.to(right) + right).device == right.device
    assert (right + torch.tensor(1.0)).tolist() == [2.0, 2.0]


def test_it_is_the_same_model_and_says_where_it_is(one: ModelHandle, two: ModelHandle) -> None:
    assert two.identity == one.identity
    assert [str(device) for device in two.devices] == ["lazy:0", "lazy:1"]
    said = placement.announcement(two.model, two.name) or ""
    assert "spread over 2 devices: model.embed_tokens.weight to model.layers.0." in said
    assert said.endswith("on lazy:1")


def test_a_delta_goes_to_its_parameters_device_and_undo_is_exact(one: ModelHandle, two: ModelHandle) -> None:
    deltas = tuple(tiny.low_rank(two.mlp_out(layer)) for layer in (0, 2))
    edit = Edit("own", (), two.identity, deltas=deltas)  # its factors are on the CPU
    with EditSession(two) as session:
        session.apply(edit)
        where = [two.weight(two.mlp_out(layer)).device.index for layer in (0, 2)]
        assert session.changed() == tuple(delta.parameter for delta in deltas)
    assert where == [0, 1]
    assert session.leftovers == ()
    assert two.fingerprint() == two.identity
    assert torch.allclose(edited(two, edit).cpu(), edited(one, edit), atol=TOLERANCE)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SOON else pytest.mark.thorough) for name in EVERY]
)
def test_every_editor_makes_the_edit_that_it_makes_on_one_device(
    name: str, one: ModelHandle, two: ModelHandle, tmp_path: Path
) -> None:
    requests = [REQUEST, OTHER] if load(name).traits.batch else [REQUEST]
    expected = Bed(name, one, tmp_path).prepared().edit(requests)
    found = Bed(name, two, tmp_path).fresh().edit(requests)
    assert close(edited(two, found), edited(one, expected))
    assert two.fingerprint() == two.identity


def test_second_moments_are_the_same_and_factors_are_where_the_weight_is(
    one: ModelHandle, two: ModelHandle, tmp_path: Path
) -> None:
    for place in "01":
        (tmp_path / place).mkdir()
    editors = [Bed("memit", handle, tmp_path / str(i)).prepared() for i, handle in enumerate((one, two))]
    for site in editors[0].sites:  # type: ignore[attr-defined]
        first, second = (editor.moments.matrix(site, "memit") for editor in editors)  # type: ignore[attr-defined]
        assert second.device == two.weight(site).device
        assert torch.allclose(first, second.cpu(), rtol=1e-4, atol=1e-6)


@pytest.mark.thorough
def test_a_run_finds_on_two_devices_what_it_finds_on_one(paths: dict[str, str]) -> None:
    known = tiny.knowing(tiny.model("gpt2", tied=False))
    other = copy.deepcopy(known)
    data = {"hard": paths["hard"], "normal": paths["normal"], "texts_from": paths["texts"], "limit": 1}
    reports = [
        crash_test(model, tiny.tokenizer(), [world.spelled(paths, "Nudge")], name="mine", controls=0, **data)
        for model in (known, spread(other).model)
    ]
    first, second = ([case for group in report.groups for case in group.cases] for report in reports)
    assert len(first) == len(second) == 2
    for before, after in zip(first, second, strict=True):
        assert (before.verdict, after.record.failure) == (after.verdict, None)
        for name in FIGURES:
            values = [case.record.steps[0].found[name].value for case in (before, after)]
            assert values[1] == pytest.approx(values[0], rel=1e-4), name


def close(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found.cpu(), expected, atol=TOLERANCE, rtol=1e-4)
