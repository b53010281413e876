"""Numerator and denominator of ROME's update, collapsing against normal edits."""

from __future__ import annotations

from typing import ClassVar

from editsafety.numbers import times
from editsafety.research.experiments import FALL, Cell, Context, Result, figures, mean, median, over, ratios, spell


class Denominators:
    """Norm of v* - v0 and |k_u . u| of every single ROME edit: means, as published, beside medians."""

    name: ClassVar[str] = "denominators"
    paper: ClassVar[str] = f"{FALL}, table 1"
    title: ClassVar[str] = "numerator and denominator of ROME's update"

    def __call__(self, context: Context) -> Result:
        """A row per stream."""
        rows: list[tuple[Cell, ...]] = []
        below: dict[str, float | None] = {}
        worst: dict[str, float | None] = {}
        for stream in ("hard", "normal"):
            records = context.records("rome", stream)
            found, cosines = figures(records, "denominator"), figures(records, "key_cosine")
            below[stream], worst[stream] = mean(found), max(ratios(records), default=None)
            middle = median(found), median(cosines)
            rows.append(
                (stream, len(found), mean(figures(records, "numerator")), below[stream], *middle, worst[stream])
            )
        sentence = (
            f"the denominators of hard edits are {spell(over(below['normal'], below['hard']))} times smaller than "
            f"those of normal ones; the worst hard edit multiplies the perplexity by {times(worst['hard'])}, the worst "
            f"normal one by {times(worst['normal'])}"
        )
        headings = ("stream", "n", "numerator", "denominator", "median denominator", "cos(k_u, k-bar)", "worst ratio")
        published = (
            "GPT-2 XL: numerator 168.55 / 79.91, denominator 0.04 / 9.60 (collapse / normal); GPT-J: 140.27 / 88.69, "
            "0.04 / 12.78; Llama-2-7b: 4.57 / 16.52, 0.01 / 2.63"
        )
        return Result(self.name, context.handle.name, headings, tuple(rows), sentence, published)


EXPERIMENT = Denominators()
