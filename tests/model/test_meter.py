"""What a block took, and what is charged to it."""

from __future__ import annotations

import time

import pytest
import torch

from editsafety.model.meter import Effort, metered

CPU = torch.device("cpu")


def test_what_was_there_already_counts_as_if_it_had_been_worked_out() -> None:
    with metered(CPU) as effort:
        effort.charge(2.0, 1_000)
        effort.charge(3.0, None)
        time.sleep(0.01)
    assert effort.charged == 5.0
    assert 5.01 <= effort.seconds < 6.0
    assert effort.peak_bytes == 1_000


def test_of_two_peaks_the_larger_counts() -> None:
    with metered(CPU, memory=True) as effort:
        block = torch.ones(4_000_000)
        so_far = effort.peak_so_far()
        effort.charge(0.0, 1)
    if so_far is None:
        pytest.skip("this system does not tell the peak of memory")
    assert so_far >= block.numel() * block.element_size() // 2
    assert effort.peak_bytes is not None
    assert effort.peak_bytes >= so_far
    with metered(CPU, memory=True) as effort:
        effort.charge(0.0, 10**15)
    assert effort.peak_bytes == 10**15


def test_without_memory_nothing_is_known_of_it() -> None:
    with metered(CPU) as effort:
        assert effort.peak_so_far() is None
    assert effort.peak_bytes is None
    assert Effort().peak_so_far() is None
