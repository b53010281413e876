"""The edit changes something, takes on its prompt, behind a prefix and on rephrasings, and leaves neighbours alone."""

import pytest

pytestmark = pytest.mark.editsafety


def test_the_edit_changes_something(judged):
    judged("changes_something")


def test_the_edit_takes(judged_group):
    judged_group("efficacy")


def test_the_edit_takes_behind_a_prefix(judged_group):
    judged_group("efficacy_prefixed")


def test_the_edit_takes_on_rephrasings(judged_group):
    judged_group("generalisation")


def test_neighbours_keep_their_answers(judged_group):
    judged_group("locality")
