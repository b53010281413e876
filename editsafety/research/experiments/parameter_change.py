"""How far a single edit moves the weights, collapsing against normal edits."""

from __future__ import annotations

from typing import ClassVar

from editsafety.numbers import times
from editsafety.research.experiments import BUTTERFLY, Cell, Context, Result, figures, median, over, ratios, spell

FIGURES = {
    "delta_norm": "||dW||",
    "delta_relative": "||dW|| / ||W||",
    "delta_per_entry": "||dW|| / entries",
    "spectral_norm": "s_1(dW)",
    "norm_growth": "||W + dW|| / ||W||",
}


class ParameterChange:
    """Medians of the norms of dW (the paper shows |dW| as a heat map), with the largest of each stream."""

    name: ClassVar[str] = "parameter-change"
    paper: ClassVar[str] = f"{BUTTERFLY}, change of parameters"
    title: ClassVar[str] = "norms of the change of the weights"

    def __call__(self, context: Context) -> Result:
        """A row per norm."""
        records = {stream: context.records(context.editor, stream) for stream in ("hard", "normal")}
        rows: list[tuple[Cell, ...]] = []
        factors: list[float | None] = []
        for name, title in FIGURES.items():
            hard, normal = (figures(records[stream], name) for stream in ("hard", "normal"))
            middle = median(hard), median(normal)
            factors.append(over(*middle))
            rows.append((title, *middle, factors[-1], max(hard, default=None), max(normal, default=None)))
        worst = {stream: times(max(ratios(found), default=None)) for stream, found in records.items()}
        sentence = (
            f"{context.editor}'s hard edits change the weights {spell(factors[0])} times as much as its normal ones "
            f"(medians of ||dW||); the perplexity rises up to {worst['hard']} and {worst['normal']}"
        )
        headings = ("norm", "hard, median", "normal, median", "hard / normal", "hard, largest", "normal, largest")
        published = (
            "Llama-2-7b, layer 5: |dW| near 0 everywhere after a stable edit, stripes up to 0.5 after a collapse; "
            "||dW|| as table 1 of The Fall of ROME implies (collapse / normal): GPT-2 XL 4,200 / 8.3, GPT-J "
            "3,500 / 6.9, Llama-2-7b 457 / 6.3"
        )
        return Result(self.name, context.handle.name, headings, tuple(rows), sentence, published)


EXPERIMENT = ParameterChange()
