"""Causal tracing against a forward pass that is written out here, and what has to hold of any trace."""

from __future__ import annotations

import hashlib
import io
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from editsafety.artifacts import ArtifactStore
from editsafety.errors import UsageError
from editsafety.model.handle import ModelHandle
from editsafety.progress import Progress
from editsafety.research.tracing import tracing
from editsafety.research.tracing.effects import KINDS, CausalTrace
from editsafety.research.tracing.facts import LAST_OF_SUBJECT, KnownFact
from editsafety.research.tracing.runs import Protocol
from tests import tiny

SAMPLES = 2


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


@pytest.fixture
def handle() -> ModelHandle:
    return tiny.handle("gpt2", layers=4)


def fact_of(
    handle: ModelHandle,
    text: str = "The mother tongue of Ashurn is Velish, that of Mirel is",
    subject: tuple[int, int] = (2, 4),
) -> KnownFact:
    return KnownFact("case-0", tuple(handle.ids(text)), subject, 77)


def written_out(
    handle: ModelHandle, fact: KnownFact, noise: Tensor | None, clean: dict[Any, Tensor] | None, **at: int
) -> Any:
    """A GPT-2 block by block; `state`, `mlp` and `attention` say at which layers what is put back, at token `place`."""
    body: Any = handle.model.transformer
    ids = torch.tensor([fact.ids])
    hidden = body.wte(ids).clone()
    if noise is not None:
        hidden[:, fact.subject[0] : fact.subject[1] + 1] += noise
    hidden = hidden + body.wpe(torch.arange(ids.shape[1]))[None]
    seen: dict[Any, Tensor] = {}

    def put_back(kind: str, layer: int, output: Tensor) -> Tensor:
        seen[kind, layer] = output.clone()
        if clean is not None and at.get(f"{kind}_from", 1) <= layer <= at.get(f"{kind}_to", 0):
            output = output.clone()
            output[:, at["place"]] = clean[kind, layer][:, at["place"]]
        return output

    for layer, block in enumerate(body.h):
        hidden = hidden + put_back("attention", layer, block.attn(block.ln_1(hidden))[0])
        hidden = hidden + put_back("mlp", layer, block.mlp(block.ln_2(hidden)))
        hidden = put_back("state", layer, hidden)
    scores = handle.model.lm_head(body.ln_f(hidden))[0, -1]
    return scores.double().softmax(-1)[fact.answer].item(), seen


def noise_of(handle: ModelHandle, fact: KnownFact, seed: int) -> Tensor:
    """Three standard deviations of the subject's embeddings, by the seed of run and fact."""
    first, last = fact.subject
    drawn = torch.Generator().manual_seed(
        int.from_bytes(hashlib.sha256(f"{seed}:{fact.ids}".encode()).digest()[:8], "big") >> 1
    )
    spread = handle.model.transformer.wte(torch.tensor(fact.ids[first : last + 1])).std()
    return torch.randn(SAMPLES, last - first + 1, tiny.WIDTH, generator=drawn) * 3 * spread


def traced(
    handle: ModelHandle, facts: list[KnownFact], artifacts: ArtifactStore, progress: Progress | None = None, **more: Any
) -> CausalTrace:
    return tracing.trace_facts(handle, facts, Protocol(**{"samples": SAMPLES, **more}), artifacts, progress)


@torch.no_grad()
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_effects_are_those_of_a_forward_pass_that_is_written_out(
    handle: ModelHandle, artifacts: ArtifactStore, kind: str, plain: bool
) -> None:
    handle.engine.plain = plain
    fact = fact_of(handle)
    (found,) = traced(handle, [fact], artifacts, kinds=(kind,), window=2, seed=5).facts
    p, clean = written_out(handle, fact, None, None)
    noise = noise_of(handle, fact, 5)
    corrupted = statistics.fmean(written_out(handle, fact, one, None)[0] for one in noise)
    assert found.clean == pytest.approx(p, rel=1e-4)
    assert found.corrupted == pytest.approx(corrupted, rel=1e-4)
    assert len(fact.ids) > 7
    for place in (2, 3, 4, 5, len(fact.ids) - 1):  # each alone in its class
        for layer in range(4):
            low, high = (layer, layer) if kind == "state" else (layer - 1, layer)  # a window of two: itself, one below
            span = {f"{kind}_from": max(low, 0), f"{kind}_to": high, "place": place}
            expected = statistics.fmean(written_out(handle, fact, one, clean, **span)[0] for one in noise) - corrupted
            assert found.effects[kind][fact.class_of(place)][layer] == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_the_last_state_brings_the_whole_answer_back_and_nothing_else_above_it_counts(
    handle: ModelHandle, artifacts: ArtifactStore
) -> None:
    (found,) = traced(handle, [fact_of(handle)], artifacts, kinds=("state",)).facts
    states = found.effects["state"]
    assert states["last token"][-1] == pytest.approx(found.clean - found.corrupted, rel=1e-5)
    assert all(abs(states[name][-1]) < 1e-9 for name in states if name != "last token")


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_family_can_be_traced_and_neither_batches_nor_entering_change_anything(
    family: str, tmp_path: Path
) -> None:
    handle = tiny.handle(family)
    fact = fact_of(handle)
    entered = traced(handle, [fact], ArtifactStore(tmp_path / "one"), samples=1, window=2, batch_size=7)
    handle.engine.plain = True
    plain = traced(handle, [fact], ArtifactStore(tmp_path / "two"), samples=1, window=2, batch_size=64)
    for ours, theirs in zip(entered.averages, plain.averages, strict=True):
        assert ours.mean == pytest.approx(theirs.mean, rel=1e-3, abs=1e-7)
    assert handle.fingerprint() == handle.identity
    assert not any(module._forward_hooks for module in handle.model.modules())


def test_a_fact_is_traced_alike_beside_others(handle: ModelHandle, tmp_path: Path) -> None:
    facts = [fact_of(handle), replace(fact_of(handle, "Toren lives in", (0, 1)), id="case-1")]
    stores = [ArtifactStore(tmp_path / name) for name in ("a", "b", "c", "d")]
    both, alone = traced(handle, facts, stores[0]), traced(handle, facts[:1], stores[1])
    assert both.noise != alone.noise  # of the embeddings of all subjects
    assert both.facts[0].clean == alone.facts[0].clean
    assert both == traced(handle, facts, stores[2])
    assert traced(handle, facts, stores[3], seed=1) != both


def test_an_interrupted_trace_goes_on_and_what_is_finished_is_not_run_again(
    handle: ModelHandle, artifacts: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = [fact_of(handle), replace(fact_of(handle, "Toren lives in", (0, 1)), id="case-1")]
    undisturbed = traced(handle, facts, ArtifactStore(tmp_path / "other"))
    run = tracing.trace_fact

    def interrupted(handle: ModelHandle, fact: KnownFact, *more: Any) -> Any:
        if fact.id == "case-1":
            raise KeyboardInterrupt
        return run(handle, fact, *more)

    monkeypatch.setattr(tracing, "trace_fact", interrupted)
    with pytest.raises(KeyboardInterrupt):
        traced(handle, facts, artifacts)
    monkeypatch.setattr(tracing, "trace_fact", run)
    said = io.StringIO()
    assert traced(handle, facts, artifacts, Progress(said)) == undisturbed
    assert "1 facts to trace" in said.getvalue()
    again = io.StringIO()
    assert traced(handle, facts, artifacts, Progress(again)) == undisturbed
    assert again.getvalue() == ""


def test_only_the_tokens_that_are_asked_for_are_restored(handle: ModelHandle, artifacts: ArtifactStore) -> None:
    (whole,) = traced(handle, [fact_of(handle)], artifacts).facts
    asked: dict[str, Any] = {"kinds": ("mlp",), "tokens": (LAST_OF_SUBJECT,)}
    said = io.StringIO()
    (found,) = traced(handle, [fact_of(handle)], artifacts, Progress(said), **asked).facts
    assert said.getvalue() == ""  # the whole trace holds it
    (few,) = traced(handle, [fact_of(handle)], ArtifactStore(artifacts.root / "other"), **asked).facts
    assert found.effects["mlp"] == {LAST_OF_SUBJECT: whole.effects["mlp"][LAST_OF_SUBJECT]}
    assert few.effects.keys() == {"mlp"}
    assert few.effects["mlp"].keys() == {LAST_OF_SUBJECT}
    # Where nothing comes back, what is left of a probability is its rounding in a batch of another size.
    expected = pytest.approx(whole.effects["mlp"][LAST_OF_SUBJECT], rel=1e-4, abs=1e-10)
    assert few.effects["mlp"][LAST_OF_SUBJECT] == expected


def test_as_large_a_share_of_the_layers_is_restored_as_in_rome() -> None:
    assert [Protocol.window_of(layers) for layers in (48, 30, 12, 4)] == [10, 6, 2, 1]
    with pytest.raises(UsageError, match="no kind of place 'embedding'"):
        Protocol(kinds=("embedding",))
