"""How many workers a machine has room for: GPUs first, then cores, then memory; the sentence says which decided."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from editsafety.lab import worker_count
from editsafety.lab.worker_count import WorkerCount, memory_of_worker, pick_workers, usable_cores
from editsafety.model import loading, room
from editsafety.model.loading import ModelSpec
from tests import tiny

GIB = 1 << 30
NEO = ModelSpec("pocket-neo", device="cpu")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 cores and 64 GiB of free memory."""
    monkeypatch.setattr(worker_count, "usable_cores", lambda: 16)
    monkeypatch.setattr(room, "free_memory", lambda: 64 * GIB)


@pytest.mark.usefixtures("machine")
def test_a_small_model_gets_a_worker_for_each_core() -> None:
    picked = pick_workers([NEO], 0)
    assert picked == WorkerCount(16, "one for each of 16 cores: 64.0 GiB of memory free, about 1.0 GiB each")


@pytest.mark.usefixtures("machine")
def test_memory_decides_where_a_model_is_large_and_the_largest_counts() -> None:
    # GPT-2 XL has 1,557,611,200 parameters: two copies in float32 are 11.6 GiB (a third is not kept), and one of torch.
    large = ModelSpec("random:gpt2-xl", device="cpu")
    needed = memory_of_worker([NEO, large])
    assert needed == GIB + 2 * 4 * 1_557_611_200
    picked = pick_workers([NEO, large], 0)
    assert picked.count == 64 * GIB // needed == 5
    assert picked.why == ("more do not fit, though there are 16 cores: 64.0 GiB of memory free, about 12.6 GiB each")


@pytest.mark.usefixtures("machine")
def test_one_worker_is_always_there_even_where_the_model_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "free_memory", lambda: GIB)
    assert pick_workers([ModelSpec("random:gpt2-xl", device="cpu")], 0).count == 1


@pytest.mark.usefixtures("machine")
def test_of_a_model_whose_size_nobody_knows_yet_only_cores_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.bin").touch()
    for name in ("somebody/a-model", str(tmp_path)):
        picked = pick_workers([NEO, ModelSpec(name, device="cpu")], 0)
        assert picked.count == 16
        assert "only be known when it is here" in picked.why
    monkeypatch.setattr(room, "free_memory", lambda: None)
    assert "does not tell how much memory is free" in pick_workers([NEO], 0).why


def test_a_model_of_ones_own_is_counted_by_its_files(tmp_path: Path) -> None:
    tiny.folder(tmp_path / "own")
    numbers = sum(weight.numel() for weight in tiny.handle("gpt2").model.parameters())
    assert memory_of_worker([ModelSpec(str(tmp_path / "own"))]) == GIB + 3 * 4 * numbers


@pytest.mark.parametrize(
    ("given", "gpus", "expected"), [("cuda", 4, 4), ("cuda", 0, 1), ("cuda:2", 4, 1), ("mps", 0, 1)]
)
def test_gpus_take_one_worker_each_and_a_single_device_takes_one(
    monkeypatch: pytest.MonkeyPatch, given: str, gpus: int, expected: int
) -> None:
    monkeypatch.setattr(loading, "pick_device", torch.device)
    picked = pick_workers([ModelSpec("pocket-neo", device=given)], gpus)
    assert picked.count == expected
    assert ("visible GPU" in picked.why) is (given == "cuda")
    assert (f"share one {given}" in picked.why) is (given != "cuda")


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("9900000 100000", 8)]
)
def test_a_container_has_no_more_cores_than_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(worker_count, "CPU_QUOTA", tmp_path / "cpu.max")
    assert usable_cores() == 8
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert usable_cores() == expected
