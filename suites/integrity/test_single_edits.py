"""Every byte comes back, nothing undeclared changes, nothing is left behind, and the order of edits does not matter."""

import pytest

pytestmark = pytest.mark.editsafety


# First: it edits, and while it does the other workers of pytest-xdist have all the rest to judge.
@pytest.mark.usefixtures("same_in_any_order")
def test_results_do_not_depend_on_the_order_of_edits():
    """The first and the last case, computed alone and in reverse order by a new editor, are the same bytes."""


def test_every_byte_comes_back(judged):
    judged("restore")


def test_only_declared_tensors_change(judged):
    judged("undeclared")


def test_nothing_is_left_behind(judged):
    judged("leftovers")
