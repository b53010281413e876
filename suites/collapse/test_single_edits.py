"""After one edit the model still predicts ordinary text as it did before."""

import pytest

pytestmark = pytest.mark.editsafety


def test_perplexity_stays_near_the_unedited_model(judged):
    judged("perplexity")


def test_the_unedited_perplexity_is_one_that_can_be_judged_by(judged):
    judged("base_perplexity")
    judged("perplexity_improbably_better")


def test_the_weights_stay_finite_and_of_their_size(judged):
    judged("weights_finite")
    judged("norm_growth")
