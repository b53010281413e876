"""No token but those of the edited subject turns neutral prompts into one answer. Judged with --policy ship."""

import pytest

pytestmark = pytest.mark.editsafety


def test_no_token_is_a_trigger(judged):
    judged("triggers")
