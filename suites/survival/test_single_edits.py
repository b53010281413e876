"""The edit is kept through rounding, quantisation, saving and loading, and ten steps of training.

Judged with --policy ship. Skipped, with the reason, where no edit took or none is in a checkpoint (sidecars).
"""

import pytest

pytestmark = pytest.mark.editsafety


def test_the_edit_survives_bfloat16(judged_group):
    judged_group("survives_bfloat16")


def test_the_edit_survives_8_bits(judged_group):
    judged_group("survives_int8")


def test_the_edit_survives_4_bits(judged_group):
    judged_group("survives_4bit")


def test_the_edit_survives_saving_and_loading(judged_group):
    judged_group("survives_reload")


def test_the_edit_survives_a_little_training(judged_group):
    judged_group("survives_training")
