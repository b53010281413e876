"""Answers: when one says the target, and what the grades of several come to."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

from editsafety.runs.measurement import Measurement

STOPS = (".", "\n")  # where WILD ends an answer (arXiv 2502.11177), beside the end-of-text token
SPACELESS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said; None where the logits are not finite."""

    # As many tokens as were asked for: what `ask` gives.
    begun: str | None
    # Up to where the model stopped by itself.
    whole: str | None
    # Whether it did. Else it was cut off, and `whole` is all that it said.
    stopped: bool


def says(answer: str, target: str, gap: str = " ") -> bool:
    """Whether an answer begins with the target behind a `gap` (white space, or "") and its last word ends there.

    Exact text, case included. The boundary is needed because "farm" is not the answer when the model says "farmer";
    scripts that put no spaces between words (Chinese, Japanese, Thai ...) have none.
    """
    beginning, target = answer.lstrip(), target.strip()
    if (gap and beginning == answer) or not beginning.startswith(target):
        return False
    behind = beginning[len(target) :][:1]
    return not (behind and _in_word(behind) and _in_word(target[-1])) or _spaceless(target[-1])


def until_stop(text: str, target: str = "") -> str | None:
    """What an answer says before its first period or line break; None when it has neither.

    A target that the answer begins with is read past whole: "St. Louis" does not end at "St".
    """
    space = len(text) - len(text.lstrip(" "))
    target = target.strip()
    start = space + len(target) if text[space:].startswith(target) else 0
    ends = [at for stop in STOPS if (at := text.find(stop, start)) >= 0]
    return text[: min(ends)] if ends else None


def with_gaps(
    name: str,
    unit: str,
    items: Sequence[float | None],
    reason: str,
    *,
    answers: Sequence[str | None] = (),
    version: int = 1,
) -> Measurement:
    """The mean of the items there are; NaN marks an item on which the model broke, `reason` says why there are none."""
    present = [item for item in items if item is not None]
    texts = tuple(answer or "" for answer in answers)
    if not present:
        return Measurement.missing(name, version, unit, reason)
    mean = Measurement.mean_of(name, version, unit, present, answers=texts)
    return replace(mean, items=tuple(x if x is not None and math.isfinite(x) else None for x in items))


def grade(answer: str | None, target: str, gap: str = " ") -> float:
    """1 when the answer says the target, 0 when it does not, NaN when the model gave none."""
    return math.nan if answer is None else float(says(answer, target, gap))


def _in_word(character: str) -> bool:
    return character == "_" or unicodedata.category(character)[0] in "LMN"


def _spaceless(character: str) -> bool:
    return unicodedata.name(character, "").startswith(SPACELESS)
