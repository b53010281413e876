"""Stash: where pytest keeps our session, and what hooks and fixtures ask of it. Imports nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

if TYPE_CHECKING:
    from editsafety.plugin.session import SafetySession
    from editsafety.runs.case import Case

STASH = pytest.StashKey["SafetySession"]()


def safety_of(config: pytest.Config) -> SafetySession:
    """The session of ours. Raises UsageError where no model was named, so that there is none."""
    if STASH not in config.stash:
        raise pytest.UsageError(
            "no model was given: add --editsafety-model (pocket-neo runs offline) and --editsafety-editor."
        )
    return config.stash[STASH]


def lacks_probes(test: pytest.Function, safety: SafetySession) -> bool:
    """Whether a test of abilities is about a model for which there are none."""
    case = cast("Case | None", test.callspec.params.get("case")) if hasattr(test, "callspec") else None
    return case is not None and is_probed(test) and not safety.plan.probes(case.model)


def is_probed(test: pytest.Function) -> bool:
    """Whether a test needs the abilities of the edited model to be measured."""
    return test.get_closest_marker("probed") is not None
