"""Collapses and the edits beside them that stay, by hand, for what is said of their causes."""

from editsafety.judging import causes
from tests.builders import measured, record, stepped

# The figures of GPT-2 XL in "The Fall of ROME", table 1: numerator 168.55 over 0.04 where normal edits have 79.91 over
# 9.60.
FALL = {"denominator": 0.04, "numerator": 168.55, "update_norm": 4213.75, "first_token": True, "keys": "mixed"}
NORMAL = {"denominator": 9.60, "numerator": 79.91, "update_norm": 8.32, "first_token": False, "keys": "mixed"}


def stays(editor="rome", n=4, **notes):
    """Edits that stay; every note rises a little from one to the next."""
    made = [{k: v * (1 + i / 10) if isinstance(v, float) else v for k, v in notes.items()} for i in range(n)]
    return [record(editor, "normal", i, notes=one, norm=110.0 + i) for i, one in enumerate(made)]


def weighed(one, **figures):
    """The record with other weight figures."""
    found = {name: measured(name, value, unit="ratio") for name, value in figures.items()}
    return stepped(one, found={**one.after, **found})


def kinds(one, others=()):
    return [cause.kind for cause in causes.of_case(one, others)]
