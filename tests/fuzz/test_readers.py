"""No file, however damaged, is read to anything but a value that can be used, or one of our sentences."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, example, given, settings

from tests.fuzz import checking, findings
from tests.fuzz.targets import TARGETS, Target

TIMES = int(os.environ.get("FUZZ_TIMES", "1"))  # as many examples as usual, for a longer look at each
every_target = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


@every_target
def test_a_whole_file_is_taken(target: Target) -> None:
    assert checking.check(target, target.whole())


@every_target
def test_a_damaged_file_is_a_value_or_a_sentence(target: Target) -> None:
    @settings(max_examples=target.examples * TIMES, suppress_health_check=list(HealthCheck))
    @given(files=target.files)
    def tried(files):
        checking.check(target, files)

    for files in findings.of(target.name):
        tried = example(files=files)(tried)
    tried()
