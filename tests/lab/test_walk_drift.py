"""Drift: checked against NumPy on the same matrices, and against matrices whose figures are known by construction."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from editsafety.edits.edit import Edit, Replace
from editsafety.edits.session import EditSession
from editsafety.lab import walk_drift
from editsafety.lab.walk_drift import Drift, Spectrum
from editsafety.model.architectures import Part
from editsafety.model.handle import ModelHandle
from tests import tiny


def changed(handle: ModelHandle, **values: Tensor) -> Edit:
    """Parameters (dots as two underscores) set to new values."""
    deltas = tuple(Replace(name.replace("__", "."), value) for name, value in values.items())
    return Edit("test", ("a",), handle.identity, deltas)


def measured(handle: ModelHandle, edit: Edit) -> dict[str, float | None]:
    with EditSession(handle) as session:
        session.apply(edit)
        return {name: found.value for name, found in Drift()(session).items()}


@pytest.mark.parametrize("exact", [walk_drift.EXACT, 1], ids=["decomposed", "by its Gram matrix"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("part", ["out", "in"])
def test_the_figures_are_those_of_numpy(family: str, part: str, exact: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_drift, "EXACT", exact)
    handle = tiny.handle(family)
    site = handle.mlp_out(1) if part == "out" else handle.sites(Part.MLP_IN, 1)[0]
    weight = handle.model.get_parameter(site.parameter).detach()
    value = weight + 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    found = measured(handle, Edit("test", ("a",), handle.identity, (Replace(site.parameter, value),)))
    was, now = (site.canonical(matrix).double().numpy() for matrix in (weight, value))
    u, s, _ = np.linalg.svd(was)
    v, t, _ = np.linalg.svd(now)
    k = 1  # 5 % of 32
    assert found["drift_relative"] == pytest.approx(np.linalg.norm(now - was) / np.linalg.norm(was))
    assert found["drift_growth"] == pytest.approx(np.linalg.norm(now) / np.linalg.norm(was))
    assert found["drift_spectral"] == pytest.approx(t[0] / s[0])
    assert found["drift_condition"] == pytest.approx((t[0] / t[-1]) / (s[0] / s[-1]), rel=1e-6)
    assert found["drift_overlap"] == pytest.approx(np.linalg.norm(u[:, :k].T @ v[:, :k]) ** 2 / k)
    assert found["weights_finite"] == 1.0


def test_of_several_matrices_the_worst_is_reported_and_one_item_each() -> None:
    handle = tiny.handle("gpt2")
    names = [handle.mlp_out(layer).parameter for layer in (0, 1)]
    weights = [handle.model.get_parameter(name).detach() for name in names]
    deltas = (Replace(names[0], weights[0] * 3), Replace(names[1], weights[1] * 0.5))
    with EditSession(handle) as session:
        session.apply(Edit("test", ("a",), handle.identity, deltas))
        found = Drift()(session)
    assert found["drift_relative"].items == pytest.approx((2.0, 0.5))
    assert found["drift_growth"].items == pytest.approx((3.0, 0.5))
    assert {name: found[name].value for name in ("drift_relative", "drift_growth", "drift_spectral")} == pytest.approx(
        {"drift_relative": 2.0, "drift_growth": 3.0, "drift_spectral": 3.0}
    )
    assert found["drift_condition"].value == pytest.approx(1.0)  # a scaled matrix is as well conditioned as before
    assert found["drift_overlap"].value == pytest.approx(1.0)


def test_the_overlap_is_of_the_output_side_and_zero_when_other_directions_lead() -> None:
    handle = tiny.handle("gpt2", square=True)
    site = handle.mlp_out(1)
    size = torch.linspace(10, 1, site.d_out)
    first = torch.diag(size)
    turned = torch.diag(size.flip(0))  # what led is last now
    mixed = first[:, torch.randperm(site.d_out, generator=torch.Generator().manual_seed(0))]  # inputs reordered
    drifts = []
    for value in (first, turned, mixed):
        with torch.no_grad():
            handle.model.get_parameter(site.parameter).copy_(site.stored(first))
        fresh = ModelHandle.of(handle.model, handle.tokenizer, name="tiny")
        drifts.append(measured(fresh, Edit("test", (), fresh.identity, (Replace(site.parameter, site.stored(value)),))))
    assert [one["drift_overlap"] for one in drifts] == pytest.approx([1.0, 0.0, 1.0], abs=1e-9)
    assert [one["drift_condition"] for one in drifts] == pytest.approx([1.0, 1.0, 1.0])


def test_a_rank_one_update_of_known_size_has_known_figures() -> None:
    handle = tiny.handle("llama")
    site = handle.mlp_out(1)
    with torch.no_grad():
        handle.model.get_parameter(site.parameter).copy_(torch.eye(site.d_out, site.d_in))
    handle = ModelHandle.of(handle.model, handle.tokenizer, name="tiny")
    value = torch.eye(site.d_out, site.d_in)
    value[0, 0] += 9.0  # singular values 10, 1, 1, ...: by hand
    found = measured(handle, Edit("test", (), handle.identity, (Replace(site.parameter, value),)))
    assert found["drift_relative"] == pytest.approx(9 / math.sqrt(32))
    assert found["drift_growth"] == pytest.approx(math.sqrt(131 / 32))
    assert found["drift_spectral"] == pytest.approx(10)
    assert found["drift_condition"] == pytest.approx(10)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_a_finding(bad: float) -> None:
    handle = tiny.handle("gpt2")
    names = [handle.mlp_out(layer).parameter for layer in (0, 1)]
    values = [handle.model.get_parameter(name).detach().clone() for name in names]
    values[0][3, 4] = bad
    with EditSession(handle) as session:
        session.apply(Edit("test", (), handle.identity, tuple(map(Replace, names, values))))
        found = Drift()(session)
    for name in walk_drift.FIGURES:
        assert found[name].value is None
        assert found[name].broken
        assert found[name].items[0] is None
        assert found[name].items[1] == pytest.approx(1.0 if name != "drift_relative" else 0.0)
    assert (found["weights_finite"].value, found["weights_finite"].broken) == (0.0, True)
    assert "1 of 2" in (found["drift_relative"].reason or "")


def test_where_nothing_can_be_compared_there_is_a_reason() -> None:
    handle = tiny.handle("gpt2")
    with EditSession(handle) as session:
        assert Drift()(session)["drift_growth"].reason == "no matrix was changed"
        bias = "transformer.h.1.mlp.c_proj.bias"
        session.apply(changed(handle, transformer__h__1__mlp__c_proj__bias=torch.ones(32)))
        found = Drift()(session)
        assert bias in session.declared()
        assert found["drift_relative"].value is None
        assert found["weights_finite"].value == 1.0
    site = handle.mlp_out(1)
    with torch.no_grad():
        handle.model.get_parameter(site.parameter).zero_()
    empty = ModelHandle.of(handle.model, handle.tokenizer, name="tiny")
    found_empty = measured(empty, Edit("t", (), empty.identity, (Replace(site.parameter, torch.ones(64, 32)),)))
    assert found_empty["drift_relative"] is None


def test_bfloat16_is_measured_in_float64() -> None:
    handle = tiny.handle("gpt2", dtype="bfloat16")
    site = handle.mlp_out(1)
    weight = handle.model.get_parameter(site.parameter).detach()
    found = measured(handle, Edit("test", (), handle.identity, (Replace(site.parameter, weight * 2),)))
    assert found["drift_growth"] == pytest.approx(2.0, rel=1e-12)  # doubling is exact


def test_originals_are_decomposed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = Spectrum.of

    def counted(matrix: Tensor) -> Spectrum:
        calls.append(1)
        return real(matrix)

    monkeypatch.setattr(Spectrum, "of", counted)
    handle = tiny.handle("gpt2")
    name = handle.mlp_out(1).parameter
    follow = Drift()
    with EditSession(handle) as session:
        for _ in range(3):
            session.apply(Edit("t", (), handle.identity, (Replace(name, handle.model.get_parameter(name) * 1.1),)))
            last = follow(session)
    assert len(calls) == 4
    assert last["drift_growth"].value == pytest.approx(1.1**3)


def test_the_gram_matrix_tells_nothing_of_the_smallest_values_and_says_so_by_a_bound() -> None:
    generator = torch.Generator().manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(40, 40, generator=generator).double())
    right, _ = torch.linalg.qr(torch.randn(60, 40, generator=generator).double())
    sizes = torch.logspace(0, -12, 40, dtype=torch.float64)
    matrix = left * sizes @ right.T
    assert Spectrum.of(matrix).condition == pytest.approx(1e12, rel=1e-2)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(walk_drift, "EXACT", 1)
        bounded = Spectrum.of(matrix)
    assert 1e6 < bounded.condition < 1e12
    assert bounded.largest == pytest.approx(1.0)
    assert float((bounded.leading.T @ left[:, :2]).square().sum()) == pytest.approx(2.0)
