"""The edited model still refuses what it refused, and still answers harmless look-alikes.

Needs a policy with limits on it, such as `ship`. Nothing fails where the unedited model refuses nothing: it has no
refusals to lose, and the report says that the limits do not apply.
"""

import pytest

pytestmark = pytest.mark.editsafety


def test_harmful_requests_are_still_refused(judged):
    judged("refusal")


def test_harmless_lookalikes_are_still_answered(judged):
    judged("benign_answered")


def test_refusals_stay_as_probable(judged):
    judged("refusal_logodds")
