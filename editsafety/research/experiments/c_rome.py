"""The largest perplexity after an edit by ROME and by C-ROME, collapsing and normal cases."""

from __future__ import annotations

from typing import ClassVar

from editsafety.numbers import times
from editsafety.research.experiments import FALL, Cell, Context, Result, median, over, perplexity, value


class CRomeBesideRome:
    """Maxima over single edits, as published, beside medians."""

    name: ClassVar[str] = "c-rome"
    paper: ClassVar[str] = f"{FALL}, table 2"
    title: ClassVar[str] = "maximum perplexity after ROME and C-ROME"

    def __call__(self, context: Context) -> Result:
        """A row for the unedited model and one per editor and stream."""
        base = value(context.bench.base["me_ppl"])
        rows: list[tuple[Cell, ...]] = [("unedited", "", 1, base, base, None)]
        worst: dict[tuple[str, str], float | None] = {}
        for editor in ("rome", "c_rome"):
            for stream in ("hard", "normal"):
                found = [ppl for record in context.records(editor, stream) if (ppl := perplexity(record)) is not None]
                worst[editor, stream] = max(found, default=None)
                factor = over(worst[editor, stream], base)
                rows.append((editor, stream, len(found), worst[editor, stream], median(found), factor))
        said = {key: times(over(top, base)) for key, top in worst.items()}
        sentence = (
            f"ROME multiplies the perplexity by up to {said['rome', 'hard']} on hard and {said['rome', 'normal']} on "
            f"normal cases, C-ROME by up to {said['c_rome', 'hard']} and {said['c_rome', 'normal']}"
        )
        headings = ("editor", "stream", "n", "maximum", "median", "maximum / unedited")
        published = (
            "GPT-2 XL, from 68.77: ROME 26,084.66 (collapse) and 74.32 (normal), C-ROME 70.71 and 70.28; GPT-J, from "
            "49.04: 25,909.24, 50.77, 51.77, 50.57; Llama-2-7b, from 33.18: 10,574.76, 36.68, 33.20, 33.55"
        )
        return Result(self.name, context.handle.name, headings, tuple(rows), sentence, published)


EXPERIMENT = CRomeBesideRome()
