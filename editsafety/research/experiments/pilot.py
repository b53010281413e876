"""Every single edit of a pool: the perplexity of each edited model, and the worst of them."""

from __future__ import annotations

from typing import ClassVar

from editsafety.judging.checks import ratio
from editsafety.numbers import times
from editsafety.research.experiments import BUTTERFLY, Cell, Context, Result, median, perplexity

LIMITS = (1.25, 2.0, 25.0)


class Pilot:
    """The scatter of the pilot figure as numbers; the pool are the normal requests (`--normal POOL`)."""

    name: ClassVar[str] = "pilot"
    paper: ClassVar[str] = f"{BUTTERFLY}, figure 1"
    title: ClassVar[str] = "perplexity after every single edit of a pool"

    def __call__(self, context: Context) -> Result:
        """A row for each of the worst edits."""
        records = context.records(context.editor, "normal")
        found = [(record, top) for record in records if (top := ratio(record)) is not None]
        found.sort(key=lambda pair: -pair[1])
        rows: list[tuple[Cell, ...]] = []
        for record, factor in found[: context.worst]:
            request = record.requests[0]
            one = "yes" if record.notes.get("first_token") is True else "no"
            rows.append((record.case, f"{request.filled} -> {request.target_new}", one, perplexity(record), factor))
        past = [sum(not top <= limit for _, top in found) for limit in LIMITS]
        hard = [record for record, top in found if not top <= LIMITS[1]]
        first = sum(record.notes.get("first_token") is True for record in hard)
        sentence = (
            f"of {len(found)} single edits by {context.editor} the median leaves the perplexity at "
            f"{times(median([top for _, top in found]))}; {past[0]} are past {LIMITS[0]}x, {past[1]} past "
            f"{LIMITS[1]:g}x, {past[2]} past {LIMITS[2]:g}x; of those past {LIMITS[1]:g}x, {first} have a subject of "
            "one token in first place"
        )
        published = (
            "ROME on GPT-J over COUNTERFACT (21,919 edits): nearly all at the base line, about a hundred between 1e3 "
            "and 86,000; the 30 worst have PIQA 0.53 (0.75 before), HellaSwag 0.26 (0.50), LAMBADA 0.0001 (0.61)"
        )
        headings = ("case", "edit", "one token first", "perplexity", "ratio")
        return Result(self.name, context.handle.name, headings, tuple(rows), sentence, published)


EXPERIMENT = Pilot()
