"""Many facts in one edit, and such batches on top of each other, take and leave the model working."""

import pytest

pytestmark = [pytest.mark.editsafety, pytest.mark.schedule("batch", "batch-sequential")]


def test_perplexity_stays_near_the_unedited_model_for_every_batch(judged):
    judged("perplexity")


def test_the_weights_keep_their_size(judged):
    judged("norm_growth")


def test_the_facts_of_a_batch_take(judged):
    judged("recent")


def test_all_facts_written_so_far_are_kept(judged):
    judged("kept")
