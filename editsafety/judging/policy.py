"""Policy: the limits in a file. No torch here.

Comparisons are written so that a number that is not there, or not a number, fails. What is judged against the limits is
in checks.py.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from editsafety import yaml_files
from editsafety.errors import UnknownNameError, UsageError
from editsafety.judging.baselines.tolerance import Tolerance
from editsafety.judging.verdict import Verdict
from editsafety.numbers import exact
from editsafety.runs.settings import Settings
from editsafety.shipped import shipped

Limit = Field(default=None, allow_inf_nan=False, strict=True, ge=0)
COLLAPSE = 2.0  # the default policy's; for a policy that has no limit on perplexity, and where no policy is given
SLACK = 1e-9  # rates are sums of fractions; a drop of two items must not fail for a rounding error
RESERVED = (
    *("abilities", "walked", "restore", "undeclared", "leftovers", "changes_something", "order", "prepared"),
    "complete",
)


class Threshold(BaseModel):
    """One limit: a measure, the figure made of it, where it passes, where it only warns, and what failing is called."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    measure: str
    figure: Literal["after", "before", "ratio", "drop"]
    pass_at_most: float | None = Limit
    warn_at_most: float | None = Limit
    pass_at_least: float | None = Limit
    warn_at_least: float | None = Limit
    pass_at_most_of_even: float | None = Limit  # of me_ppl: likewise, as a share of what an even guess has (`ppl_even`)
    over: Literal["worst", "last", "mean"] = "worst"  # of a course: which of its steps, or the mean of all
    fails_as: Verdict = Verdict.WARN
    means: str = ""  # what it says of the model where it does not pass, for whoever reads the verdict
    why: str

    @field_validator("fails_as")
    @classmethod
    def _can_fail(cls, fails_as: Verdict) -> Verdict:
        if fails_as in (Verdict.PASS, Verdict.REGRESSED, Verdict.INCOMPLETE):
            raise ValueError(f"a limit cannot fail as {fails_as.value}")
        return fails_as

    @model_validator(mode="after")
    def _one_direction(self) -> Threshold:
        most, least = self.pass_at_most, self.pass_at_least
        if (most is None) == (least is None):
            raise ValueError("give exactly one of pass_at_most and pass_at_least")
        if most is not None and self.warn_at_least is not None:
            raise ValueError("warn_at_least goes with pass_at_least, not with pass_at_most")
        if self.pass_at_most_of_even is not None and (
            most is None or self.measure != "me_ppl" or self.figure == "ratio"
        ):
            raise ValueError("pass_at_most_of_even goes with pass_at_most, on me_ppl before or after an edit")
        if least is not None and self.warn_at_most is not None:
            raise ValueError("warn_at_most goes with pass_at_most, not with pass_at_least")
        if most is not None and self.warn_at_most is not None and self.warn_at_most < most:
            raise ValueError(f"warn_at_most ({self.warn_at_most:g}) must be at or above pass_at_most ({most:g})")
        if least is not None and self.warn_at_least is not None and self.warn_at_least > least:
            raise ValueError(f"warn_at_least ({self.warn_at_least:g}) must be at or below pass_at_least ({least:g})")
        return self

    def verdict(self, figure: float | None) -> Verdict:
        """PASS, WARN or what failing is called; None and NaN fail."""
        if figure is None or math.isnan(figure):
            return self.fails_as
        if self.pass_at_most is not None:
            inside, nearly = figure <= self.pass_at_most, self.warn_at_most is not None and figure <= self.warn_at_most
        else:
            assert self.pass_at_least is not None
            inside = figure >= self.pass_at_least
            nearly = self.warn_at_least is not None and figure >= self.warn_at_least
        return Verdict.PASS if inside else Verdict.WARN if nearly else self.fails_as

    @property
    def unjudged(self) -> Verdict:
        """What it comes to when there is nothing to judge: an error, unless the limit could only have warned."""
        return Verdict.WARN if self.fails_as is Verdict.WARN else Verdict.ERROR

    @property
    def finds_collapse(self) -> bool:
        """Whether it is on the growth of perplexity, and fails as a collapse."""
        on_growth = self.measure == "me_ppl" and self.figure == "ratio" and self.pass_at_most is not None
        return on_growth and self.fails_as is Verdict.COLLAPSE

    def up_to(self, ratio: float) -> Threshold:
        """The limit with another end: it fails past the ratio, and passes where it did, if that is below."""
        passes = min(self.pass_at_most, ratio) if self.pass_at_most is not None else None
        return self.model_copy(update={"pass_at_most": passes, "warn_at_most": ratio})

    def within_even(self, even: float | None) -> Threshold:
        """The limit where an even guess has this perplexity: no further than its share of that."""
        if self.pass_at_most_of_even is None or self.pass_at_most is None or even is None:
            return self
        end = self.pass_at_most_of_even * even
        most = min(self.pass_at_most, end)
        warn = None if self.warn_at_most is None else max(min(self.warn_at_most, end), most)
        if (most, warn) == (self.pass_at_most, self.warn_at_most):
            return self
        return self.model_copy(update={"pass_at_most": most, "warn_at_most": warn})

    @property
    def limit(self) -> str:
        """The limit in words: "at most 1.25"."""
        if self.pass_at_most is not None:
            return f"at most {self.pass_at_most:g}"
        return f"at least {self.pass_at_least:g}"

    def spelled(self, figure: float | None, *, first: str = "") -> str:
        """A figure with as many digits as it takes to see on which side of the limits it is; `first` is tried first."""
        if figure is None or not math.isfinite(figure):
            return "is not finite"
        verdict = self.verdict(figure)
        if first and self.verdict(float(first)) is verdict:
            return first
        for digits in (4, 7):
            if self.verdict(float(text := exact(figure, digits))) is verdict:
                return text
        return repr(figure)


class AbilityLimit(BaseModel):
    """What an ability may lose against the unedited model, on the same items, at the worst step of a course.

    It passes up to so many noise floors (see `drop`), warns up to so many points (1 = all items).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    pass_at_most_floors: float = Field(allow_inf_nan=False, strict=True, ge=0)
    warn_at_most: float = Field(allow_inf_nan=False, strict=True, ge=0)
    fails_as: Verdict = Verdict.DAMAGED
    why: str

    def verdict(self, drop: float, floor: float) -> Verdict:
        """PASS, WARN or what failing is called; NaN fails."""
        if drop <= self.pass_at_most_floors * floor + SLACK:
            return Verdict.PASS
        return Verdict.WARN if drop <= self.warn_at_most + SLACK else self.fails_as


class Policy(BaseModel):
    """Limits per case, per group (one editor on one model and stream), per course, and on abilities along a course.

    `baseline` has what may be lost against a baseline, by figure: a measurement, or `perplexity_ratio`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    case: dict[str, Threshold]
    group: dict[str, Threshold]
    course: dict[str, Threshold] = {}
    abilities: AbilityLimit | None = None
    baseline: dict[str, Tolerance] = {}

    @model_validator(mode="after")
    def _can_be_judged(self) -> Policy:
        if not self.case:
            raise ValueError("case has no limit at all, so no collapse could be found")
        for name in RESERVED:
            if name in self.case or name in self.group or name in self.course:
                raise ValueError(f"the name {name!r} is taken by a check that needs no limit; call yours differently")
        for name, threshold in (*self.case.items(), *self.group.items()):
            if threshold.over != "worst":
                raise ValueError(f"{name}.over is {threshold.over!r}; only courses have several steps")
        for name, threshold in self.group.items():
            if threshold.figure != "after":
                raise ValueError(f"group.{name}.figure is {threshold.figure!r}; groups are judged by 'after' only")
        return self

    @property
    def collapse(self) -> float:
        """The perplexity ratio past which a model counts as broken: where a course stops and is bisected."""
        limits = (limit for limit in (*self.course.values(), *self.case.values()) if limit.finds_collapse)
        ends = (limit.warn_at_most or limit.pass_at_most for limit in limits)
        return next((end for end in ends if end is not None), COLLAPSE)

    @property
    def limits(self) -> frozenset[str]:
        """The names of its limits on cases, groups and courses."""
        return frozenset((*self.case, *self.group, *self.course))

    @property
    def measured(self) -> frozenset[str]:
        """The measurements that its limits are on."""
        parts = (self.case, self.group, self.course)
        return frozenset(threshold.measure for part in parts for threshold in part.values())

    @classmethod
    def read(cls, name: str | Path) -> Policy:
        """A policy by name (`default`: a file in suites/policies) or by path. Raises UsageError naming a wrong key."""
        path = Path(name)
        if path.suffix not in {".yaml", ".yml"}:
            path = shipped("suites") / "policies" / f"{name}.yaml"
        if not path.is_file():
            known = [p.stem for p in (shipped("suites") / "policies").glob("*.yaml")]
            raise UnknownNameError("policy", str(name), known, "Or give the path of a .yaml file.")
        try:
            return cls.model_validate(_mapping(path))
        except ValidationError as error:
            raise UsageError(f"{path.name}: {_said(error)}") from error

    @classmethod
    def every(cls) -> tuple[Policy, ...]:
        """The shipped policies, by name."""
        return tuple(cls.read(path.stem) for path in sorted((shipped("suites") / "policies").glob("*.yaml")))

    def expect_left_out(self, kind: str, name: str, known: Iterable[str]) -> None:
        """Pass for a limit of a shipped policy, which the suites were written for, that this policy leaves out.

        Raises UsageError for any other name: no policy has a check of that name among those `known`.
        """
        shipped_limits = {limit for policy in Policy.every() for limit in policy.limits}
        if name not in shipped_limits or name in self.limits:
            raise UsageError(f"policy {self.name} has no {kind} check {name!r}. Known: {', '.join(known)}.")

    def own_checks(self, courses: Collection[bool]) -> list[str]:
        """Its checks that the default policy has not, of single edits (False in `courses`) and of courses (True)."""
        usual = Policy.read("default")
        singles = sorted({*self.case, *self.group} - {*usual.case, *usual.group}) if False in courses else []
        walked = sorted({*self.course} - {*usual.course}) if True in courses else []
        return [*singles, *(f"course {name}" for name in walked)]

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        """The policy of a run, with the limit on perplexity that was asked for in place of its own."""
        policy = cls.read(settings.policy)
        return policy if settings.collapse_above is None else policy.with_collapse_above(settings.collapse_above)

    @property
    def on_base(self) -> dict[str, Threshold]:
        """Its limits on the unedited model alone: where one fails, nothing that was compared with that model counts."""
        limits = {**self.case, **self.course}
        return {name: limit for name, limit in limits.items() if limit.figure == "before"}

    def with_collapse_above(self, ratio: float) -> Policy:
        """The policy with another perplexity ratio past which a model has collapsed.

        Raises UsageError for a policy that has no such limit.
        """

        def moved(limits: dict[str, Threshold]) -> dict[str, Threshold]:
            return {name: limit.up_to(ratio) if limit.finds_collapse else limit for name, limit in limits.items()}

        if not any(limit.finds_collapse for limit in (*self.case.values(), *self.course.values())):
            raise UsageError(
                f"policy {self.name} has no limit on the ratio of me_ppl that fails as COLLAPSE, so --collapse-above "
                "has nothing to move. Add one to its file."
            )
        return self.model_copy(update={"case": moved(self.case), "course": moved(self.course)})

    def digest(self) -> str:
        """sha256 of the limits and their reasons; not of what they mean, in words."""
        words = {part: {"__all__": {"means"}} for part in ("case", "group", "course")}
        limits = self.model_dump(mode="json", exclude=words)
        return hashlib.sha256(json.dumps(limits, sort_keys=True).encode()).hexdigest()

    def refuse_unknown(self, measures: Iterable[str], along: Iterable[str] | None = None) -> None:
        """Raise UnknownNameError when a limit is on something that no measure gives: it could never be judged.

        `along` is what is measured at the steps of courses; None where there are no courses to be judged.
        """
        single = set(measures)
        parts = [("case", self.case, single), ("group", self.group, single)]
        if along is not None:
            parts.append(("course", self.course, {*along}))
        for part, limits, known in parts:
            for name, threshold in limits.items():
                if threshold.measure not in known:
                    where = f"It is {part}.{name}.measure of policy {self.name}."
                    raise UnknownNameError("measurement", threshold.measure, known, where)

    def refuse_below_noise(self, floor: float) -> None:
        """Raise UsageError when a perplexity limit is finer than what re-runs of the unedited model differ by."""
        for name, threshold in self.case.items():
            limit = threshold.pass_at_most
            gates = threshold.measure == "me_ppl" and threshold.figure == "ratio" and limit is not None
            if gates and limit is not None and not limit - 1 >= floor:  # a floor that is NaN refuses too
                raise UsageError(
                    f"policy {self.name}: {name} passes up to {limit:g}x, but re-runs of the unedited model differ by "
                    f"{floor:.2e}. No edit could be told from noise; raise the limit."
                )


def _mapping(path: Path) -> dict[Any, Any]:
    found = yaml_files.read(path, path.name)
    if not isinstance(found, dict):
        raise UsageError(f"{path.name}: expected the keys name, case and group, found {type(found).__name__}.")
    return found


def _said(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "policy"
    if first["type"] == "extra_forbidden":
        known = Threshold.model_fields if len(first["loc"]) > 1 else Policy.model_fields
        return f"unknown key {key}. Known keys: {', '.join(known)}."
    if first["type"] == "value_error":
        return f"{key}: {first['msg'].removeprefix('Value error, ')}."
    if first["type"] == "missing":
        return f"{key} is missing."
    return f"{key}: {first['msg'][:1].lower()}{first['msg'][1:]} (found {first['input']!r:.60})."
