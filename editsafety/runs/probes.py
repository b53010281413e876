"""Probes by name: which abilities a model is asked for, out of what a user typed. No torch."""

from __future__ import annotations

from editsafety.errors import UsageError
from editsafety.names import slug
from editsafety.shipped import shipped

WORLDS = ("pocket-world", "english")  # what ships: texts and abilities of each
FAMILIES = ("reasoning", "nli", "open_qa", "closed_qa", "dialogue", "summarisation", "ner", "sentiment")
NONE = "none"  # as a probe: measure no abilities


def written_out(probe: str, model: str) -> tuple[str, ...]:
    """The probes that a name means for a model: that of a world ("english") its eight families, any other one itself.

    A bare name ("nli") is a built-in probe about the world of the model. Raises UsageError where only another world has
    it: what a model makes of questions about a world that it never heard of says nothing.
    """
    if probe in WORLDS:
        return tuple(f"{probe}/abilities/{name}" for name in FAMILIES)
    own, other = WORLDS if model.startswith("pocket-") else WORLDS[::-1]
    if _has_probe(own, probe):
        return (f"{own}/abilities/{probe}",)
    if _has_probe(other, probe):
        raise UsageError(
            f"--probe {probe}: the built-in one asks about {other}, which {slug(model)} knows nothing of. Give a file "
            f"with items ({probe}:FILE or FILE.jsonl), or {other}/abilities/{probe} if that is meant."
        )
    return (probe,)


def _has_probe(world: str, name: str) -> bool:
    return name.isidentifier() and (shipped("data") / world / "abilities" / f"{name}.jsonl").is_file()
