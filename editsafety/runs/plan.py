"""RunPlan: which cases a run consists of, worked out from options and data files alone. No torch, no model here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from editsafety import __version__, datasets, discovery, hyperparameters
from editsafety.datasets.request import EditRequest
from editsafety.errors import UsageError
from editsafety.names import label, parts, slug, tag
from editsafety.runs.schedule import Course, Schedule
from editsafety.shipped import shipped

Item = TypeVar("Item")
CONTROLS = {"rome": "COLLAPSE", "c_rome": "PASS", "noop": "NO-OP"}
BUILT_IN = "pocket-world/abilities"
FAMILIES = ("reasoning", "nli", "open_qa", "closed_qa", "dialogue", "summarisation", "ner", "sentiment")
NONE = "none"  # as a probe: measure no abilities
ALL = "all"  # as an editor's name: every editor there is, but for the one that does nothing


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of a run, as given. Empty data specifications mean "what is shipped for that model".

    Of courses: at most `edits` requests, measured after `every` of them; batches of `size`; `singles` requests of each
    stream for the probes of abilities, of which `probe_limit` items are asked; `go_on` past a collapse.
    """

    models: tuple[str, ...]
    editors: tuple[str, ...]
    hard: str = ""
    normal: str = ""
    texts: str = ""
    text_limit: int = 50
    limit: int | None = None
    hparams: tuple[str, ...] = ()
    policy: str = "default"
    device: str = "auto"
    dtype: str = "float32"
    revision: str | None = None
    offline: bool = False
    trust_remote_code: bool = False
    seed: int = 0
    batch_size: int = 64
    controls: int = 3
    prepare: bool = False
    edits: int | None = None
    every: int = 10
    size: tuple[int, ...] = (1, 10, 50)
    singles: int = 5
    probes: tuple[str, ...] = ()
    probe_limit: int = 100
    go_on: bool = False

    def hparams_of(self, editor: str) -> Path | None:
        """The user's hyperparameter file of an editor: `editor=FILE`, or `FILE` for all that were asked for.

        A `FILE` for all is not for the control editors, which come along unasked.
        """
        for given in self.hparams:
            name, separator, path = given.partition("=")
            if separator and name in (editor, label(editor)):
                return Path(path)
            if not separator and editor in self.editors:
                return Path(given)
        return None


@dataclass(frozen=True, slots=True)
class Case:
    """The unit that is run, stored, resumed and judged: one editor, one model, one request, restored afterwards."""

    model: str
    editor: str
    stream: str
    request: EditRequest
    control: str = ""

    @property
    def id(self) -> str:
        """`pocket-neo-rome-hardcf-0017`, `pocket-neo-rect.rome-hardcf-0017`: stable, and selectable with -k."""
        return f"{slug(self.model)}-{tag(self.editor)}-{self.request.slug}"

    def key(self, shared: str) -> str:
        """What its record is found by: `shared` stands for all that can change the results of its whole block."""
        return hashlib.sha256(f"{shared}:{self.request.digest()}:{self.id}".encode()).hexdigest()

    @property
    def block(self) -> tuple[str, str]:
        """Cases of one block share model and editor, and are computed together."""
        return self.model, self.editor


@dataclass(frozen=True)
class RunPlan:
    """Settings, cases in run order, control cases, courses, and the texts for perplexity of each model."""

    settings: Settings
    cases: tuple[Case, ...]
    controls: tuple[Case, ...]
    texts: Mapping[str, tuple[str, ...]]
    sources: Mapping[str, str] = field(default_factory=dict)
    courses: tuple[Course, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> RunPlan:
        """Read the data and lay out every case. Raises UsageError or DataError before any model is loaded."""
        if not settings.models:
            raise UsageError(
                "no model was given. Name one: --model pocket-neo, a hub id, a local folder, random:gpt2-xl."
            )
        if not settings.editors:
            raise UsageError("no editor was given. Name one: --editor rome, or path/to/file.py:ClassName.")
        settings = replace(settings, editors=_expanded(settings.editors))
        _refuse_stray_hparams(settings)
        for editor in settings.editors:
            discovery.expect_editor(editor)
        cases: list[Case] = []
        controls: list[Case] = []
        courses: list[Course] = []
        texts: dict[str, tuple[str, ...]] = {}
        sources: dict[str, str] = {}
        for model in dict.fromkeys(settings.models):
            specs = streams(settings, model)
            rows = {name: datasets.requests(spec, limit=settings.limit) for name, spec in specs.items() if spec}
            if not rows:
                raise UsageError(
                    f"nothing to edit on {model}: no requests ship for it. "
                    "Give some: --normal counterfact:FILE.json, --hard hardcf:FILE.json, or FILE.jsonl."
                )
            spec = text_source(settings, model)
            texts[model] = datasets.texts(spec, limit=settings.text_limit)
            sources |= {f"{slug(model)} {name}": spec for name, spec in {**specs, "texts": spec}.items() if spec}
            for editor in dict.fromkeys(settings.editors):
                cases += [Case(model, editor, stream, row) for stream in rows for row in rows[stream]]
                courses += [one for stream in rows for one in courses_of(settings, model, editor, stream, rows[stream])]
            if "hard" in rows:
                few = rows["hard"][: settings.controls]
                for editor, expected in controls_for(settings, model).items():
                    controls += [
                        Case(model, editor, "hard", row, expected) for row in (few[:1] if editor == "noop" else few)
                    ]
        _refuse_duplicates([*cases, *controls])
        return cls(settings, tuple(cases), tuple(controls), texts, sources, tuple(courses))

    @property
    def blocks(self) -> tuple[tuple[str, str], ...]:
        """(model, editor) pairs in run order."""
        return tuple(dict.fromkeys(case.block for case in self.cases))

    def course(self, course_id: str) -> Course:
        """A planned course by id. Raises KeyError."""
        found = next((course for course in self.courses if course.id == course_id), None)
        if found is None:
            raise KeyError(course_id)
        return found

    def probes(self, model: str) -> tuple[str, ...]:
        """The abilities that are measured along the courses of a model: those asked for, else those made for it."""
        if self.settings.probes == (NONE,):
            return ()
        if self.settings.probes:
            return self.settings.probes
        return tuple(f"{BUILT_IN}/{name}" for name in FAMILIES) if model.startswith("pocket-") else ()

    def case(self, case_id: str) -> Case:
        """A planned case or control by id. Raises KeyError."""
        found = next((case for case in (*self.cases, *self.controls) if case.id == case_id), None)
        if found is None:
            raise KeyError(case_id)
        return found

    def digest(self) -> str:
        """sha256 of what would be run: equal digests, the same run (that is how an interrupted one is found again)."""
        body = {
            "version": __version__,
            "settings": asdict(self.settings),
            "cases": [[case.id, case.request.digest()] for case in (*self.cases, *self.controls)],
            "texts": {model: text_digest(found) for model, found in self.texts.items()},
            "files": {
                **{name: _code_digest(name) for name in self.settings.editors},
                **{given: _file_digest(given.rpartition("=")[2]) for given in self.settings.hparams},
            },
        }
        return hashlib.sha256(json.dumps(body, sort_keys=True, default=list).encode()).hexdigest()

    def about(self) -> dict[str, Any]:
        """The settings and data sources as JSON values, for reports."""
        return {"settings": asdict(self.settings), "data": dict(self.sources), "digest": self.digest()}


def courses_of(
    settings: Settings, model: str, editor: str, stream: str, requests: Sequence[EditRequest]
) -> Iterator[Course]:
    """One editor's courses along every schedule, over the requests of one stream."""
    rows = tuple(requests[: settings.edits])
    small = settings.size[0] if len(settings.size) == 1 else sorted(settings.size)[1]
    schedules = {
        Schedule("single"): tuple(spread(rows, settings.singles)),
        Schedule("sequential", every=settings.every): rows,
        Schedule("batch", sizes=settings.size): rows,
        Schedule("batch-sequential", sizes=(small,), every=max(small, settings.every)): rows,
    }
    return (Course(model, editor, stream, schedule, taken) for schedule, taken in schedules.items() if taken)


def spread(rows: Sequence[Item], most: int) -> list[Item]:
    """At most so many, evenly from all over."""
    count = min(most, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]


def controls_for(settings: Settings, model: str) -> dict[str, str]:
    """The control editors that can run on a model, and what they must come to.

    A shipped model may say so itself (`controls.json`): on one that nothing collapses, ROME must not. ROME and C-ROME
    need hyperparameters, shipped or given; on a model without any only the no-op control remains.
    """
    own = shipped("data") / model / "controls.json"
    expected: dict[str, str] = json.loads(own.read_text(encoding="utf-8")) if own.is_file() else CONTROLS
    ready = hyperparameters.find("rome", slug(model)) is not None
    return {e: v for e, v in expected.items() if ready or e == "noop" or settings.hparams_of(e) is not None}


def streams(settings: Settings, model: str) -> dict[str, str]:
    """The data of the hard and the normal stream for a model; "" where there is none.

    A pocket model without hard cases of its own is asked those that collapse another one, a model of the GPT family
    the shipped HardEdit, which was written for its tokenizer.
    """
    hard, normal = settings.hard, settings.normal
    if not hard and not normal:
        own = (model, *sorted(path.parent.name for path in shipped("data").glob("pocket-*/hardcf.jsonl")))
        candidates = own if model.startswith("pocket-") else own[:1]
        hard = next((f"{name}/hardcf" for name in candidates if _has_hard_cases(name)), "")
        if not hard and "gpt" in slug(model) and not model.startswith("random:"):
            hard = "hardedit"
        if model.startswith(("pocket-", "random:")):
            normal = "pocket-world/normal"
    return {"hard": hard, "normal": normal}


def _has_hard_cases(model: str) -> bool:
    return (shipped("data") / model / "hardcf.jsonl").is_file()


def text_source(settings: Settings, model: str) -> str:
    """The texts whose perplexity is measured."""
    if settings.texts:
        return settings.texts
    if model.startswith(("pocket-", "random:")):
        return "pocket-world/texts"
    return "me_ppl_50"


def text_digest(texts: Sequence[str]) -> str:
    """sha256 of a list of texts."""
    return hashlib.sha256(json.dumps(list(texts), ensure_ascii=False).encode()).hexdigest()


def _code_digest(editor: str) -> str:
    """Of the user's own files in an editor's name: `path.py:Class`, alone or in an expression."""
    around, inner = parts(editor)
    return "".join(_file_digest(one.rpartition(":")[0]) for one in (*around, inner) if ".py:" in one)


def _file_digest(name: str) -> str:
    path = Path(name)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _expanded(editors: Sequence[str]) -> tuple[str, ...]:
    """The editors that were asked for, "all" written out; each once, in that order."""
    every = [name for name in discovery.names("editors") if name != "noop"]
    return tuple(dict.fromkeys(one for given in editors for one in (every if given == ALL else [given])))


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
                origins = [f"{c.editor} on {c.model}" for c in (other, case)]
            raise UsageError(
                f"two cases are called {case.id}: {origins[0]} and {origins[1]}. "
                "Give requests, editors and models different names."
            )
