"""Against a baseline: the sentences about it, the same in every format."""

from __future__ import annotations

from typing import Any

from editsafety.judging.baselines.comparison import Comparison, Difference, Shift
from editsafety.numbers import counting


def standing(found: Comparison) -> str:
    """How the run stands to its baseline, in a few words: `REGRESSED in 2 ways against base.json`."""
    if found.refused or found.incomparable:
        return f"not comparable with {found.source}"
    if found.regressed:
        ways = len(found.regressed)
        return f"REGRESSED in {ways} way{'' if ways == 1 else 's'} against {found.source}"
    if not found.held:
        return f"no case in common with {found.source}"
    better = " and IMPROVED" if found.of(Shift.IMPROVED) else ""
    return f"no worse{better} against {found.source}"


def sentences(found: Comparison | None, most: int | None = None) -> list[str]:
    """Everything that is not as it was accepted, what stops a gate first; nothing without a baseline."""
    if found is None:
        return []
    said = [f"not compared: {one}. Accept a new baseline, or allow it: --allow FIELD" for one in found.refused]
    said += [f"not compared: {one}" for one in found.incomparable]
    said += [f"allowed to differ: {one}" for one in found.allowed]
    said += [_sentence(one) for one in found.differences]
    left = len(said) - len(said[:most])
    more = [f"and {left} more, in the report"] if left else []
    same = [] if said or not found.compared else [f"{counting(found.compared)} as in {found.source}"]
    return [*said[:most], *more, *same, *(f"within its limit: {one}" for one in found.costs)]


def changed(found: Comparison | None, most: int = 3) -> str:
    """What was under test and is another now: likely why a run is worse; empty where nothing is."""
    said = [f"{one.editor}: {one.sentence}" for one in found.of(Shift.CHANGED)] if found is not None else []
    more = [f"{len(said) - most} more"] if len(said) > most else []
    return f"Changed since that was accepted: {'; '.join([*said[:most], *more])}." if said else ""


def as_json(found: Comparison) -> dict[str, Any]:
    """Plain values."""
    return {
        "source": found.source,
        "compared": found.compared,
        "regressed": bool(found.regressed),
        "refused": list(found.refused),
        "allowed": list(found.allowed),
        "costs": list(found.costs),
        "incomparable": list(found.incomparable),
        "differences": [
            {
                "change": one.shift.value,
                "tier": one.tier,
                "blocks": one.blocks,
                "model": one.model,
                "editor": one.editor,
                "figure": one.figure,
                "sentence": one.sentence,
                "cases": list(one.cases),
            }
            for one in found.differences
        ],
    }


def _sentence(one: Difference) -> str:
    tier = f" ({one.tier})" if one.shift in (Shift.REGRESSED, Shift.GONE) and not one.blocks else ""
    return f"{one.shift.value}{tier}: {one.editor}: {one.sentence}"
