"""What a limit can be on: known from the files of the measures, before torch is imported or a model is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from editsafety import discovery
from editsafety.errors import UsageError
from editsafety.judging.policy import Policy
from editsafety.runs.signals import STEP, WALK

_ASKED = ("scope", "gives", "columns")


def refuse_unmeasured(policy: Policy, abilities: Iterable[str] = (), also: Iterable[str] = ()) -> None:
    """Raise UnknownNameError for a limit on what no measure gives, in whichever part of the policy it stands.

    Raises UsageError where a figure has two owners, so that it could not be said whose is judged. `abilities` are the
    measurements of the probes that courses have, `also` what stored records hold of measures that are not installed
    here. Where a plug-in does not say what it gives, it is asked once the model is there.
    """
    found = {name: discovery.declared("measures", name, _ASKED) for name in discovery.names("measures")}
    abilities = tuple(abilities)
    _refuse_shared(found, abilities)
    said = list(found.values())
    if any("gives" not in one or "scope" not in one for one in said):
        return
    single = [*(name for one in said for name in one["gives"]), *also]
    # A course measures the model itself at every step, and of its requests what the policy asks for.
    along = [name for one in said if one["scope"] in ("model", "case") for name in one["gives"]]
    policy.refuse_unknown(single, [*along, *STEP, *abilities, *also])


def _refuse_shared(said: Mapping[str, Mapping[str, Any]], abilities: Iterable[str]) -> None:
    """Raise UsageError for a figure that two measures say they give, or show as their column."""
    owners = dict.fromkeys(WALK, "the walk of a course") | dict.fromkeys(abilities, "an ability")
    for measure, one in sorted(said.items(), key=lambda pair: discovery.origin("measures", pair[0]) != discovery.OURS):
        given = one.get("gives", [column.measurement for column in one.get("columns", ())])
        for figure in dict.fromkeys(given):
            if figure in owners:
                raise UsageError(
                    f"measure {measure} ({discovery.origin('measures', measure)}) gives {figure!r}, a figure of "
                    f"{owners[figure]}: one would silently stand for the other. Rename it, or uninstall the package."
                )
            owners[figure] = f"measure {measure}"
