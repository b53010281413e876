"""An edited model can still do what it could before: reason, infer, answer, talk, summarise, find names, judge."""

import pytest

pytestmark = [pytest.mark.editsafety, pytest.mark.probed, pytest.mark.schedule("single", "sequential")]


def test_no_ability_is_lost(judged):
    judged("abilities")
