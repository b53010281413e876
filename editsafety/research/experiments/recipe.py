"""HardEdit's recipe, checked: how often requests that were written to be hard collapse the model."""

from __future__ import annotations

from typing import ClassVar

from editsafety.judging.policy import COLLAPSE
from editsafety.numbers import times
from editsafety.research.experiments import BUTTERFLY, Cell, Context, Result, median, ratios

PAST = f"past {COLLAPSE:g}x"


class Recipe:
    """Single edits of a set (`--hard hardedit`) by ROME, C-ROME and `--editor`, beside the normal requests."""

    name: ClassVar[str] = "recipe"
    paper: ClassVar[str] = f"{BUTTERFLY}, HardEdit"
    title: ClassVar[str] = "how often requests written to be hard collapse the model"

    def __call__(self, context: Context) -> Result:
        """A row per editor and stream."""
        rows: list[tuple[Cell, ...]] = []
        shares: dict[str, str] = {}
        for editor in dict.fromkeys(("rome", "c_rome", context.editor)):
            for stream in ("hard", "normal"):
                records = context.records(editor, stream)
                found = ratios(records)
                past = sum(not factor <= COLLAPSE for factor in found)
                first = sum(record.notes.get("first_token") is True for record in records)
                share = past / len(found) if found else None
                rows.append((editor, stream, len(found), first, past, share, median(found), max(found, default=None)))
                shares[f"{editor} {stream}"] = f"{past} of {len(found)}"
        worst = times(max((row[-1] for row in rows if isinstance(row[-1], float)), default=None))
        sentence = (
            f"{shares['rome hard']} hard requests collapse the model when ROME writes them alone, with C-ROME "
            f"{shares['c_rome hard']}; of normal ones with ROME {shares['rome normal']}; the worst multiplies the "
            f"perplexity by {worst}"
        )
        published = (
            "edited one on top of the other (about 470 edits), every method of FT, MEND, ROME and MEMIT ends above 1e3 "
            "on GPT-J and Llama-2-7b, and all but MEMIT (about 400) on GPT-2 XL"
        )
        headings = ("editor", "stream", "n", "one token first", PAST, "share", "median ratio", "worst ratio")
        return Result(self.name, context.handle.name, headings, tuple(rows), sentence, published)


EXPERIMENT = Recipe()
