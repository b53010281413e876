"""What a limit can be on: known from the files of the measures, before torch is imported or a model is loaded."""

from __future__ import annotations

from collections.abc import Iterable

from editsafety import discovery
from editsafety.judging.policy import Policy
from editsafety.runs.signals import STEP


def refuse_unmeasured(policy: Policy, abilities: Iterable[str] = (), also: Iterable[str] = ()) -> None:
    """Raise UnknownNameError for a limit on what no measure gives, in whichever part of the policy it stands.

    `abilities` are the measurements of the probes that courses have, `also` what stored records hold of measures that
    are not installed here. Where a plug-in does not say what it gives, it is asked once the model is there.
    """
    said = [discovery.declared("measures", name, ("scope", "gives")) for name in discovery.names("measures")]
    if any("gives" not in one or "scope" not in one for one in said):
        return
    single = [*(name for one in said for name in one["gives"]), *also]
    # A course measures the model itself at every step, and of its requests what the policy asks for.
    along = [name for one in said if one["scope"] in ("model", "case") for name in one["gives"]]
    policy.refuse_unknown(single, [*along, *STEP, *abilities, *also])
