"""On the hard cases ROME must collapse the model, C-ROME must not, and an edit that does nothing must be called so."""

import pytest

pytestmark = pytest.mark.editsafety


def test_the_control_editor_comes_out_as_it_must(judged_control):
    judged_control()
