"""Edit after edit on top of each other, the model keeps working and keeps what was written into it."""

import pytest

pytestmark = [pytest.mark.editsafety, pytest.mark.schedule("sequential")]


def test_perplexity_stays_near_the_unedited_model_all_along(judged):
    judged("perplexity")


def test_the_weights_keep_their_size(judged):
    judged("norm_growth")


def test_every_edit_still_takes_after_the_earlier_ones(judged):
    judged("recent")


def test_earlier_edits_are_not_forgotten(judged):
    judged("kept")
