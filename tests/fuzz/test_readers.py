"""No file, however damaged, is read to anything but a value or one of our sentences."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings

from tests.fuzz import checking, findings
from tests.fuzz.targets import TARGETS, Target


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_damaged_file_is_a_value_or_a_sentence(target: Target) -> None:
    @settings(max_examples=target.examples, suppress_health_check=list(HealthCheck))
    @given(files=target.files)
    def tried(files):
        checking.check(target, files)

    for files in findings.of(target.name):
        tried = example(files=files)(tried)
    tried()
