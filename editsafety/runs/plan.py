"""RunPlan: which cases a run consists of, worked out from options and data files alone. No torch, no model here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from editsafety import __version__, datasets, discovery, hyperparameters
from editsafety.datasets.request import EditRequest
from editsafety.errors import UsageError
from editsafety.hyperparameters.carried import published
from editsafety.names import METHOD, label, slug, with_folder
from editsafety.progress import Progress
from editsafety.runs.case import Case, digest_of
from editsafety.runs.facts import Known, Wanted
from editsafety.runs.offers import HARDEDIT, ORDINARY, Ask, find_known, is_real, leaves_unknown_out, offer
from editsafety.runs.plan_files import code_digest, device_map, file_digest
from editsafety.runs.probes import NONE, WORLDS, written_out
from editsafety.runs.schedule import Schedule
from editsafety.runs.settings import Settings
from editsafety.runs.store import Store
from editsafety.shipped import shipped

Item = TypeVar("Item")
CONTROLS = {"rome": "COLLAPSE", "c_rome": "PASS", "noop": "NO-OP"}
ALL = "all"  # as an editor's name: every editor there is, but for the one that does nothing


@dataclass(frozen=True)
class RunPlan:
    """Every case that a run may have, and the texts of each model."""

    settings: Settings
    cases: tuple[Case, ...]  # single edits, in run order
    controls: tuple[Case, ...]  # of control editors, on the first hard requests
    texts: Mapping[str, tuple[str, ...]]  # for perplexity, by model
    sources: Mapping[str, str] = field(default_factory=dict)  # where requests and texts come from
    courses: tuple[Case, ...] = ()  # along every schedule of several edits
    unread: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # what of a source is in no request, in words
    only: str = ""  # the stream that alone is laid out; empty: both

    @classmethod
    def of(cls, settings: Settings, known: Mapping[str, Known] | None = None, *, only: str = "") -> RunPlan:
        """Read the data and lay out every case. Raises UsageError or DataError before any model is loaded.

        `known` are the answers of models, by name, of whose requests only known facts are taken (`keep_known`).
        """
        if not settings.models:
            raise UsageError(
                "no model was given. Name one: --model pocket-neo, a hub id, a local folder, random:gpt2-xl."
            )
        if not settings.editors:
            raise UsageError("no editor was given. Name one: --editor rome, or path/to/file.py:ClassName.")
        if settings.known and settings.all_facts:
            raise UsageError("--known and --all-facts were both given. Give one of them.")
        settings = replace(settings, editors=_expanded(settings))
        _refuse_stray_hparams(settings)
        for editor in settings.editors:
            discovery.expect_editor(editor)
        cases: list[Case] = []
        controls: list[Case] = []
        courses: list[Case] = []
        texts: dict[str, tuple[str, ...]] = {}
        sources: dict[str, str] = {}
        unread: dict[str, tuple[str, ...]] = {}
        for model in dict.fromkeys(settings.models):
            specs = streams(settings, model, only)
            answers = (known or {}).get(model)
            found = {name: offer(settings, model, spec, answers) for name, spec in specs.items() if spec}
            rows = {name: reading.requests for name, reading in found.items()}
            unread |= {f"{slug(model)} {name}": one.sentences for name, one in found.items() if one.sentences}
            spec = text_source(settings, model)
            texts[model] = datasets.texts(spec, limit=settings.texts, offline=settings.offline)
            sources |= {f"{slug(model)} {name}": spec for name, spec in {**specs, "texts": spec}.items() if spec}
            for editor in dict.fromkeys(settings.editors):
                cases += [Case(model, editor, stream, (row,)) for stream in rows for row in rows[stream]]
                courses += [one for stream in rows for one in courses_of(settings, model, editor, stream, rows[stream])]
            if "hard" in rows:
                few = rows["hard"][: settings.controls]
                for editor, expected in controls_for(model).items():
                    tentative = editor != "noop" and not is_known(model)
                    controls += [
                        Case(model, editor, "hard", (row,), control=expected, tentative=tentative)
                        for row in (few[:1] if editor == "noop" else few)
                    ]
        _refuse_duplicates([*cases, *controls])
        return cls(settings, tuple(cases), tuple(controls), texts, sources, tuple(courses), unread, only)

    @property
    def blocks(self) -> tuple[tuple[str, str], ...]:
        """(model, editor) pairs in run order."""
        return tuple(dict.fromkeys(case.block for case in self.cases))

    @property
    def every(self) -> tuple[Case, ...]:
        """Single edits, controls and courses."""
        return (*self.cases, *self.controls, *self.courses)

    def wanted(self, asked: Wanted) -> list[Case]:
        """The cases that a session is about, in plan order."""
        names, probed = set(asked.cases), set(asked.probed)
        found = ((case, case.id) for case in self.every)
        return [_probed(case, name in probed) for case, name in found if name in names]

    def spread(self) -> list[Case]:
        """The single edits whose abilities are measured when that is asked for: a few of each editor and stream.

        They are from among the requests that courses write.
        """
        streams: dict[tuple[str, str, str], list[Case]] = {}
        for case in self.cases:
            streams.setdefault((case.model, case.editor, case.stream), []).append(case)
        edits, singles = self.settings.edits, self.settings.singles
        return [case for cases in streams.values() for case in spread(cases[:edits], singles)]

    def probes(self, model: str) -> tuple[str, ...]:
        """The abilities that are measured along the courses of a model: those asked for, else those of a pocket model.

        Of any other one none: eight families cost minutes a step on a CPU, so they are asked for (`--probe english`).
        """
        if self.settings.probe == (NONE,):
            return ()
        asked = self.settings.probe or (WORLDS[:1] if model.startswith("pocket-") else ())
        return tuple(name for one in asked for name in written_out(one, model))

    @property
    def all_probes(self) -> tuple[str, ...]:
        """The abilities that are measured along the courses of any of its models."""
        return tuple(dict.fromkeys(name for model in self.settings.models for name in self.probes(model)))

    def case(self, case_id: str) -> Case:
        """A planned case by id. Raises KeyError."""
        case = next((case for case in self.every if case.id == case_id), None)
        if case is None:
            raise KeyError(case_id)
        return case

    def digest(self) -> str:
        """sha256 of what would be run: equal digests, the same run (that is how an interrupted one is found again).

        Of the files as they were when it was first asked for: a report is about what was planned, and a run of 100,000
        cases asks three times.
        """
        return self._digest

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """The digest of every single edit, by id: a report of 100,000 cases asks twice for each."""
        return dict(self._digests_of(self.cases))

    @cached_property
    def _digests_of_requests(self) -> Mapping[int, str]:
        """By identity: courses have the very requests of the single edits, each up to four times."""
        return {
            id(one): one.digest() for one in {id(one): one for case in self.every for one in case.requests}.values()
        }

    def _digests_of(self, cases: Iterable[Case]) -> Iterator[tuple[str, str]]:
        """Id and digest of each."""
        known = self._digests_of_requests
        return ((case.id, digest_of(case.schedule, (known[id(one)] for one in case.requests))) for case in cases)

    @cached_property
    def _digest(self) -> str:
        body = {
            "version": __version__,
            "settings": {**asdict(self.settings), "device_map": device_map(self.settings.device_map)},
            "cases": [*self.digests.items(), *self._digests_of((*self.controls, *self.courses))],
            "texts": {model: text_digest(found) for model, found in self.texts.items()},
            "files": {
                **{name: code_digest(name) for name in self.settings.editors},
                **{given: file_digest(given.rpartition("=")[2]) for given in self.settings.hparams},
            },
        }
        return hashlib.sha256(json.dumps(body, sort_keys=True, default=list).encode()).hexdigest()

    def about(self) -> dict[str, Any]:
        """The settings and data sources as JSON values, for reports."""
        unread = {name: list(sentences) for name, sentences in self.unread.items()}
        return {
            "settings": asdict(self.settings),
            "data": dict(self.sources),
            "unread": unread,
            "digest": self.digest(),
        }


def _probed(case: Case, probed: bool) -> Case:
    return case if case.probed is probed else replace(case, probed=probed)


def models_to_ask(settings: Settings, only: str = "") -> dict[str, tuple[str, ...]]:
    """The models of which only known facts are edited, and the data sets (of one stream) that they are asked about."""
    asked = [model for model in dict.fromkeys(settings.models) if leaves_unknown_out(settings, model)]
    return {model: tuple(spec for spec in streams(settings, model, only).values() if spec) for model in asked}


def keep_known(plan: RunPlan, store: Store, ask: Ask | None = None, progress: Progress | None = None) -> RunPlan:
    """The plan of the same settings with known facts only, where these ask for that.

    What the models know is in the store of the run, or is found out by `ask` and put there. Where neither tells, the
    plan stays as it is. Raises what `ask` does.
    """
    known: dict[str, Known] = {}
    for model, specs in models_to_ask(plan.settings, plan.only).items():
        if ask is not None:
            known[model] = find_known(plan.settings, model, specs, store, ask, progress)
        elif (found := store.fact(Known, slug(model))) is not None:
            known[model] = found
    return RunPlan.of(plan.settings, known, only=plan.only) if known else plan


def courses_of(
    settings: Settings, model: str, editor: str, stream: str, requests: Sequence[EditRequest]
) -> Iterator[Case]:
    """One editor's courses along every schedule of several edits, over the requests of one stream."""
    rows = tuple(requests[: settings.edits])
    small = settings.size[0] if len(settings.size) == 1 else sorted(settings.size)[1]
    schedules = (
        Schedule("sequential", every=settings.every),
        Schedule("batch", sizes=settings.size),
        Schedule("batch-sequential", sizes=(small,), every=max(small, settings.every)),
    )
    return (Case(model, editor, stream, rows, schedule) for schedule in schedules if rows)


def spread(rows: Sequence[Item], most: int) -> list[Item]:
    """At most so many, evenly from all over."""
    count = min(most, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]


def controls_for(model: str) -> dict[str, str]:
    """The control editors of a model, and what they come to on models where that is known.

    A shipped model may say so itself (`controls.json`): on one that nothing collapses, ROME must not. What they come to
    on a model that nobody knows (`is_known`) is not demanded.
    """
    own = shipped("data") / model / "controls.json"
    expected: dict[str, str] = json.loads(own.read_text(encoding="utf-8")) if own.is_file() else CONTROLS
    return expected


def is_known(model: str) -> bool:
    """Whether it is known what ROME does to a model: it is a pocket model, or numbers of ROME were published for it.

    Numbers that were found by calibration say what edits well, and nothing of what collapses.
    """
    file = hyperparameters.find("rome", slug(model))
    return file is not None and (model.startswith("pocket-") or file.stem in published())


def streams(settings: Settings, model: str, only: str = "") -> dict[str, str]:
    """The data of the hard and the normal stream for a model, or of one `only`; "" where there is none.

    A pocket model without hard cases of its own is asked those that collapse another one; a real model HardEdit, and
    facts of the world in other places and words.
    """
    hard, normal = settings.hard, settings.normal
    if not hard and not normal:
        own = (model, *sorted(path.parent.name for path in shipped("data").glob("pocket-*/hardcf.jsonl")))
        candidates = own if model.startswith("pocket-") else own[:1]
        hard = next((f"{name}/hardcf" for name in candidates if _has_hard_cases(name)), "")
        normal = "pocket-world/normal"
        if is_real(model):
            hard, normal = HARDEDIT, ORDINARY
    found = {"hard": hard, "normal": normal}
    return {name: spec for name, spec in found.items() if only in ("", name)}


def _has_hard_cases(model: str) -> bool:
    return (shipped("data") / model / "hardcf.jsonl").is_file()


def text_source(settings: Settings, model: str) -> str:
    """The texts whose perplexity is measured: those given, else those that ship, in the language of the model.

    A pocket model knows its own world only, every other one is taken to read English.
    """
    return settings.texts_from or ("pocket-world/texts" if model.startswith("pocket-") else "english/texts")


def text_digest(texts: Sequence[str]) -> str:
    """sha256 of a list of texts."""
    return hashlib.sha256(json.dumps(list(texts), ensure_ascii=False).encode()).hexdigest()


def _expanded(settings: Settings) -> tuple[str, ...]:
    """The editors that were asked for, "all" and EasyEdit's folder written out; each once, in that order."""
    every = [name for name in discovery.names("editors") if name != "noop"]
    if settings.easyedit and not any(METHOD in given for given in settings.editors):
        raise UsageError(
            f"--easyedit {settings.easyedit}: no editor of this run is a method of EasyEdit ({METHOD}ROME)."
        )
    named = (one for given in settings.editors for one in (every if given == ALL else [given]))
    return tuple(dict.fromkeys(with_folder(name, settings.easyedit) for name in named))


def _refuse_stray_hparams(settings: Settings) -> None:
    """Hyperparameters that would silently go unused: of an editor that does not run, or in no file."""
    known = {*settings.editors, *map(label, settings.editors), *CONTROLS}
    for given in settings.hparams:
        name, separator, path = given.partition("=")
        if separator and name not in known:
            raise UsageError(f"--hparams {given}: no editor {name!r} in this run. Editors: {', '.join(sorted(known))}.")
        if not Path(path if separator else given).is_file():
            raise UsageError(f"--hparams {given}: there is no such file. Give FILE, or editor=FILE.")


def _refuse_duplicates(cases: Sequence[Case]) -> None:
    seen: dict[str, Case] = {}
    for case in cases:
        other = seen.setdefault(case.id, case)
        if other is not case and not (case.control and other.block == case.block and other.request == case.request):
            origins = [c.request.source or f"{c.editor} on {c.model}" for c in (other, case)]
            if origins[0] == origins[1]:
                same = other.block == case.block and other.stream != case.stream
                origins = [f"{origins[0]} as {c.stream}" if same else f"{c.editor} on {c.model}" for c in (other, case)]
            raise UsageError(
                f"two cases are called {case.id}: {origins[0]} and {origins[1]}. "
                "Give requests, editors and models different names."
            )
