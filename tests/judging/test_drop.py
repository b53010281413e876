"""What was lost between two measurements, in points and in noise floors."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from editsafety.abilities import Item, Probe
from editsafety.errors import UsageError
from editsafety.judging.drop import drop, noise_floor
from editsafety.runs.measurement import Measurement
from tests import tiny


def found(*items: float, name: str = "nli") -> Measurement:
    return Measurement.mean_of(name, 1, "rate", items)


def test_a_drop_is_the_mean_of_the_differences_and_its_error_is_that_of_pairs() -> None:
    before, after = (1.0, 1.0, 1.0, 0.0, 1.0, 0.5), (1.0, 0.0, 1.0, 1.0, 0.5, 0.5)
    lost = drop(found(*before), found(*after))
    changes = [b - a for b, a in zip(before, after, strict=True)]
    assert lost.drop == pytest.approx(statistics.mean(changes))
    assert lost.stderr == pytest.approx(statistics.stdev(changes) / math.sqrt(6))  # by the standard library
    assert (lost.n, lost.lost) == (6, 2)


def test_the_paired_error_is_smaller_than_that_of_the_two_scores() -> None:
    before = [1.0] * 50 + [0.0] * 50
    after = [1.0] * 45 + [0.0] * 55
    lost = drop(found(*before), found(*after))
    alone = math.hypot(found(*before).stderr or 0, found(*after).stderr or 0)
    assert lost.stderr is not None
    assert lost.stderr < alone / 3
    assert lost.drop == pytest.approx(0.05)


def test_a_noise_floor_is_one_item_where_re_runs_agree() -> None:
    before, after = found(*[1.0] * 40), found(*[1.0] * 37, 0.0, 0.0, 0.0)
    assert drop(before, after).floors == pytest.approx(3.0)
    assert drop(before, after, noise=0.01).floors == pytest.approx(3.0)  # never below one item
    assert drop(before, after, noise=0.05).floors == pytest.approx(1.5)
    assert drop(after, before).floors == pytest.approx(-3.0)
    assert drop(before, before).floors == 0.0


def test_a_limit_is_in_floors_and_a_broken_model_is_past_all_of_them() -> None:
    before, dead = found(1.0, 1.0), found(math.nan, 1.0)
    assert drop(before, found(1.0, 0.0)).within(1)
    assert not drop(before, found(0.0, 0.0)).within(1.9)
    lost = drop(before, dead)
    assert (lost.drop, lost.floors, lost.broken) == (None, math.inf, True)
    assert lost.reason == "after the edit: 1 of 2 items are not finite"
    assert not lost.within(1e9)


def test_what_was_not_measured_is_no_drop_of_nothing() -> None:
    lost = drop(Measurement.missing("nli", 1, "rate", "no time"), Measurement.missing("nli", 1, "rate", "no time"))
    assert (lost.drop, lost.floors, lost.reason) == (None, None, "before the edit: no time")
    assert not lost.within(1e9)


@pytest.mark.parametrize("other", [found(1.0), found(1.0, 1.0, name="piqa")])
def test_other_items_or_probes_cannot_be_compared(other: Measurement) -> None:
    with pytest.raises(UsageError, match="ask the same items"):
        drop(found(1.0, 1.0), other)


@pytest.mark.parametrize("noise", [math.nan, -0.1, math.inf])
def test_a_noise_that_is_no_spread_is_refused(noise: float) -> None:
    with pytest.raises(UsageError, match="no spread"):
        drop(found(1.0), found(1.0), noise=noise)


def test_the_noise_of_re_runs_is_their_spread() -> None:
    assert noise_floor([found(1.0, 0.0), found(1.0, 1.0), found(1.0, 0.5)]) == pytest.approx(0.5)
    with pytest.raises(UsageError, match="not finite"):
        noise_floor([found(1.0), found(math.nan)])
    with pytest.raises(UsageError, match="no runs"):
        noise_floor([])


def test_a_probe_on_an_unedited_model_has_no_noise() -> None:
    items = tuple(Item(f"i{i}", text, ("a farmer", "a baker"), i % 2) for i, text in enumerate(tiny.SENTENCES))
    probe, handle = Probe("nli", "nli", "choice", 0.5, items), tiny.handle("gpt2")
    assert noise_floor([probe(handle, size) for size in (64, 7, 1)]) == 0.0


def test_neither_drops_nor_probes_nor_readers_need_torch() -> None:
    code = (
        "import sys, editsafety.judging.drop\nfrom editsafety import abilities\n"
        "for name in abilities.readers(): abilities.reader_of(name)\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
