"""Courses: walked once, kept in the store after every step, gone on with where they were left."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from editsafety import abilities, editors
from editsafety.editors import Editor
from editsafety.errors import UsageError
from editsafety.judging.policy import Policy
from editsafety.lab.trial import Bench
from editsafety.lab.walk import LIMIT, walk, why_not
from editsafety.measures import Probe
from editsafety.names import label, slug
from editsafety.numbers import times
from editsafety.progress import Progress, Task
from editsafety.runs.case_record import Failure
from editsafety.runs.course_record import CourseRecord
from editsafety.runs.plan import RunPlan
from editsafety.runs.schedule import Course
from editsafety.runs.store import Store

DEATHS = 2  # so often one block of edits may take its process with it before the course is given up


@dataclass(frozen=True, eq=False)
class Terms:
    """How a course is walked: past which perplexity ratio a model is broken, whether it ends there, which probes."""

    limit: float = LIMIT
    stop: bool = True
    probes: Sequence[Probe] = ()

    @classmethod
    def of(cls, plan: RunPlan, model: str) -> Self:
        """What a run's options and policy say of the courses of a model."""
        settings = plan.settings
        probes = tuple(abilities.load(spec, settings.probe_limit) for spec in plan.probes(model))
        return cls(Policy.read(settings.policy).collapse, not settings.go_on, probes)

    def shared(self, shared: str) -> str:
        """sha256 of what can change a record beside the course itself; `shared` is that of model, editor, measures.

        Raises UsageError for a probe whose `repr` does not say what it is (a function, say): it is another one in
        every process, and nothing would be found again.
        """
        probes = [repr(probe) for probe in self.probes]
        for probe in probes:
            if " at 0x" in probe:
                raise UsageError(f"probe {probe}: its repr has to tell what it measures. Make it a frozen dataclass.")
        return hashlib.sha256(f"{shared}:{self.limit!r}:{self.stop}:{probes!r}".encode()).hexdigest()


def refusal(course: Course) -> str | None:
    """Why an editor cannot go along a course's schedule: its traits. None when it can."""
    traits = editors.load(course.editor).traits
    return why_not(label(course.editor), traits, course.schedule, len(course.requests)) or None


def checkpoint_of(store: Store, key: str) -> Path:
    """Where the edited model of a course that is under way is kept."""
    return store.path.parent / "checkpoints" / f"{key[:16]}.safetensors"


def delta_of(store: Store, course: Course, key: str) -> Path:
    """Where the edit that breaks the model on a course is kept; another way to walk it has another file."""
    return store.path.parent / "breaking" / f"{course.id}-{key[:8]}.safetensors"


def walked(
    store: Store,
    progress: Progress,
    course: Course,
    terms: Terms,
    key: str,
    ready: Callable[[], tuple[Bench, Editor]],
) -> CourseRecord:
    """The whole record of a course that this process has claimed; `ready` loads what it needs.

    A process that dies on the way loses the edits since the last step. Where it dies twice in the same place, the
    course is given up. Raises what `walk` and `ready` raise.
    """
    known = store.course(key)
    deaths = store.start(key)
    try:
        record = (
            _given_up(course, known, deaths)
            if deaths >= DEATHS
            else _walked(store, progress, course, terms, key, known, ready())
        )
    except BaseException:
        store.leave(key)
        raise
    store.put_course(key, record)
    checkpoint_of(store, key).unlink(missing_ok=True)
    return record


def _walked(
    store: Store,
    progress: Progress,
    course: Course,
    terms: Terms,
    key: str,
    known: CourseRecord | None,
    tools: tuple[Bench, Editor],
) -> CourseRecord:
    said = f"{label(course.editor)} on {slug(course.model)}, {course.stream} {course.schedule.kind}"
    with progress.task(said, len(course.requests)) as task:

        def commit(now: CourseRecord) -> None:
            store.put_course(key, now)
            _tell(task, now)

        if known is not None and known.steps:
            _tell(task, known)
        return walk(
            *tools,
            course,
            known=known,
            checkpoints=checkpoint_of(store, key),
            delta=delta_of(store, course, key),
            limit=terms.limit,
            stop=terms.stop,
            probes=terms.probes,
            on_step=commit,
        )


def _tell(task: Task, record: CourseRecord) -> None:
    reached = sum(len(step.block) for step in record.steps)
    while task.done < min(reached, task.total):
        task.step(f"perplexity {times(record.ratios[-1])}")


def _given_up(course: Course, known: CourseRecord | None, deaths: int) -> CourseRecord:
    record = known or CourseRecord(
        course.id, slug(course.model), label(course.editor), course.stream, course.schedule, len(course.requests)
    )
    at = f" after edit {record.steps[-1].edits}" if record.steps else ""
    said = f"the process that walked this course died {deaths} times{at} (killed, crashed or out of memory)"
    return replace(record, failure=Failure("died", f"{said}; not tried again"), ended="failed")
