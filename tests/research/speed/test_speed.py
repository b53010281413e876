"""Races: both ways of every pair in alternation, the ratio of each pair, and how far apart their results are."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from editsafety.errors import UsageError
from editsafety.research.speed import Pair, Race, race
from editsafety.research.speed.jobs import JOBS, chosen
from editsafety.research.speed.machine import matmul_rate, operations


def test_ratios_are_of_pairs_and_their_median_counts() -> None:
    found = Race(slow=(2.0, 9.0, 4.0), fast=(1.0, 3.0, 4.0), apart=0.0)
    assert found.ratios == (2.0, 3.0, 1.0)
    assert found.median == 2.0
    assert found.seconds == (4.0, 3.0)


def test_every_other_pair_is_run_the_other_way_round_and_made_ready_first() -> None:
    ran: list[str] = []

    def way(name: str, result: float) -> float:
        ran.append(name)
        return result

    pair = Pair(
        partial(way, "slow", 1.0),
        partial(way, "fast", 1.5),
        lambda slow, fast: fast - slow,
        ready_fast=lambda: ran.append("ready"),
    )
    found = race([pair, pair], torch.device("cpu"), lambda: ran.append("done"))
    assert ran == ["slow", "ready", "fast", "done", "ready", "fast", "slow", "done"]
    assert found.apart == 0.5
    assert len(found.slow) == len(found.fast) == 2


def test_the_operations_of_a_product_are_two_for_each_multiplication() -> None:
    one, other = torch.ones(3, 5), torch.ones(5, 7)
    assert operations(lambda: one @ other) == 2 * 3 * 5 * 7
    assert matmul_rate(torch.device("cpu")) > 1e8  # slower than any machine that this runs on


def test_a_job_can_be_run_on_another_model_and_one_that_there_is_not_is_refused_with_those_there_are() -> None:
    assert [job.name for job in chosen([])] == list(JOBS)
    (job,) = chosen(["questions"], "random:gpt2")
    assert [(one.name, one.target) for one in chosen(["memit-128", "rome-3"])] == [("memit-128", 4.5), ("rome-3", 4.5)]
    assert (job.name, job.model) == ("questions", "random:gpt2")
    for wrong in ("quetsions", "memit-0", "memit-", "ft-8", "memit-1e9"):
        with pytest.raises(UsageError, match=f"no job '{wrong}'"):
            chosen([wrong])
