"""What a run is going to take, against what shapes are published and what operations are counted in a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from editsafety import measures
from editsafety.editing.targets import TargetHparams, optimise
from editsafety.judging.policy import Policy
from editsafety.lab import forecast
from editsafety.lab.forecast import Shape
from editsafety.model import room
from editsafety.model.loading import ModelSpec
from editsafety.runs.plan import RunPlan
from editsafety.runs.settings import Settings
from tests import tiny

CPU = torch.device("cpu")


def plan(model: str, *editors: str, **more: object) -> RunPlan:
    return RunPlan.of(Settings((model,), editors, limit=3, **more))  # type: ignore[arg-type]


def test_shapes_are_the_published_ones() -> None:
    assert Shape.of(ModelSpec("random:gpt2")) == Shape("gpt2", 124_439_808, 12, 768, 3072, 50257)
    llama = Shape.of(ModelSpec("random:llama-3-8b"))
    assert llama == Shape("llama", 8_030_261_248, 32, 4096, 14336, 128256)
    assert Shape.of(ModelSpec("nobody/has-this-model")) is None


def test_llama_3_8b_does_not_fit_in_24_gigabytes_with_memit_unless_the_factors_go_to_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "whole_memory", lambda _: 24 << 30)
    model = "random:llama-3-8b"
    found = forecast.of(plan(model, "memit"), model, ModelSpec(model, dtype="auto"), [torch.device("cuda")])
    assert found is not None
    assert found.spec.dtype == "bfloat16"
    places = {need.what: (need.place, need.size) for need in found.needs}
    assert places["weights"] == ("device", 2 * 8_030_261_248)
    assert places["their factors"] == ("host", 6 * 14336**2 * 8)  # five layers, and one that is being made
    assert "a copy of the weights, to bring them back from" not in places  # past 4 GiB it is loaded again
    assert found.held("device") < 20 << 30


def test_on_a_cpu_device_and_host_are_one_memory_and_a_small_model_is_kept_twice() -> None:
    found = forecast.of(plan("pocket-neo", "rome"), "pocket-neo", ModelSpec("pocket-neo", "cpu"), [CPU])
    assert found is not None
    assert found.held("device") == found.held("host") == sum(need.size for need in found.needs)
    weights = sum(need.size for need in found.needs if "weights" in need.what)
    assert weights == 2 * 4 * found.shape.parameters


def test_what_a_policy_asks_for_beside_the_usual_is_counted_or_said_to_be_left_out() -> None:
    usual, ship = (
        forecast.of(plan("pocket-neo", "noop", policy=policy), "pocket-neo", ModelSpec("pocket-neo", "cpu"), [CPU])
        for policy in ("default", "ship")
    )
    assert usual is not None
    assert ship is not None
    (before,), (after,) = ({one.operations for one in found.work if one.editor == "noop"} for found in (usual, ship))
    asked = sum(count or 0 for count in forecast.TOKENS_OF.values())
    assert after == pytest.approx(before + 2 * ship.shape.parameters * asked)
    assert after > 10 * before  # 120 replies alone are 18,000 tokens; fifty texts are 1,600
    assert usual.uncounted == ()
    assert set(ship.uncounted) == {"calibration", "portability", "survives_reload"}


def test_every_measure_that_only_some_policies_ask_for_has_a_count_or_says_why_not() -> None:
    asked = measures.needed(Policy.read("ship").measured)
    assert {one.name for one in asked if not getattr(one, "default", True)} <= forecast.TOKENS_OF.keys()


def test_cases_of_every_editor_and_control_are_counted() -> None:
    made = plan("pocket-neo", "rome", "ft")
    found = forecast.of(made, "pocket-neo", ModelSpec("pocket-neo", "cpu"), [CPU])
    assert found is not None
    assert sum(one.cases for one in found.work) == len(made.cases) + len(made.controls)
    known = [one for one in found.work if one.operations is not None]
    total = sum(one.cases * one.operations for one in known if one.operations)
    assert found.seconds(1e9) == pytest.approx(total / 1e9 / forecast.REACHED)
    assert {one.editor for one in known} >= {"rome", "ft", "noop"}


def test_the_operations_of_a_search_for_v_are_of_the_order_that_a_run_counts(tmp_path: Path) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    handle = tiny.handle("llama")
    numbers = TargetHparams(v_num_grad_steps=5, v_lr=0.1, v_weight_decay=0.1, clamp_norm_factor=4, v_stop_loss=0.0)
    contexts = ("{}", *(f"{sentence} {{}}" for sentence in tiny.SENTENCES[:4]))
    with FlopCounterMode(display=False) as counter:
        optimise(handle, handle.block(1), tiny.request(), contexts, numbers)
    rows = len(contexts) + 1
    expected = forecast.ACTIVATIONS * handle.parameters * rows * forecast.SUFFIX * numbers.v_num_grad_steps
    assert expected / 4 < counter.get_total_flops() < expected * 4
