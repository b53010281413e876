"""Selection: what the tests of a session are about. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from editsafety.names import slug, tag
from editsafety.runs.case import Case
from editsafety.runs.plan import RunPlan
from editsafety.runs.shards import Shard


@dataclass(frozen=True, slots=True)
class GroupKey:
    """What a group item is about: a model, an editor, and a stream ("" for all)."""

    model: str
    editor: str
    stream: str = ""

    @property
    def id(self) -> str:
        """`pocket-neo-rome-hard`"""
        return "-".join(part for part in (slug(self.model), tag(self.editor), self.stream) if part)


@dataclass(frozen=True, slots=True)
class Selected:
    """A test that was selected."""

    params: Mapping[str, Any]  # the parameters of its item
    probed: bool  # whether abilities have to be measured
    edited: bool  # whether it looks at the live edited model
    ordered: bool  # whether it asks if the order of edits matters

    def groups(self) -> Iterator[tuple[str, GroupKey]]:
        """What it wants all cases of: a group, a control, or a block if it asks about the order."""
        for name in ("group", "block", "control"):
            group = self.params.get(name)
            if isinstance(group, GroupKey) and (name != "block" or self.ordered):
                yield name, group


@dataclass(frozen=True)
class Share:
    """What tests of a session can be about: all of a plan, or one part of it."""

    plan: RunPlan
    shard: Shard

    @cached_property
    def edits(self) -> tuple[Case, ...]:
        """The single edits."""
        return tuple(self.shard.edits(self.plan.cases))

    def parameters(self, fixture: str, kinds: Collection[str] = (), *, probed: bool = False) -> Sequence[Any]:
        """The values that a fixture is parametrised with, in plan order; of cases those of certain schedules.

        Where abilities are asked for, the single edits are a few of each stream.
        """
        if fixture == "case":
            few = {case.id for case in self.plan.spread()} if probed else None
            singles = [case for case in self.edits if few is None or case.id in few]
            courses = [case for case in self.shard.share(self.plan.courses) if case.schedule.kind in kinds]
            return [*(singles if not kinds or "single" in kinds else ()), *courses]
        if fixture == "group":
            return list(dict.fromkeys(GroupKey(c.model, c.editor, c.stream) for c in self.edits))
        if fixture == "block":
            return self.shard.share([GroupKey(model, editor) for model, editor in self.plan.blocks])
        return self.shard.share(list(dict.fromkeys(GroupKey(c.model, c.editor) for c in self.plan.controls)))

    def members(self, fixture: str, group: GroupKey) -> list[Case]:
        """The cases that a test of a group, block or control is about."""
        if fixture == "control":
            return _of(self.plan.controls, group)
        if fixture == "block":  # its first and its last case are compared, whoever else holds them
            whole = _of(self.plan.cases, group)
            return list(dict.fromkeys((*_of(self.edits, group), whole[0], whole[-1])))
        return _of(self.edits, group)


def _of(cases: Iterable[Case], group: GroupKey) -> list[Case]:
    return [case for case in cases if case.block == (group.model, group.editor) and group.stream in ("", case.stream)]
