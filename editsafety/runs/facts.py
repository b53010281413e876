"""Facts: what a run knows beside its records, each a value of its own kind, kept in the store by kind and name.

`RunFacts` holds all of them; the store reads and writes single ones (`store.note`, `store.fact`). No torch here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from editsafety.hyperparameters.carried import CarriedFrom
from editsafety.names import label, slug
from editsafety.runs.case import Case
from editsafety.runs.fact import OfBlock, OfModel, RunFact
from editsafety.runs.measurement import Column, Measurement


@dataclass(frozen=True)
class Wanted(RunFact):
    """What a session is about."""

    kind: ClassVar[str] = "asked"
    cases: tuple[str, ...] = ()  # ids of the cases that were selected
    probed: tuple[str, ...] = ()  # those of them whose abilities are measured
    apart: bool = False  # whether they are not those that the settings lay out (`editsafety sequence`)
    orders: int = 0  # of how many blocks it is asked whether the order of edits matters


@dataclass(frozen=True)
class Ended(RunFact):
    """How the last session ended."""

    kind: ClassVar[str] = "ended"
    interrupted: bool = True  # true from the beginning on: a run that is killed never gets to its end
    stopped: bool = False  # whether it was stopped on purpose: Ctrl-C, SIGTERM


@dataclass(frozen=True)
class Unusable(RunFact):
    """Why the last session could not use what the folder of the run holds; empty where it could."""

    kind: ClassVar[str] = "refused"
    sentence: str = ""


@dataclass(frozen=True)
class Software(RunFact):
    """Versions and machine that the run was computed with."""

    kind: ClassVar[str] = "software"
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Columns(RunFact):
    """The columns of the measures that were run, from left to right."""

    kind: ClassVar[str] = "columns"
    columns: tuple[Column, ...] = ()


@dataclass(frozen=True)
class JudgedCheck(RunFact):
    """A check that was asked for, where a part of the suites was run."""

    kind: ClassVar[str] = "judged"
    check: str = ""

    @property
    def name(self) -> str:
        """The check."""
        return self.check


@dataclass(frozen=True)
class NotApplicable(RunFact):
    """A case that its editor cannot be run on, by its traits."""

    kind: ClassVar[str] = "not_applicable"
    case: str = ""
    reason: str = ""

    @property
    def name(self) -> str:
        """The case."""
        return self.case


@dataclass(frozen=True)
class Unexplained(RunFact):
    """Tests of the suites that failed in the last session by something that is no check, each with its sentence."""

    kind: ClassVar[str] = "unexplained"
    tests: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelFacts(OfModel):
    """A model as it was loaded."""

    kind: ClassVar[str] = "model"
    fingerprint: str
    parameters: int
    device: str
    dtype: str
    attention: str = ""
    family: str = ""
    source: str = ""  # as the user named it
    revision: str | None = None
    trust_remote_code: bool = False
    threads: int = 1
    noise: float = 0.0  # the most by which the perplexity of a text differs when it is measured again
    layers: int = 0  # decoder blocks; 0 where nobody counted them
    chat: str = (
        ""  # the chat template around every prompt, `{}` in place of the prompt; empty where it was asked plainly
    )
    tokenizer: str = ""  # sha256 over how it spells; empty in what was kept before that was asked


@dataclass(frozen=True)
class ModelFiles(OfModel):
    """What the files of a local model looked like before it was loaded; empty for a model that has none here."""

    kind: ClassVar[str] = "files"
    state: str


@dataclass(frozen=True)
class Unedited(OfModel):
    """What was measured of an unedited model on certain texts."""

    kind: ClassVar[str] = "unedited"
    fingerprint: str
    texts: str  # their digest
    noise: float
    found: Mapping[str, dict[str, Any]]  # measurements as JSON values
    measured_with: str = ""  # sha256 of all that can change them beside weights and texts: versions, type, batch size

    def __post_init__(self) -> None:
        try:
            self.measurements  # noqa: B018
        except TypeError as error:  # a key that measurements do not have, or one that is missing
            raise ValueError(f"what was measured of {self.model} is no measurement ({error})") from error

    @property
    def name(self) -> str:
        """Model, weights and texts."""
        return f"{self.model}:{self.fingerprint}:{self.texts[:16]}"

    @property
    def measurements(self) -> dict[str, Measurement]:
        """What was found, by name."""
        return {name: Measurement.from_json(row) for name, row in self.found.items()}


@dataclass(frozen=True)
class Known(OfModel):
    """Whether an unedited model gives the true answers of requests, as far as it was asked."""

    kind: ClassVar[str] = "known"
    answers: Mapping[str, bool] = field(default_factory=dict)  # by digest of the request


@dataclass(frozen=True)
class Pace(OfModel):
    """How long measuring the unedited model took: a yardstick for how long edits of it may take."""

    kind: ClassVar[str] = "pace"
    seconds_per_text: float


@dataclass(frozen=True)
class EditorFacts(OfBlock):
    """An editor as it was made for a model."""

    kind: ClassVar[str] = "editor"
    hparams: Mapping[str, Any]
    code: str  # sha256 of the files that define it
    file: str = ""  # the user's hyperparameters
    origin: str = ""  # where it comes from, if not from here: a file, or package, version and entry point
    paper: str = ""
    reference: str = ""
    set_aside: tuple[str, ...] = ()  # what that file says and is not read here, each with the reason
    carried_from: CarriedFrom | None = None  # whose numbers these are, where the model has none of its own


@dataclass(frozen=True)
class Yardstick(OfBlock):
    """How long a plain forward pass of the model took, timed again and again between the edits of a block.

    Times of two machines can be compared when they are counted in it.
    """

    kind: ClassVar[str] = "yardstick"
    seconds: tuple[float, ...]
    machine: str  # what kind of machine: its processor and how many threads, or its GPU


@dataclass(frozen=True)
class RepeatedCost(OfBlock):
    """What the edit of one request cost, made again and again: what `suites/speed` times by pytest-benchmark."""

    kind: ClassVar[str] = "repeated"
    figure: str  # which cost: latency, measuring, memory
    request: str  # the beginning of the sha256 of what was edited
    values: tuple[float, ...]  # of each round: seconds, or bytes
    passes: tuple[float, ...] = ()  # seconds of a plain forward pass before each round
    machine: str = ""  # what kind of machine, where there are passes

    @property
    def name(self) -> str:
        """Model, editor and figure."""
        return f"{super().name}:{self.figure}"


@dataclass(frozen=True)
class BlockKey(OfBlock):
    """What the keys of a block's records share."""

    kind: ClassVar[str] = "key"
    single: str  # of single edits
    course: str  # of courses and of single edits whose abilities are measured

    def of(self, case: Case, digest: str = "") -> str:
        """What the record of a case is found by; `digest` is that of the case, where it is known already."""
        return case.key(self.course if case.is_course or case.probed else self.single, digest)


@dataclass(frozen=True)
class OrderFacts(OfBlock):
    """Whether the edits of a block are the same bytes when computed alone, in another order."""

    kind: ClassVar[str] = "order"
    compared: int
    different: tuple[str, ...]  # ids of cases
    key: str  # the block's key when that was found out
    trouble: str = ""  # what went wrong while they were computed once more

    @property
    def holds(self) -> bool:
        """Whether there was something to compare, and it was the same."""
        return self.compared > 0 and not self.different and not self.trouble

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        if self.trouble:
            return self.trouble
        if not self.compared:
            return "no case gave an edit, so nothing can be compared"
        if self.different:
            return f"not the same bytes when computed alone in another order: {', '.join(self.different)}"
        return f"{self.compared} cases are the same bytes in another order"


@dataclass(frozen=True)
class Drifted(OfBlock):
    """The model's fingerprint had changed after the last case of a block."""

    kind: ClassVar[str] = "drifted"


@dataclass(frozen=True)
class Problem(OfBlock):
    """What stood in the way of a whole block."""

    kind: ClassVar[str] = "problem"
    sentence: str


BlockName = tuple[str, str]  # short names of model and editor
Block = TypeVar("Block", bound=OfBlock)


@dataclass(frozen=True)
class RunFacts:
    """Every fact of a run."""

    asked: Wanted = Wanted()
    ended: Ended = Ended()
    refused: str = ""
    software: Mapping[str, str] = field(default_factory=dict)
    columns: tuple[Column, ...] = ()
    judged: frozenset[str] = frozenset()  # checks that were asked for; empty: all
    not_applicable: Mapping[str, str] = field(default_factory=dict)  # reason, by case
    unexplained: tuple[str, ...] = ()  # tests that failed by no check, each with its sentence
    models: Mapping[str, ModelFacts] = field(default_factory=dict)
    unedited: Mapping[str, Unedited] = field(default_factory=dict)
    editors: Mapping[BlockName, EditorFacts] = field(default_factory=dict)
    keys: Mapping[BlockName, BlockKey] = field(default_factory=dict)
    orders: Mapping[BlockName, OrderFacts] = field(default_factory=dict)
    yardsticks: Mapping[BlockName, Yardstick] = field(default_factory=dict)
    repeated: tuple[RepeatedCost, ...] = ()
    problems: Mapping[BlockName, str] = field(default_factory=dict)
    drifted: frozenset[BlockName] = frozenset()

    @classmethod
    def of(cls, facts: Iterable[RunFact]) -> RunFacts:
        """From single facts, in any order."""
        every = list(facts)

        def of_blocks(kind: type[Block]) -> dict[BlockName, Block]:
            return {(fact.model, fact.editor): fact for fact in every if isinstance(fact, kind)}

        return cls(
            asked=next((fact for fact in every if isinstance(fact, Wanted)), Wanted()),
            ended=next((fact for fact in every if isinstance(fact, Ended)), Ended()),
            refused=next((fact.sentence for fact in every if isinstance(fact, Unusable)), ""),
            software=next((fact.versions for fact in every if isinstance(fact, Software)), {}),
            columns=next((fact.columns for fact in every if isinstance(fact, Columns)), ()),
            judged=frozenset(fact.check for fact in every if isinstance(fact, JudgedCheck)),
            not_applicable={fact.case: fact.reason for fact in every if isinstance(fact, NotApplicable)},
            unexplained=next((fact.tests for fact in every if isinstance(fact, Unexplained)), ()),
            models={fact.model: fact for fact in every if isinstance(fact, ModelFacts)},
            unedited={fact.name: fact for fact in every if isinstance(fact, Unedited)},
            editors=of_blocks(EditorFacts),
            keys=of_blocks(BlockKey),
            orders=of_blocks(OrderFacts),
            yardsticks=of_blocks(Yardstick),
            repeated=tuple(fact for fact in every if isinstance(fact, RepeatedCost)),
            problems={block: fact.sentence for block, fact in of_blocks(Problem).items()},
            drifted=frozenset(of_blocks(Drifted)),
        )

    def key_of(self, case: Case, digest: str = "") -> str | None:
        """What the record of a case is found by; None where nothing of its block was begun."""
        shared = self.keys.get((slug(case.model), label(case.editor)))
        return None if shared is None else shared.of(case, digest)

    def asks_for(self, check: str) -> bool:
        """Whether a check was asked for; without any word on that, all were."""
        return not self.judged or check in self.judged


_SESSION = (Wanted, Ended, Unusable, Software, Columns, JudgedCheck, NotApplicable, Unexplained)
_SUBJECTS = (
    *(ModelFacts, ModelFiles, Unedited, Known, Pace, EditorFacts),
    *(Yardstick, RepeatedCost, BlockKey, OrderFacts, Drifted, Problem),
)
KINDS: Mapping[str, type[RunFact]] = {fact.kind: fact for fact in (*_SESSION, *_SUBJECTS)}
